"""Blocks in the answer keep every limit, are closed by force like others, and the thinking's budget does not hold for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import Branch, FinishEvent, ForkEvent, JoinEvent, Request, TokenEvent
from multiverse.engine.sampler import Sampler
from multiverse.structure import (
    MULTIVERSE,
    MULTIVERSE_ANSWER,
    NPR,
    THREADWEAVER,
    Blocks,
    Dialect,
    Role,
    State,
    TokenDialect,
    markdown,
)
from tests.cli.scripted import FORKED, FORKED_MARKDOWN, scripted_llm
from tests.conftest import FAMILIES, build_tokenizer, save_model
from tests.engine.steering import Policy, PolicySampler
from tests.engine.test_guard import Keen, behind_a_label, dialect_of, newest_text, whole
from tests.engine.test_sampler import busy


def forking(
    tokens: TokenDialect,
    *,
    width: int = 2,
    blocks: int = 2,
    think: bool = False,
    concludes: bool = True,
    end: int | None = None,
) -> Policy:
    """Blocks in blocks, two levels deep, and texts that go on until `end`, within what limits and grammar leave."""
    word, space, sep = (tokens.encode(text)[0] for text in ("w", " ", "\n"))

    def choose(request: Request, branch: Branch) -> int:
        machine = branch.machine
        assert machine is not None
        only, banned, _ = request.limits.choices(branch)
        if only is not None:
            opening, closing = tokens.outline_tag, tokens.ids[Role.GOAL_CLOSE]
            return opening if opening in only and machine.outlines < width else closing if closing in only else only[0]
        if think and machine.state is State.TEXT and not branch.token_ids and tokens.ids[Role.THINK_OPEN] not in banned:
            return tokens.ids[Role.THINK_OPEN]
        if behind_a_label(request, branch):
            return space
        text = newest_text(request, branch)
        if machine.state is State.OUTLINE and text.endswith("w"):
            return sep
        if machine.state is State.OUTLINE and text.endswith("w\n"):
            return tokens.ids[Role.OUTLINE_CLOSE]
        if machine.state is State.CONCLUSION and concludes and text.endswith("www"):
            return sep
        if machine.state is State.CONCLUSION and text.endswith("www\n"):
            return tokens.ids[Role.CONCLUSION_CLOSE]
        if machine.state is machine.base and len(branch.blocks) < blocks and machine.depth < 2:
            if tokens.fork_tag not in banned:
                return tokens.fork_tag
            if text.endswith("www"):
                return sep
        done = machine.state is State.TEXT and end is not None and text.endswith("www")
        return end if done and end is not None else word

    return choose


def made(folder: Path, blocks: Blocks) -> LLM:
    return LLM(folder, dialect=replace(MULTIVERSE, blocks=blocks), kv_memory=8 << 20)


@pytest.fixture(scope="module")
def answering(model_folders: dict[str, Path]) -> Iterator[LLM]:
    llm = made(model_folders["qwen3"], "answer")
    yield llm
    llm.engine.check_integrity()
    assert llm.engine.slots.owned == 0


@pytest.fixture(scope="module")
def everywhere(model_folders: dict[str, Path]) -> LLM:
    return made(model_folders["qwen3"], "both")


def answer_blocks(generation: Generation) -> int:
    assert generation.tree is not None, generation.structure_error
    return sum(not isinstance(item, str) for item in generation.tree.answer)


def run(llm: LLM, params: list[SamplingParams]) -> list[Generation]:
    return llm.generate(["Q"] * len(params), params)


@pytest.mark.parametrize("width", [1, 3])
def test_every_bound_leaves_an_answer_that_can_be_read(answering: LLM, width: int) -> None:
    tokens = dialect_of(answering)
    answering.engine.sampler = PolicySampler(forking(tokens, width=width))
    limits = [*range(20, 150, 13), *range(150, 330, 60), 600]
    generations = run(answering, [SamplingParams(max_tokens=limit, max_branch_tokens=80) for limit in limits])
    for limit, generation in zip(limits, generations, strict=True):
        assert generation.finish_reason == "length"
        assert generation.usage.total_tokens <= limit
        whole(generation, tokens)
        assert generation.tree is not None
        assert generation.tree.thinking is None
        assert generation.answer == markdown(generation.tree.answer)
        assert {reason for _, reason in generation.closed} <= {"length"}
    assert {answer_blocks(generation) for generation in generations} >= ({0, 1, 2} if width == 1 else {0, 1})
    assert max(generation.tree.depth for generation in generations if generation.tree is not None) == 2


@pytest.mark.parametrize("limit", [90, 131, 174, 239])
def test_the_critical_path_keeps_its_bound(answering: LLM, limit: int) -> None:
    tokens = dialect_of(answering)
    answering.engine.sampler = PolicySampler(forking(tokens))
    (generation,) = run(answering, [SamplingParams(max_critical_path_tokens=limit, max_tokens=2000)])
    assert generation.finish_reason == "budget"
    assert limit - 12 <= generation.usage.critical_path_tokens <= limit
    assert answer_blocks(generation) > 0
    whole(generation, tokens)


def test_after_the_forced_close_the_model_concludes_and_goes_on(answering: LLM) -> None:
    tokens = dialect_of(answering)
    answering.engine.sampler = PolicySampler(forking(tokens, blocks=1, concludes=False))
    (generation,) = run(answering, [SamplingParams(max_tokens=400, reserved_tokens=60)])
    assert generation.tree is not None
    block, text = generation.tree.answer
    assert not isinstance(block, str)
    assert block.conclusion.startswith("w" * 20)
    assert isinstance(text, str)
    assert text.strip("w") == ""
    assert generation.usage.total_tokens == 400


def test_a_path_of_the_answer_keeps_its_own_bound(answering: LLM) -> None:
    tokens, end = dialect_of(answering), int(answering.tokenizer.eos_token_id)
    answering.engine.sampler = PolicySampler(forking(tokens, blocks=1, end=end))
    (generation,) = run(answering, [SamplingParams(max_tokens=1000, max_branch_tokens=100, max_depth=1)])
    assert [reason for _, reason in generation.closed] == ["length", "length"]
    assert max(generation.branches.count(label) for label in ("1", "2")) <= 100
    assert answer_blocks(generation) == 1


@pytest.mark.parametrize("budget", [0, 40, 90])
def test_the_thinking_budget_does_not_hold_for_the_answer(everywhere: LLM, budget: int) -> None:
    tokens, end = dialect_of(everywhere), int(everywhere.tokenizer.eos_token_id)
    everywhere.engine.sampler = PolicySampler(forking(tokens, think=True))
    (generation,) = run(everywhere, [SamplingParams(thinking_budget=budget, max_tokens=600)])
    assert generation.tree is not None, generation.structure_error
    assert answer_blocks(generation) > 0
    if tokens.ids[Role.THINK_OPEN] in generation.token_ids:
        close = generation.token_ids.index(tokens.ids[Role.THINK_CLOSE])
        assert generation.positions[close] + 1 - len(generation.prompt_token_ids) <= budget
    # The answer's blocks are far longer than the budget, and closed for the limit on all tokens.
    assert generation.usage.critical_path_tokens > budget + 100
    assert (generation.finish_reason, generation.closed[-1][1]) == ("length", "length")
    # A model that ends in time was still cut short in its thinking, and the finish reason says so.
    everywhere.engine.sampler = PolicySampler(forking(tokens, think=True, end=end))
    (ended,) = run(everywhere, [SamplingParams(thinking_budget=budget, max_tokens=2000, max_branch_tokens=60, max_depth=1)])
    assert answer_blocks(ended) > 0
    assert ended.finish_reason == ("budget" if tokens.ids[Role.THINK_OPEN] in ended.token_ids else "stop")


def test_where_only_the_answer_forks_the_thinking_does_not(answering: LLM) -> None:
    tokens = dialect_of(answering)
    answering.engine.sampler = PolicySampler(forking(tokens, think=True))
    (generation,) = run(answering, [SamplingParams(thinking_budget=80, max_tokens=700)])
    assert generation.tree is not None
    assert generation.tree.thinking is not None
    assert all(isinstance(item, str) for item in generation.tree.thinking)
    assert answer_blocks(generation) > 0


def test_a_request_that_may_not_fork_answers_in_a_line(answering: LLM) -> None:
    answering.engine.sampler = PolicySampler(forking(dialect_of(answering)))
    (generation,) = run(answering, [SamplingParams(max_depth=0, max_tokens=50)])
    assert generation.tree is not None
    assert generation.tree.plain_answer is not None
    assert generation.usage.parallelism == 1.0


@pytest.mark.parametrize("forks", [False, True])
def test_whatever_a_random_model_writes_can_be_read_back(everywhere: LLM, forks: bool) -> None:
    everywhere.engine.sampler = Keen(everywhere, boost=4.0) if forks else Sampler()
    bias = busy(everywhere) if forks else {}
    params = [
        SamplingParams(temperature=1.0, top_p=1.0, seed=seed, max_tokens=300, max_depth=2, logit_bias=bias)
        for seed in range(12)
    ]
    for generation in run(everywhere, params):
        assert generation.finish_reason in ("stop", "length")
        assert generation.tree is not None, (generation.text, generation.structure_error)


@pytest.mark.parametrize("dialect", [NPR, THREADWEAVER], ids=lambda dialect: dialect.name)
def test_other_dialects_may_fork_in_the_answer_too(tmp_path: Path, dialect: Dialect) -> None:
    tokenizer = build_tokenizer(dialect)
    folder = save_model(tmp_path, FAMILIES["qwen3"](len(tokenizer)), tokenizer)
    llm = LLM(folder, dialect=replace(dialect, blocks="answer"), kv_memory=4 << 20)
    params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=250, max_width=2, logit_bias=busy(llm))
    generations = llm.generate(["Q"] * 12, [replace(params, seed=seed) for seed in range(12)])
    for generation in generations:
        assert generation.tree is not None, (generation.text, generation.structure_error)
    assert any(answer_blocks(generation) for generation in generations)


def test_events_say_what_is_answer_and_where_its_blocks_begin(model_folders: dict[str, Path]) -> None:
    llm = scripted_llm(model_folders["qwen3"], lambda _: FORKED, MULTIVERSE_ANSWER)
    events = list(llm.stream("Q", SamplingParams(temperature=0)))
    texts: dict[tuple[str, str], str] = {}
    for event in events:
        if isinstance(event, TokenEvent):
            key = (event.branch, event.role)
            texts[key] = texts.get(key, "") + event.text[event.label_length :]
    assert texts["", "answer"].split("\n") == ["Two questions.", "", "And a third.", "", "Answer: 3"]
    assert texts["", "conclusion"].strip() == "One is made, one is seen."
    assert texts["1.2", "text"].strip() == "Wet."
    assert ("", "text") not in texts
    goals = [(event.branch, event.in_answer) for event in events if isinstance(event, TokenEvent) and event.opens_goal]
    assert goals == [("", True), ("1", False), ("", True)]
    assert [type(event) for event in events].count(ForkEvent) == [type(event) for event in events].count(JoinEvent) == 3
    assert isinstance(events[-1], FinishEvent)
    assert events[-1].generation.answer == FORKED_MARKDOWN


def test_an_earlier_answer_that_forks_is_tokenised_as_it_was_generated(model_folders: dict[str, Path]) -> None:
    llm = scripted_llm(model_folders["qwen3"], lambda _: FORKED, MULTIVERSE_ANSWER)
    chat = [{"role": "user", "content": "one"}]
    (first,) = llm.chat(chat, SamplingParams(temperature=0))
    chat += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "two"}]
    (second,) = llm.chat(chat, SamplingParams(temperature=0))
    known = [*first.prompt_token_ids, *first.token_ids[:-1]]
    assert list(second.prompt_token_ids[: len(known)]) == known
    assert second.usage.cached_tokens >= len(known) - 1
    assert second.tree == FORKED
