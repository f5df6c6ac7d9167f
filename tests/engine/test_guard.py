"""With the guard no generation is malformed, and requests are closed before their limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import Branch, BranchEndEvent, Event, FinishEvent, Request
from multiverse.engine.limits import Choices
from multiverse.engine.sampler import Choice, Sampler
from multiverse.errors import RequestError
from multiverse.structure import MULTIVERSE_COMPACT, NPR, THREADWEAVER, Dialect, Role, State, TokenDialect, child_label, layout
from tests.conftest import FAMILIES, build_tokenizer, save_model
from tests.engine.steering import Policy, PolicySampler, always_fork, bare_request, prompt_ids
from tests.engine.test_sampler import busy

Row = tuple[Request, Branch]


def dialect_of(llm: LLM) -> TokenDialect:
    assert llm.engine.tokens is not None
    return llm.engine.tokens


def newest_text(request: Request, branch: Branch) -> str:
    """What a branch has written since its newest tag."""
    assert branch.machine is not None
    return request.model.decode(branch.token_ids[max(0, len(branch.token_ids) - branch.machine.since) :])


def behind_a_label(request: Request, branch: Branch) -> bool:
    """Whether the label of a path or an outline is all that has been written of it."""
    machine = branch.machine
    assert machine is not None
    if machine.state is State.OUTLINE:
        return newest_text(request, branch) == f"\n{child_label(machine.label, machine.outlines - 1)}:"
    return (
        machine.state is State.BODY and machine.tag is Role.PATH_OPEN and newest_text(request, branch) == f"\n{machine.label}:"
    )


class Keen(Sampler):
    """The model's own choice, with tags made likelier, and with texts that can be read back.

    The model is random, so it has to be told what every trained one knows: to begin with the thinking, a space behind a
    label, no line end first.
    """

    def __init__(self, llm: LLM, boost: float = 3.0) -> None:
        self.tokens, self.boost = dialect_of(llm), boost

    def edit(self, logits_BV: Tensor, rows: list[Row]) -> list[Choices]:
        logits_BV[:, list(self.tokens.roles)] += self.boost
        choices = super().edit(logits_BV, rows)
        space, sep, think = self.tokens.encode(" ")[0], self.tokens.sep[0], self.tokens.ids[Role.THINK_OPEN]
        for row_V, (request, branch) in zip(logits_BV, rows, strict=True):
            machine = branch.machine
            assert machine is not None
            only = None
            if machine.state is State.TEXT and not branch.token_ids:
                only = think
            elif behind_a_label(request, branch):
                only = space
            elif machine.state is State.BODY and newest_text(request, branch) in ("\n", f"\n{machine.label}: "):
                row_V[sep] = -torch.inf
            if only is not None:
                row_V[:only] = row_V[only + 1 :] = -torch.inf
        return choices


def endless(tokens: TokenDialect, width: int = 2, depth: int = 2) -> Policy:
    """Blocks in blocks, and texts that never come to an end; within what the limits and the grammar leave."""
    word, space, sep = (tokens.encode(text)[0] for text in ("w", " ", "\n"))

    def choose(request: Request, branch: Branch) -> int:
        machine = branch.machine
        assert machine is not None
        only, banned, _ = request.limits.choices(branch)
        if only is not None:
            opening, closing = tokens.outline_tag, tokens.ids[Role.GOAL_CLOSE]
            return opening if opening in only and machine.outlines < width else closing if closing in only else only[0]
        if machine.state is State.TEXT and not branch.token_ids and tokens.ids[Role.THINK_OPEN] not in banned:
            return tokens.ids[Role.THINK_OPEN]
        if behind_a_label(request, branch):
            return space
        text = newest_text(request, branch)
        if machine.state is State.OUTLINE and text.endswith("w"):
            return sep
        if machine.state is State.OUTLINE and text.endswith("w\n"):
            return tokens.ids[Role.OUTLINE_CLOSE]
        if machine.state is State.BODY and not branch.blocks and machine.depth < depth and tokens.fork_tag not in banned:
            return tokens.fork_tag
        if machine.state is State.BODY and not branch.blocks and machine.depth < depth and text.endswith("www"):
            return sep
        return word

    return choose


def brief(tokens: TokenDialect, width: int, end: int) -> Policy:
    """As `always_fork`, with texts that can be read back: a space behind each label, a word for an answer."""
    forks = always_fork(tokens, width, end)

    def choose(request: Request, branch: Branch) -> int:
        assert branch.machine is not None
        if behind_a_label(request, branch):
            return tokens.encode(" ")[0]
        if branch.machine.tag is Role.THINK_CLOSE and newest_text(request, branch) == "\n\n":
            return tokens.encode("4")[0]
        return forks(request, branch)

    return choose


def whole(generation: Generation, tokens: TokenDialect) -> None:
    """Everything that was opened is closed, and the text can be read back."""
    ids = [token for token in generation.token_ids if token in tokens.roles]
    for role in (Role.THINK_OPEN, Role.BLOCK_OPEN, Role.GOAL_OPEN, Role.OUTLINE_OPEN, Role.PATH_OPEN, Role.CONCLUSION_OPEN):
        closing = Role[role.name.replace("OPEN", "CLOSE")]
        assert ids.count(tokens.ids[role]) == ids.count(tokens.ids[closing])
    assert generation.tree is not None, (generation.text, generation.structure_error)
    assert generation.structure_error is None


# -- whatever a model writes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forks", [False, True])
def test_whatever_a_random_model_writes_can_be_read_back(llm: LLM, forks: bool) -> None:
    bias = busy(llm) if forks else {}
    params = [SamplingParams(temperature=1.0, top_p=1.0, seed=seed, max_tokens=200, logit_bias=bias) for seed in range(10)]
    tokens, stop_ids = dialect_of(llm), llm.engine.loaded.stop_ids
    reasons, labels = set(), set()
    for generation in llm.generate(["Q<Think>"] * 5 + ["Q"] * 5, params):
        assert generation.finish_reason in ("stop", "length")
        assert generation.usage.total_tokens <= 200
        # A request that is closed by force may end by itself before the limit.
        ended = generation.token_ids[-1] in stop_ids
        assert ended if generation.finish_reason == "stop" else ended or generation.usage.total_tokens > 160
        ids = [*generation.prompt_token_ids, *(token for token in generation.token_ids if token not in stop_ids)]
        prompt = generation.usage.prompt_tokens
        found = layout(ids, tokens)  # the grammar holds
        assert found.positions[prompt:] == generation.positions[: len(ids) - prompt]
        for role in (Role.BLOCK_OPEN, Role.GOAL_OPEN, Role.OUTLINE_OPEN, Role.PATH_OPEN, Role.CONCLUSION_OPEN):
            assert ids.count(tokens.ids[role]) == ids.count(tokens.ids[Role[role.name.replace("OPEN", "CLOSE")]])
        assert generation.tree is not None, (generation.text, generation.structure_error)
        reasons.add(generation.finish_reason)
        labels |= set(generation.branches)
    assert "length" in reasons
    assert (len(labels) > 4) == forks


@pytest.mark.parametrize("dialect", [NPR, THREADWEAVER, MULTIVERSE_COMPACT], ids=lambda dialect: dialect.name)
def test_other_dialects_are_kept_to_as_well(tmp_path: Path, dialect: Dialect) -> None:
    torch.manual_seed(5)
    tokenizer = build_tokenizer(dialect)
    llm = LLM(save_model(tmp_path, FAMILIES["qwen3"](len(tokenizer)), tokenizer), kv_memory=4 << 20)
    prompt = "Q" if dialect.think is None or dialect.forks_answer else f"Q{dialect.think.open}"
    params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=250, max_width=2, logit_bias=busy(llm))
    generations = llm.generate([prompt] * 12, [replace(params, seed=seed) for seed in range(12)])
    for generation in generations:
        assert generation.finish_reason in ("stop", "length")
        assert generation.usage.total_tokens <= 250
        assert generation.tree is not None, (generation.text, generation.structure_error)
    assert {"", "1", "2"} <= {label for generation in generations for label in generation.branches}


@pytest.mark.parametrize("budget", [37, 2048])
def test_a_keen_random_model_writes_what_can_be_read_back(llm: LLM, budget: int) -> None:
    llm.engine.sampler = Keen(llm, boost=4.0)
    llm.engine.scheduler.max_batch_tokens = budget
    tokens = dialect_of(llm)
    params = [SamplingParams(temperature=1.0, top_p=1.0, seed=seed, max_tokens=400, max_depth=2) for seed in range(24)]
    generations = llm.generate(["the question"] * 24, params)
    for generation in generations:
        assert generation.finish_reason in ("stop", "length")
        whole(generation, tokens)
    assert {generation.finish_reason for generation in generations} == {"stop", "length"}
    labels = {label for generation in generations for label in generation.branches}
    assert len(labels) > 1
    assert sum(bool(generation.closed) for generation in generations) >= 3


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("every", [13, pytest.param(2, marks=pytest.mark.slow)])
def test_every_bound_from_seventy_up_leaves_a_text_that_can_be_read(steered: LLM, width: int, every: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(endless(tokens, width))
    limits = [*range(70, 330, every), *range(330, 700, 8 * every)]
    deepest = 0
    for limit, generation in zip(
        limits, steered.generate(["Q"] * len(limits), [SamplingParams(max_tokens=limit) for limit in limits]), strict=True
    ):
        assert generation.finish_reason == "length"
        assert generation.usage.total_tokens <= limit
        whole(generation, tokens)
        assert {label for label, _ in generation.closed} == set(generation.branches) - {""}
        assert {reason for _, reason in generation.closed} <= {"length"}
        deepest = max(deepest, *(label.count(".") + 1 if label else 0 for label in generation.branches))
    assert deepest == 2


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 5, 40])
def test_a_bound_that_leaves_little_for_the_answer_leaves_it_readable(steered: LLM, tail: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(endless(tokens))
    limits = range(100, 180, 17)
    each = [SamplingParams(max_tokens=limit, reserved_tokens=tail) for limit in limits]
    for limit, generation in zip(limits, steered.generate(["Q"] * len(limits), each), strict=True):
        assert generation.usage.total_tokens <= limit
        whole(generation, tokens)
        after = generation.token_ids[generation.token_ids.index(tokens.ids[Role.THINK_CLOSE]) + 1 :]
        # The conclusion may take half of the tail; the answer has the rest, and what was kept for the next step.
        assert tail - tail // 2 <= len(after) <= tail + 12 or not after


@pytest.mark.parametrize("depth", [0, 2])
def test_the_model_s_last_position_is_a_bound_like_any_other(steered: LLM, monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    tokens, traits = dialect_of(steered), steered.engine.info
    steered.engine.sampler = PolicySampler(endless(tokens))
    for last in (75, 99, 140):
        monkeypatch.setattr(steered.engine, "info", traits._replace(max_positions=last))
        (generation,) = steered.generate("Q", SamplingParams(max_depth=depth))
        assert generation.finish_reason == "length"
        assert last - 12 <= max(generation.positions) + 1 <= last
        whole(generation, tokens)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 9, 14, 20, 35, 50])
def test_a_bound_too_small_for_closing_tokens_still_holds(steered: LLM, limit: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(endless(tokens))
    for params in (SamplingParams(max_tokens=limit), SamplingParams(max_critical_path_tokens=limit)):
        (generation,) = steered.generate("Q", params)
        assert generation.usage.critical_path_tokens <= limit
        assert generation.finish_reason == ("length" if params.max_tokens == limit else "budget")
        if limit >= 14:
            whole(generation, tokens)


def test_without_the_guard_the_raw_model_shows(llm: LLM) -> None:
    tokens = dialect_of(llm)
    path_close, think_close = tokens.ids[Role.PATH_CLOSE], tokens.ids[Role.THINK_CLOSE]
    wild = SamplingParams(temperature=0, max_tokens=30, logit_bias={path_close: 1000.0})
    guarded, raw = llm.generate(["Q<Think>\nso"] * 2, [wild, replace(wild, guard=False)])
    assert raw.finish_reason == "malformed"
    assert raw.token_ids == (path_close,)
    assert raw.structure_error == "found </Path> in thinking, expected text or <Parallel> or </Think>"
    assert guarded.finish_reason == "length"
    assert path_close not in guarded.token_ids
    # Without a separator in front: the grammar takes it, the guard does not.
    near = SamplingParams(temperature=0, max_tokens=30, logit_bias={think_close: 1000.0})
    guarded, raw = llm.generate(["Q<Think>\nso"] * 2, [near, replace(near, guard=False)])
    assert raw.token_ids[0] == think_close
    assert guarded.token_ids[0] != think_close
    assert raw.closed == guarded.closed == ()


# -- what a model cannot be trusted with ------------------------------------------------------------------------------


class Broken(Sampler):
    """From its `after`-th token on, the logits of one request are spoiled."""

    def __init__(self, prompt: list[int], value: float, after: int) -> None:
        self.prompt, self.value, self.after = prompt, value, after

    def sample(self, logits_BV: Tensor, rows: list[Row], *_: Any) -> Choice:
        logits_BV = logits_BV.clone()
        for row_V, (request, _) in zip(logits_BV, rows, strict=True):
            if request.prompt == self.prompt and request.num_generated >= self.after:
                row_V[7 :: 1 if self.value < 0 else 50] = self.value
                row_V[:7] = self.value if self.value < 0 else 0.0
        return super().sample(logits_BV, rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_gives_no_numbers_ends_its_request_alone(llm: LLM, value: float, after: int, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=4, max_tokens=20, logprobs=True)
    prompts = ["first", "the broken one", "and another"]
    before = llm.generate(prompts, params)
    llm.engine.cache.clear()
    llm.engine.sampler = Broken(prompt_ids(llm, prompts[1]), value, after)
    first, broken, third = llm.generate(prompts, params)
    assert broken.finish_reason == "error"
    assert broken.token_ids == before[1].token_ids[:after]
    assert broken.tree is None
    assert broken.structure_error == "the model gave no numbers to choose a token by (not-a-number, or infinity)"
    for alone, beside in ((before[0], first), (before[2], third)):
        assert (beside.token_ids, beside.finish_reason, beside.text) == (alone.token_ids, alone.finish_reason, alone.text)
        assert beside.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    # What it has read is of no use to anybody.
    llm.engine.sampler = Sampler()
    (again,) = llm.generate(prompts[1], params)
    assert again.usage.cached_tokens == 0
    assert again.token_ids == before[1].token_ids


# -- limits -----------------------------------------------------------------------------------------------------------


def run_listening(llm: LLM, params: SamplingParams, prompt: str = "Q") -> tuple[list[Event], Generation]:
    events = list(llm.stream(prompt, params))
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    return events, finish.generation


@pytest.mark.parametrize("most", [1, 2, 5])
def test_max_width(steered: LLM, most: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(always_fork(tokens, 8, int(steered.tokenizer.eos_token_id)))
    (generation,) = steered.generate("Q", SamplingParams(max_width=most, max_depth=2, max_branches=1000, max_tokens=3000))
    assert generation.finish_reason == "stop"
    labels = set(generation.branches)
    assert {label.rpartition(".")[2] for label in labels} == {"", *(str(i + 1) for i in range(most))}
    assert len(labels) == 1 + most + most**2


def test_max_width_of_a_keen_model(llm: LLM) -> None:
    llm.engine.sampler = Keen(llm, boost=6.0)
    params = [SamplingParams(temperature=1.0, top_p=1.0, seed=i, max_width=2, max_tokens=600) for i in range(4)]
    tokens = dialect_of(llm)
    biased = [replace(p, logit_bias={tokens.outline_tag: 50.0, tokens.fork_tag: 9.0}) for p in params]
    generations = llm.generate(["Q"] * 4, biased)
    widths = {label.rpartition(".")[2] for generation in generations for label in generation.branches}
    assert widths == {"", "1", "2"}


def one_endless_path(tokens: TokenDialect, end: int, fork_again: bool = False) -> Policy:
    """Three paths; the second never closes by itself, and may open a block after a while."""
    good, forever = brief(tokens, 3, end), endless(tokens, 2, 2)

    def choose(request: Request, branch: Branch) -> int:
        assert branch.machine is not None
        if branch.label.startswith("2"):
            if fork_again and len(branch.token_ids) in range(20, 23) and branch.machine.state is State.BODY:
                ready = newest_text(request, branch).endswith("\n")
                banned = request.limits.choices(branch).banned
                return tokens.fork_tag if ready and tokens.fork_tag not in banned else tokens.sep[0]
            if branch.label == "2" and branch.machine.state is State.BODY and not behind_a_label(request, branch):
                return tokens.encode("w")[0]
            return forever(request, branch)
        return good(request, branch)

    return choose


@pytest.mark.parametrize("most", [12, 30, 31, 32, 90])
def test_a_path_that_grows_too_long_is_closed_and_the_others_go_on(steered: LLM, most: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(one_endless_path(tokens, int(steered.tokenizer.eos_token_id)))
    params = SamplingParams(max_branch_tokens=most, max_depth=1, max_tokens=2000)
    events, generation = run_listening(steered, params)
    assert generation.finish_reason == "stop"
    assert generation.closed == (("2", "length"),)
    whole(generation, tokens)
    # To the token, less what a separator would have needed.
    assert most - 2 <= generation.branches.count("2") <= most
    ends = [(event.branch, event.reason) for event in events if isinstance(event, BranchEndEvent)]
    assert sorted(ends) == [("1", "stop"), ("2", "length"), ("3", "stop")]
    (other,) = steered.generate("Q", replace(params, max_branch_tokens=120))
    for label in ("", "1", "3"):
        own, others = (
            [token for token, branch in zip(g.token_ids, g.branches, strict=True) if branch == label]
            for g in (generation, other)
        )
        assert own == others


def test_a_path_that_opens_a_block_keeps_its_bound_too(steered: LLM) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(one_endless_path(tokens, int(steered.tokenizer.eos_token_id), fork_again=True))
    forked, limits = 0, range(24, 140, 12)
    each = [SamplingParams(max_branch_tokens=most, max_depth=2, max_tokens=2000) for most in limits]
    for most, generation in zip(limits, steered.generate(["Q"] * len(limits), each), strict=True):
        assert generation.finish_reason == "stop"
        whole(generation, tokens)
        assert "2" in dict(generation.closed)
        for label in set(generation.branches) - {""}:
            assert generation.branches.count(label) <= most
        forked += "2.1" in generation.branches
    assert forked > 2


@pytest.mark.parametrize("depth", [0, 2])
def test_the_critical_path_keeps_its_bound(steered: LLM, depth: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(endless(tokens))
    limits = [*range(70, 200, 19), 333]
    each = [SamplingParams(max_critical_path_tokens=limit, max_depth=depth) for limit in limits]
    for limit, generation in zip(limits, steered.generate(["Q"] * len(limits), each), strict=True):
        assert generation.finish_reason == "budget"
        assert limit - 12 <= generation.usage.critical_path_tokens <= limit
        assert (generation.usage.total_tokens > limit) == bool(depth)
        whole(generation, tokens)
        assert {reason for _, reason in generation.closed} <= {"budget"}


def thinking_path(generation: Generation, tokens: TokenDialect) -> int:
    """Longest chain of generated tokens up to the end of the thinking."""
    close = generation.token_ids.index(tokens.ids[Role.THINK_CLOSE])
    return generation.positions[close] + 1 - len(generation.prompt_token_ids)


@pytest.mark.parametrize("depth", [0, 2])
def test_the_thinking_keeps_its_budget_and_the_answer_is_not_counted(steered: LLM, depth: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(endless(tokens))
    limits, most = range(60, 130, 17), 450 if depth else 200
    each = [SamplingParams(thinking_budget=limit, max_depth=depth, max_tokens=most) for limit in limits]
    for limit, generation in zip(limits, steered.generate(["Q"] * len(limits), each), strict=True):
        assert thinking_path(generation, tokens) <= limit
        assert thinking_path(generation, tokens) >= limit - max(8, limit // 8) - 12
        whole(generation, tokens)
        assert {reason for _, reason in generation.closed} <= {"budget"}
        # The answer goes on for as long as it may: to the limit on all tokens.
        assert generation.finish_reason == "budget"
        assert generation.usage.total_tokens == most


@pytest.mark.parametrize("budget", [0, 1, 2, 3, 4, 5, 8, 13, 21])
def test_the_smallest_thinking_budgets(steered: LLM, budget: int) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(endless(tokens))
    (generation,) = steered.generate("Q", SamplingParams(thinking_budget=budget, max_tokens=100))
    assert generation.tree is not None
    if tokens.ids[Role.THINK_OPEN] in generation.token_ids:
        assert thinking_path(generation, tokens) <= budget


def test_a_model_that_stops_thinking_in_time_is_left_alone(steered: LLM) -> None:
    tokens = dialect_of(steered)
    steered.engine.sampler = PolicySampler(always_fork(tokens, 2, int(steered.tokenizer.eos_token_id)))
    (free,) = steered.generate("Q", SamplingParams(max_depth=1))
    loose = SamplingParams(max_depth=1, max_critical_path_tokens=300, thinking_budget=300, max_branch_tokens=200, max_width=20)
    (bounded,) = steered.generate("Q", loose)
    assert (bounded.token_ids, bounded.finish_reason, bounded.closed) == (free.token_ids, "stop", ())


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("multiverse.engine.engine.time", clock)
    monkeypatch.setattr("multiverse.engine.request.time", clock)
    return clock


@pytest.mark.parametrize("at", [1, 30, 150])
@pytest.mark.parametrize("tail", [16, 60])
def test_at_the_deadline_a_request_is_closed(steered: LLM, clock: Clock, at: int, tail: int) -> None:
    tokens = dialect_of(steered)
    forever = endless(tokens)
    reached: list[int] = []

    def policy(request: Request, branch: Branch) -> int:
        if request.num_generated >= at and not reached:
            clock.now += 50
            reached.append(request.num_generated)
        return forever(request, branch)

    steered.engine.sampler = PolicySampler(policy)
    events, generation = run_listening(steered, SamplingParams(max_seconds=50, reserved_tokens=tail, max_tokens=2000))
    assert generation.finish_reason == "deadline"
    assert generation.usage.seconds == 50
    whole(generation, tokens)
    assert {reason for _, reason in generation.closed} <= {"deadline"}
    # What is open then is closed by force; the model writes no more than the tail.
    written = [event for event in events if getattr(event, "token_id", None) is not None]
    after = written[reached[0] :]
    chosen = sum(not event.forced for event in after)  # type: ignore[union-attr]
    assert tail // 2 <= chosen <= tail + 6


def test_a_deadline_in_time_changes_nothing(steered: LLM, clock: Clock) -> None:
    steered.engine.sampler = PolicySampler(always_fork(dialect_of(steered), 2, int(steered.tokenizer.eos_token_id)))
    (generation,) = steered.generate("Q", SamplingParams(max_depth=1, max_seconds=1))
    assert generation.finish_reason == "stop"
    assert generation.usage.seconds == 0
    assert clock.now == 1000


def test_who_waits_beyond_the_deadline_never_begins(steered: LLM, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steered.engine.scheduler, "max_requests", 1)
    word = dialect_of(steered).encode("w")[0]
    steered.engine.sampler = PolicySampler(lambda _request, _branch: word)
    engine = steered.engine
    running = engine.submit(prompt_ids(steered, "a"), SamplingParams(max_tokens=30))
    waiting = engine.submit(prompt_ids(steered, "b"), SamplingParams(max_tokens=30, max_seconds=5))
    patient = engine.submit(prompt_ids(steered, "c"), SamplingParams(max_tokens=30, max_seconds=500))
    for _ in range(3):
        assert engine.step() == []
    clock.now += 6
    assert engine.step() == [waiting]
    generation = engine.generation(waiting)
    assert (generation.finish_reason, generation.token_ids, generation.text) == ("deadline", (), "")
    assert generation.usage.critical_path_tokens == 0
    engine.run([running, patient])
    assert (running.finish_reason, patient.finish_reason) == ("length", "length")


def test_a_deadline_that_has_passed_already(llm: LLM) -> None:
    (generation,) = llm.generate("Q", SamplingParams(max_seconds=1e-9))
    assert (generation.finish_reason, generation.token_ids) == ("deadline", ())


@pytest.mark.parametrize("guard", [True, False])
def test_a_deadline_without_the_guard_cuts(steered: LLM, clock: Clock, guard: bool) -> None:
    tokens = dialect_of(steered)
    opening = [tokens.ids[Role.THINK_OPEN], *tokens.sep]

    def policy(request: Request, branch: Branch) -> int:
        clock.now += len(branch.token_ids) == 100
        only = request.limits.choices(branch).only
        return only[0] if only is not None else (opening + tokens.encode("w") * 1000)[len(branch.token_ids)]

    steered.engine.sampler = PolicySampler(policy)
    (generation,) = steered.generate("Q", SamplingParams(max_seconds=1, guard=guard, reserved_tokens=20, max_tokens=1000))
    assert generation.finish_reason == "deadline"
    assert (generation.tree is not None) == guard
    # Guarded, there follow the closing of the thinking and the tail.
    assert generation.usage.total_tokens == 101 + (2 + 20 if guard else 0)


# -- log-probabilities, biases, samples -------------------------------------------------------------------------------


class Watched(Sampler):
    """Keeps the logits that the model gave, by branch and number of token."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str, int], Tensor] = {}

    def sample(self, logits_BV: Tensor, rows: list[Row], *_: Any) -> Choice:
        for row_V, (request, branch) in zip(logits_BV, rows, strict=True):
            self.seen[request.id, branch.label, len(branch.token_ids)] = row_V.clone()
        return super().sample(logits_BV, rows)


def test_the_likeliest_tokens_are_told_in_order(llm: LLM) -> None:
    llm.engine.sampler = sampler = Watched()
    wanted = (0, 1, 5, 100)
    requests = [
        llm.engine.submit(
            prompt_ids(llm, "Q"),
            SamplingParams(
                temperature=1.0 if k == 5 else 0, seed=1, max_tokens=20, max_depth=0, top_logprobs=k, logprobs=k != 1
            ),
        )
        for k in wanted
    ]
    llm.engine.run(requests)
    for k, request in zip(wanted, requests, strict=True):
        generation = llm.engine.generation(request)
        assert (generation.logprobs is None) == (k == 1)
        assert (generation.top_logprobs is None) == (k == 0)
        for number, top in enumerate(generation.top_logprobs or ()):
            if generation.forced[number]:
                assert top is None
                continue
            own_V = sampler.seen[request.id, "", number].log_softmax(-1)
            assert top is not None
            assert len(top) == k
            assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
            assert [value for _, value in top] == pytest.approx(own_V.topk(k).values.tolist(), abs=1e-5)
            assert all(value == pytest.approx(float(own_V[token]), abs=1e-5) for token, value in top)
            if generation.logprobs is not None:
                mine = generation.logprobs[number]
                assert mine == pytest.approx(float(own_V[generation.token_ids[number]]), abs=1e-5)
                # The likeliest of all is the greedy choice, where the guard leaves it.
                if top[0][0] == generation.token_ids[number]:
                    assert mine == pytest.approx(top[0][1], abs=1e-6)


def test_the_first_of_the_likeliest_is_the_greedy_choice(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=20, guard=False, max_depth=100, top_logprobs=2, logprobs=True)
    (generation,) = llm.generate("Q", params)
    assert generation.top_logprobs is not None
    assert generation.logprobs is not None
    for token, value, top in zip(generation.token_ids, generation.logprobs, generation.top_logprobs, strict=True):
        assert top is not None
        assert top[0] == (token, value)
        assert top[0][1] >= top[1][1]


def test_more_likeliest_tokens_than_there_are() -> None:
    request = bare_request(None, (1,), SamplingParams(temperature=0, top_logprobs=50))
    choice = Sampler().sample(torch.tensor([[0.0, 2.0, 1.0]]), [(request, request.trunk)])
    top = choice.drawn[0].top
    assert top is not None
    assert [token for token, _ in top] == [1, 2, 0]


def test_a_bias_forces_and_bans(llm: LLM) -> None:
    word = dialect_of(llm).encode("w")[0]
    params = SamplingParams(temperature=1.0, top_p=1.0, seed=2, max_tokens=25, max_depth=0, logprobs=True)
    (plain,) = llm.generate("Q", params)
    (forced,) = llm.generate("Q", replace(params, logit_bias={word: 100.0}))
    assert forced.text == "w" * 25
    # What is reported is what the model itself thinks of it.
    assert forced.logprobs is not None
    assert all(value is not None and value < -0.1 for value in forced.logprobs)
    used = set(plain.token_ids)
    (banned,) = llm.generate("Q", replace(params, logit_bias=dict.fromkeys(used, -100.0)))
    assert not used & set(banned.token_ids)
    (none,) = llm.generate("Q", replace(params, logit_bias=dict.fromkeys(used, 0.0)))
    assert none.token_ids == plain.token_ids


def test_a_bias_works_on_every_branch_of_its_own_request_alone(llm: LLM) -> None:
    tokens = dialect_of(llm)
    llm.engine.sampler = Keen(llm, boost=4.0)
    word = tokens.encode("w")[0]
    params = SamplingParams(temperature=1.0, top_p=1.0, seed=3, max_tokens=250, max_depth=1)
    prompts = ["the question"] * 3
    alone = llm.generate(prompts[:1], params)[0]
    first, biased, last = llm.generate(
        prompts, [params, replace(params, logit_bias={word: -50.0, tokens.fork_tag: 8.0}), params]
    )
    assert first.token_ids == last.token_ids == alone.token_ids
    assert len(set(biased.branches)) > 1
    assert word not in biased.token_ids


@pytest.mark.parametrize("token", [-1, 269, 100_000])
def test_a_bias_on_no_token_is_refused_by_name(llm: LLM, token: int) -> None:
    with pytest.raises(
        RequestError, match=rf"^prompt 1: logit_bias names token id {token}, outside the vocabulary \(0 to 268\)"
    ):
        llm.generate(["a", "b"], [SamplingParams(), SamplingParams(logit_bias={5: 1.0, token: 1.0})])
    assert not llm.engine.busy


def test_samples_of_one_prompt(llm: LLM) -> None:
    llm.engine.sampler = Keen(llm)
    llm.engine.cache.clear()
    prompt = "a prompt of some length, read once for all of them"
    params = SamplingParams(temperature=1.0, top_p=1.0, seed=7, max_tokens=60, n=5)
    finished: list[int] = []
    generations = llm.generate([prompt, "another"], [params, replace(params, n=2)], on_finish=lambda i, _: finished.append(i))
    assert sorted(finished) == list(range(7))
    assert [len(generation.prompt_token_ids) for generation in generations] == [len(prompt)] * 5 + [7] * 2
    texts = [generation.token_ids for generation in generations]
    assert len(set(texts)) == 7
    assert [generation.usage.cached_tokens for generation in generations] == [0] + [len(prompt) - 1] * 4 + [0, 6]
    # Repeatable, one by one too; the first is what one sample alone would be.
    assert [generation.token_ids for generation in llm.generate([prompt], params)] == texts[:5]
    assert llm.generate(prompt, replace(params, n=1))[0].token_ids == texts[0]
    assert [generation.token_ids for generation in llm.generate(prompt, replace(params, n=3))] == texts[:3]


def test_greedy_samples_are_all_the_same(llm: LLM) -> None:
    generations = llm.generate("the prompt", SamplingParams(temperature=0, max_tokens=30, n=4))
    assert len(generations) == 4
    assert len({generation.token_ids for generation in generations}) == 1


def test_samples_without_a_seed_differ(llm: LLM) -> None:
    generations = llm.generate("the prompt", SamplingParams(temperature=1.0, max_tokens=30, n=4))
    assert len({generation.token_ids for generation in generations}) == 4


def test_samples_cannot_be_streamed(llm: LLM) -> None:
    with pytest.raises(RequestError, match="n=2 cannot be streamed"):
        llm.stream("x", SamplingParams(n=2))


def test_a_leader_that_breaks_leaves_its_followers_to_themselves(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=10, n=3)
    (expected,) = llm.generate("the broken one", replace(params, n=1))
    llm.engine.cache.clear()

    class First(Sampler):
        """The first sample that comes by breaks at its first token."""

        def __init__(self) -> None:
            self.broken: set[int] = set()

        def sample(self, logits_BV: Tensor, rows: list[Row], *_: Any) -> Choice:
            logits_BV = logits_BV.clone()
            for row_V, (request, _) in zip(logits_BV, rows, strict=True):
                if not self.broken:
                    self.broken.add(request.id)
                if request.id in self.broken:
                    row_V[:] = float("nan")
            return super().sample(logits_BV, rows)

    llm.engine.sampler = First()
    broken, *others = llm.generate("the broken one", params)
    assert broken.finish_reason == "error"
    assert [other.token_ids for other in others] == [expected.token_ids] * 2


@pytest.mark.parametrize("cached", [True, False], ids=["with a cache", "without"])
def test_little_room_changes_nothing_that_is_written(llm: LLM, model_folders: dict[str, Path], cached: bool) -> None:
    # Room for little more than one request: they give way to each other, and go on as if nothing had happened.
    cramped = LLM(model_folders["qwen3"], kv_memory=450 * 512, prefix_cache=cached)
    params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=300, max_width=2, logit_bias=busy(llm), n=2)
    each = [replace(params, seed=i) for i in range(3)]
    prompts = [f"question {i}" for i in range(3)]
    assert cramped.engine.slots.size < 3 * 300
    expected, found = llm.generate(prompts, each), cramped.generate(prompts, each)
    for a, b in zip(expected, found, strict=True):
        assert (a.token_ids, a.branches, a.finish_reason, a.closed) == (b.token_ids, b.branches, b.finish_reason, b.closed)
    assert sum(generation.usage.preemptions for generation in found) > 0
    assert any(generation.usage.cached_tokens for generation in found) == cached
    cramped.engine.check_integrity()
    assert cramped.engine.slots.owned == 0
    assert (cramped.engine.slots.cached > 0) == cached
