"""Jump forward: tokens about which the guard leaves no choice are written and computed together, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import request as requests
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Document, Machine, layout
from multiverse.tasks import problems
from tests.engine.steering import GREEDY, NESTED, prompt_ids, run_documents, two_paths

FAMILIES = ("worksheet", "cases", "nested", "chain")


def heads_alone(machine: Machine) -> tuple[int, ...]:
    """What the engine writes without jump forward."""
    return machine.forced


@pytest.fixture(scope="module")
def mini() -> LLM:
    return LLM(dtype="float32")


@pytest.fixture
def llm(model_folders: dict[str, Path]) -> LLM:
    return LLM(model_folders["qwen3"], kv_memory=8 << 20)


def answers(llm: LLM, each: int) -> list[Generation]:
    """Greedy answers to puzzles of all kinds, so many of each."""
    questions = [problem.question for family in FAMILIES for problem in islice(problems(family, seed=11), each)]
    chats = [
        [{"role": "user", "content": f"{question} Think step by step and in parallel before answering."}]
        for question in questions
    ]
    return llm.chat(chats, SamplingParams(temperature=0, max_tokens=3000))


@pytest.mark.parametrize("each", [3, pytest.param(28, marks=pytest.mark.slow)])
def test_greedy_answers_are_those_of_sampling_with_the_guard(mini: LLM, monkeypatch: pytest.MonkeyPatch, each: int) -> None:
    jumped = answers(mini, each)
    monkeypatch.setattr(requests, "required_tokens", heads_alone)
    sampled = answers(mini, each)
    assert [one.token_ids for one in jumped] == [one.token_ids for one in sampled]
    assert [one.positions for one in jumped] == [one.positions for one in sampled]
    assert [one.finish_reason for one in jumped] == [one.finish_reason for one in sampled]
    forked = [(one, other) for one, other in zip(jumped, sampled, strict=True) if len(set(one.branches)) > 1]
    assert len(forked) > 2.5 * each
    for one, other in forked:
        assert sum(one.forced) > sum(other.forced)
        assert one.usage.critical_path_tokens == other.usage.critical_path_tokens
        assert one.usage.critical_path_steps < 0.9 * other.usage.critical_path_steps


@pytest.mark.parametrize("document", [NESTED, two_paths(), Document(None, "no block")], ids=["nested", "two paths", "none"])
def test_alone_a_request_takes_as_many_forwards_as_steps(llm: LLM, document: Document) -> None:
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    engine.sampler = sampler = ScriptedSampler()
    request = engine.submit(tokens.encode("Q"), GREEDY)
    sampler.scripts[request.id] = Script(document, tokens, int(llm.tokenizer.eos_token_id))
    forwards = 0
    while engine.busy:
        engine.step()
        forwards += 1
    generation = engine.generation(request)
    assert generation.tree == document
    # One forward more reads the prompt's tokens before its last.
    assert generation.usage.critical_path_steps in (forwards, forwards - 1)
    ids = [*generation.prompt_token_ids, *generation.token_ids[:-1]]
    assert generation.usage.critical_path_steps == layout(ids, tokens).critical_path_steps(1) + 1


def test_forced_tokens_have_no_log_probability_and_draw_no_number(llm: LLM) -> None:
    (generation,) = run_documents(llm, [NESTED])
    assert generation.logprobs is not None
    assert [value is None for value in generation.logprobs] == list(generation.forced)
    text = [llm.engine.decode([token]) for token in generation.token_ids]
    forced = {piece for piece, own in zip(text, generation.forced, strict=True) if own}
    assert {"<Goal>", "</Parallel>", "<Path>", "<Conclusion>", "1", ":"} <= forced
    # The first outline follows from the goal; the model chooses every further one, and all that closes or begins.
    assert {"<Parallel>", "</Goal>", "</Outline>", "</Path>", "</Conclusion>", "<Think>", "</Think>"}.isdisjoint(forced)


def test_what_must_follow_a_prompt_is_computed_with_its_last_token(llm: LLM) -> None:
    tokens = llm.engine.tokens
    assert tokens is not None
    ids = prompt_ids(llm, "Q<Think>")
    for limit in (1, 2, 3):
        (generation,) = llm.generate([ids], SamplingParams(temperature=0, max_tokens=limit, reserved_tokens=0))
        assert (generation.token_ids[0], generation.forced[0]) == (tokens.sep[0], True)
        assert generation.usage.total_tokens == limit


def test_without_the_guard_only_heads_are_forced(llm: LLM) -> None:
    (guarded,) = run_documents(llm, [NESTED])
    (raw,) = run_documents(llm, [NESTED], params=SamplingParams(temperature=0, max_tokens=4000, max_branches=1000, guard=False))
    assert raw.token_ids == guarded.token_ids
    heads = list(_forced_texts(raw, llm))
    assert "<Goal>" not in heads
    assert "<Path>" in heads
    assert sum(raw.forced) < sum(guarded.forced)
    assert raw.usage.critical_path_steps > guarded.usage.critical_path_steps


def _forced_texts(generation: Generation, llm: LLM) -> Iterator[str]:
    for token, forced in zip(generation.token_ids, generation.forced, strict=True):
        if forced:
            yield llm.engine.decode([token])
