"""Log-probabilities of prompts: as one dense forward gives them, whatever else the engine does at the time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.attention import dense_inputs
from multiverse.engine import FinishEvent, PromptEvent
from multiverse.engine.async_engine import AsyncEngine
from multiverse.engine.branch import TokenScore
from multiverse.errors import EngineError
from multiverse.structure import encode, layout
from tests.engine.steering import NESTED, two_paths
from tests.engine.test_oracle import predecessors

GREEDY = SamplingParams(temperature=0, max_tokens=5, max_depth=0, logprobs=True, prompt_logprobs=3)
Scores = tuple[TokenScore | None, ...]


@pytest.fixture(scope="module")
def dense(model_folders: dict[str, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], attn_implementation="sdpa").eval()


def check(dense: Any, llm: LLM, prompt: list[int], scores: Scores | None, top: int) -> int:
    """Compare with one dense forward under the prompt's own layout; returns the number of scores."""
    tokens = llm.engine.tokens
    assert tokens is not None
    assert scores is not None
    assert len(scores) == len(prompt)
    whole = layout(prompt, tokens)
    with torch.inference_mode():
        logprobs_LV = dense(**dense_inputs(prompt, whole)).logits[0].float().log_softmax(-1)
    before = predecessors(whole)
    for at, score in enumerate(scores):
        assert (score is None) == (before[at] < 0 or whole.forced[at]), at
        if score is not None:
            row_V = logprobs_LV[before[at]]
            assert score.logprob == pytest.approx(float(row_V[prompt[at]]), abs=1e-4)
            assert score.rank == pytest.approx(int((row_V > row_V[prompt[at]]).sum()) + 1, abs=1)
            best = row_V.topk(top)
            assert [value for _, value in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)
            assert score.rank > top or score.top[score.rank - 1] == (prompt[at], score.logprob)
    return sum(score is not None for score in scores)


def structured(llm: LLM) -> list[list[int]]:
    tokens = llm.engine.tokens
    assert tokens is not None
    begin = tokens.encode("Q: ")
    return [[*begin, *encode(document, tokens).token_ids] for document in (NESTED, two_paths())]


def test_plain_and_structured_prompts_in_one_batch(llm: LLM, dense: Any) -> None:
    prompts = [llm.tokenizer.encode("The same words, the same words. 你好"), *structured(llm), [65]]
    for chunk in (7, 2048):  # cut into pieces, and whole
        llm.engine.scheduler.max_batch_tokens = chunk
        results = llm.generate(prompts, [replace(GREEDY, prompt_logprobs=top) for top in (3, 2, 0, 4)])
        compared = [
            check(dense, llm, prompt, result.prompt_logprobs, top)
            for prompt, result, top in zip(prompts, results, (3, 2, 0, 4), strict=True)
        ]
        assert compared[0] == len(prompts[0]) - 1
        assert min(compared[1:3]) > 30
        assert compared[3] == 0
    # What is generated is what is generated without.
    alone = llm.generate(prompts, replace(GREEDY, prompt_logprobs=None))
    assert [result.token_ids for result in results] == [result.token_ids for result in alone]
    assert {result.prompt_logprobs for result in alone} == {None}
    # Nothing of a prompt comes from the cache, though all of it is there now.
    assert [result.usage.cached_tokens for result in results] == [0, 0, 0, 0]
    scored = llm.score(prompts)
    assert [[own.logprob if own else None for own in result.prompt_logprobs or ()] for result in results] == [
        pytest.approx(list(score.logprobs), abs=1e-5) for score in scored
    ]


def test_samples_of_one_prompt_share_its_scores(llm: LLM, dense: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    run = llm.engine.backend.run
    monkeypatch.setattr(llm.engine.backend, "run", lambda batch: (computed.append(len(batch.token_N)), run(batch))[1])
    prompt = structured(llm)[0]
    results = llm.generate([prompt], replace(GREEDY, n=3, temperature=1.0, seed=1))
    assert check(dense, llm, prompt, results[0].prompt_logprobs, 3) > 30
    assert results[0].prompt_logprobs is results[1].prompt_logprobs is results[2].prompt_logprobs
    # Once, and a few tokens to go on from.
    assert sum(computed) < len(prompt) + 3 * (GREEDY.max_tokens + 2)


def test_a_prompt_that_is_only_scored_may_end_anywhere(llm: LLM, dense: Any) -> None:
    whole = structured(llm)[0]
    prompts = [whole[:end] for end in range(4, len(whole), 37)]
    for prompt, result in zip(prompts, llm.generate(prompts, replace(GREEDY, max_tokens=0)), strict=True):
        check(dense, llm, prompt, result.prompt_logprobs, 3)
        assert result.token_ids == ()


@pytest.mark.parametrize("ending", ["", "<Think>"])
def test_without_tokens_to_generate_the_prompt_is_scored_and_that_is_all(llm: LLM, dense: Any, ending: str) -> None:
    prompt = llm.tokenizer.encode(f"Nothing more{ending}")
    (result, _) = results = llm.generate([prompt], replace(GREEDY, max_tokens=0, n=2))
    assert check(dense, llm, prompt, result.prompt_logprobs, 3) >= len(prompt) - 1
    assert [(own.token_ids, own.text, own.finish_reason, own.usage.total_tokens) for own in results] == [
        ((), "", "length", 0)
    ] * 2
    assert result.usage.admitted


def test_the_scores_come_before_the_first_token(llm: LLM) -> None:
    events = list(llm.stream("abc", GREEDY))
    assert isinstance(events[0], PromptEvent)
    assert isinstance(events[-1], FinishEvent)
    assert sum(isinstance(event, PromptEvent) for event in events) == 1
    assert events[0].scores == events[-1].generation.prompt_logprobs


def test_an_end_before_the_scores_leaves_nothing(llm: LLM) -> None:
    engine, prompt = llm.engine, llm.tokenizer.encode("word " * 100)
    engine.scheduler.max_batch_tokens = 16
    aborted = engine.submit(prompt, GREEDY)
    late = engine.submit(prompt, replace(GREEDY, max_seconds=1e-9))
    none = engine.submit(prompt, replace(GREEDY, max_seconds=1e-9, max_tokens=0))
    engine.step()
    engine.abort(aborted)
    assert (late.finish_reason, none.finish_reason) == ("deadline", "deadline")
    assert not engine.busy


def test_preemption_changes_no_score(llm: LLM, dense: Any) -> None:
    engine, prompt = llm.engine, structured(llm)[0]
    engine.scheduler.max_batch_tokens = 16
    request = engine.submit(prompt, GREEDY)
    for _ in range(3):
        engine.step()
    engine.scheduler.preempt(engine.scheduler.running[0])
    engine.run([request])
    assert check(dense, llm, prompt, engine.generation(request).prompt_logprobs, 3) > 30


def test_a_forward_that_fails_while_scoring_ends_the_request(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    run, prompt, scheduler = llm.engine.backend.run, llm.tokenizer.encode("abc"), llm.engine.scheduler
    long = SamplingParams(max_tokens=1500, ignore_eos=True, max_depth=0)

    def fail(batch: Any) -> Any:
        if not any(request.scoring for request in scheduler.running):
            return run(batch)
        monkeypatch.setattr(llm.engine.backend, "run", run)
        raise MemoryError("no more")

    async def main() -> None:
        async with AsyncEngine(llm.engine) as engine:
            monkeypatch.setattr(llm.engine.backend, "run", fail)
            with pytest.raises(EngineError, match="no more"):
                await engine.generate(prompt, GREEDY)
            # Beside another request, which the failure ends; this one has not begun, but has no scores to come.
            monkeypatch.setattr(llm.engine.backend, "run", fail)
            beside = engine.stream(prompt, long)
            assert await beside.admitted()
            failed = await engine.generate(prompt, GREEDY)
            with pytest.raises(EngineError, match="no more"):
                async for _ in beside:
                    pass
            assert (failed.finish_reason, failed.prompt_logprobs) == ("error", None)
            again = await engine.generate(prompt, GREEDY)
            assert again.prompt_logprobs is not None

    asyncio.run(asyncio.wait_for(main(), 60))
