"""Every cut and penalty against the distribution written out naively; streams of randomness."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse import LLM, SamplingParams
from multiverse.engine import Branch, Request
from multiverse.engine.limits import Choices, Limits
from multiverse.engine.sampler import Sampler
from multiverse.engine.scripted import Script
from multiverse.structure import MULTIVERSE_COMPACT, Block, Document, Role, encode, resolve
from tests.conftest import build_tokenizer
from tests.engine.steering import GREEDY, INNER, NESTED, LegalSampler, always_fork, bare_request, run_documents
from tests.structure.adapted import TOKENS
from tests.structure.test_machine import paths_of

GRID = 600
LOGITS = [2.0, -1.0, 0.5, 1.5, 0.5, -3.0, 1.9, 0.0]


class Fixed:
    """A stream of randomness that always gives the same number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def row(request: Request, uniform: float) -> tuple[Request, Branch]:
    branch: Any = SimpleNamespace(machine=None, label="", rng=Fixed(uniform), index=0, seen=request.trunk.seen)
    return request, branch


def measured(
    logits: list[float], params: SamplingParams, prompt: tuple[int, ...] = (0,), generated: tuple[int, ...] = ()
) -> dict[int, float]:
    """How much of the unit interval leads to each token."""
    request = bare_request(None, prompt, params)
    for token in generated:
        request.advance(request.trunk, token)
    rows = [row(request, (i + 0.5) / GRID) for i in range(GRID)]
    tokens = Sampler().sample(torch.tensor([logits] * GRID), rows).tokens
    return {token: tokens.count(token) / GRID for token in set(tokens)}


def naive(
    logits: list[float], params: SamplingParams, seen: Set[int] = frozenset(), counts: Mapping[int, int] = MappingProxyType({})
) -> dict[int, float]:
    """The distribution that the parameters describe, where some tokens were seen and some generated so often."""
    penalty = params.repetition_penalty
    scores = [
        (score / penalty if score > 0 else score * penalty) if token in seen else score for token, score in enumerate(logits)
    ]
    for token, count in counts.items():
        scores[token] -= params.frequency_penalty * count + params.presence_penalty
    weights = {token: math.exp(score / params.temperature) for token, score in enumerate(scores)}
    # Likeliest first; among equals, the lower id.
    order = sorted(weights, key=lambda token: (-weights[token], token))
    if params.top_k:
        order = order[: params.top_k]
    order = [token for token in order if weights[token] >= params.min_p * weights[order[0]] * (1 - 1e-12)]
    total = sum(weights[token] for token in order)
    kept: dict[int, float] = {}
    for token in order:
        if sum(kept.values()) < params.top_p * total * (1 - 1e-12):
            kept[token] = weights[token]
    return {token: weight / sum(kept.values()) for token, weight in kept.items()}


def assert_same(found: dict[int, float], expected: dict[int, float]) -> None:
    for token in found.keys() | expected.keys():
        assert abs(found.get(token, 0) - expected.get(token, 0)) <= 1.01 / GRID


@pytest.mark.parametrize(
    "settings_of",
    [
        {}, {"temperature": 0.5}, {"temperature": 3.0}, {"top_k": 1}, {"top_k": 3}, {"top_k": 50}, {"top_p": 0.01},
        {"top_p": 0.5}, {"top_p": 0.9}, {"min_p": 0.05}, {"min_p": 0.6}, {"min_p": 1.0},
        {"temperature": 1.7, "top_k": 5, "top_p": 0.8, "min_p": 0.1},
    ],
    ids=str,
)  # fmt: skip
def test_cuts_and_temperature(settings_of: dict[str, Any]) -> None:
    params = SamplingParams(**{"temperature": 1.0, "top_p": 1.0, **settings_of})
    assert_same(measured(LOGITS, params), naive(LOGITS, params))


@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 10), min_size=2, max_size=9),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.integers(0, 6),
    top_p=st.sampled_from([0.2, 0.63, 0.97, 1.0]),
    min_p=st.sampled_from([0.0, 0.07, 0.31]),
    penalty=st.sampled_from([1.0, 1.3, 0.7]),
)
@settings(max_examples=30)
def test_any_mixture(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, penalty: float) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    assert_same(measured(logits, params), naive(logits, params, {0}))


def test_repetition_penalty_on_what_was_seen() -> None:
    params = SamplingParams(temperature=1, top_p=1, repetition_penalty=2.0)
    found = measured(LOGITS, params, prompt=(0, 1, 6))
    assert_same(found, naive(LOGITS, params, {0, 1, 6}))
    greedy = bare_request(None, (0, 6), SamplingParams(temperature=0, repetition_penalty=2.0))
    assert Sampler().sample(torch.tensor([LOGITS]), [row(greedy, 0.5)]).tokens == [3]


@pytest.mark.parametrize(
    "penalties",
    [
        {"presence_penalty": 1.5},
        {"frequency_penalty": 0.75},
        {"presence_penalty": -0.5, "frequency_penalty": -0.25},
        {"presence_penalty": 0.7, "frequency_penalty": 0.4, "repetition_penalty": 1.8},
    ],
    ids=str,
)
def test_penalties_of_generated_tokens_leave_the_prompt_s_alone(penalties: dict[str, float]) -> None:
    params = SamplingParams(temperature=1, top_p=1, **penalties)
    found = measured(LOGITS, params, prompt=(0, 1), generated=(3, 6, 3, 3, 1))
    assert_same(found, naive(LOGITS, params, {0, 1, 3, 6}, {3: 3, 6: 1, 1: 1}))


def test_a_branch_counts_the_generated_tokens_that_its_next_one_may_attend_to() -> None:
    for branch, attended, prompt in walked("Q short", frequency_penalty=0.1):
        assert branch.seen is not None
        found = dict(zip(branch.seen.ids.tolist(), branch.seen.counts.tolist(), strict=True))
        assert {token: count for token, count in found.items() if count} == Counter(attended)
        assert set(found) == {*attended, *prompt}


Order = Callable[[list[Branch]], list[Branch]]


def chosen_for(request: Request, order: Order = list) -> Iterator[Branch]:
    """Read all that there is to read, and yield the branches whose next token is to be chosen then; again and again.

    Args:
        order: what it makes of the branches of one forward.
    """
    plenty = 1 << 20
    while request.queues.prefill:
        assert request.queues.take_prefill(plenty).token_ids
    while True:
        going = []
        while (run := request.queues.take_decode(plenty) or request.queues.take_pending(plenty)) is not None:
            if not request.queues.waits(run.branch) and run.branch.open:
                going.append(run.branch)
        if not going:
            return
        yield from order(going)


def walked(prompt: str, **penalties: float) -> Iterator[tuple[Branch, list[int], list[int]]]:
    """Write a nested document; before each chosen token: its branch, the generated tokens it may attend to, and the prompt."""
    tokens = TOKENS["multiverse"]
    request = bare_request(tokens, tokens.encode(prompt), replace(GREEDY, **penalties))
    script = Script(NESTED, tokens)
    encoded = encode(NESTED, tokens)
    layout = encoded.layout
    index_of = {path: index for index, path in paths_of(encoded).items()}
    chosen = 0
    for branch in chosen_for(request):
        if len(branch.token_ids) == len(script.by_path[branch.path]):
            continue
        own = [i for i, owner in enumerate(layout.branches) if owner == index_of[branch.path]]
        next_token = own[len(branch.token_ids)]
        yield branch, [encoded.token_ids[j] for j in range(next_token) if layout.visible(next_token, j)], request.prompt
        request.advance(branch, encoded.token_ids[next_token])
        chosen += 1
    assert chosen == layout.forced.count(False)


def test_a_branch_has_seen_what_its_next_token_may_attend_to() -> None:
    for branch, attended, prompt in walked("Q", repetition_penalty=1.1):
        assert branch.seen is not None
        assert set(branch.seen.ids.tolist()) == {*prompt, *attended}


@pytest.mark.parametrize("trunk", [1.0, 1.5])
def test_paths_have_a_repetition_penalty_of_their_own_until_they_join(trunk: float) -> None:
    penalties = {"repetition_penalty": trunk, "path_repetition_penalty": 2.0}
    of_paths, of_trunk = set(), list[float]()
    for branch, attended, prompt in walked("Q", **penalties):
        request = bare_request(TOKENS["multiverse"], prompt, replace(GREEDY, guard=False, **penalties))
        # Bare rows: their penalties are what counts here, not the tags that may come next.
        logits_BV = torch.full((1, 300), 3.0)
        Sampler().edit(logits_BV, [(request, branch)])
        seen = sorted({*attended, *prompt})
        (penalty,) = {3.0 / value for value in logits_BV[0, seen].tolist() if value > -math.inf}
        assert set(logits_BV[0].tolist()) <= {3.0, 3.0 / penalty, -math.inf}
        if branch.label:
            of_paths.add(penalty)
        else:
            of_trunk.append(penalty)
    assert of_paths == {2.0}
    assert set(of_trunk) == {trunk}, "before the fork and after the join"


def test_a_penalty_of_paths_alone_leaves_the_logits_of_the_trunk() -> None:
    params = SamplingParams(temperature=1, path_repetition_penalty=2.0)
    assert params.penalises
    assert not params.penalises_in(path=False)
    off = SamplingParams(repetition_penalty=2.0, path_repetition_penalty=1.0)
    assert off.penalises_in(path=False)
    assert not off.penalises_in(path=True)
    assert not SamplingParams().penalises


def test_rows_do_not_touch_each_other() -> None:
    kinds = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=1, top_k=2),
        SamplingParams(temperature=0.7, repetition_penalty=3.0),
        SamplingParams(temperature=2, min_p=0.2, logprobs=True),
        SamplingParams(temperature=0, logprobs=True),
        SamplingParams(temperature=1, logit_bias={4: 3.0, 7: -100.0}, top_logprobs=3),
        SamplingParams(temperature=0, logit_bias={9: 100.0}),
    ]
    torch.manual_seed(3)
    logits_BV = torch.randn(len(kinds), 50) * 2
    rows = [row(bare_request(None, (1, 2, 3), params), 0.1 + 0.12 * i) for i, params in enumerate(kinds)]
    together = Sampler().sample(logits_BV.clone(), rows)
    edited_BV = logits_BV.clone()
    Sampler().edit(edited_BV, rows)
    for i, own in enumerate(rows):
        alone = Sampler().sample(logits_BV[i : i + 1].clone(), [own])
        assert alone.tokens == together.tokens[i : i + 1]
        assert (
            (alone.drawn[0].logprob is None)
            == (together.drawn[i].logprob is None)
            == (not (kinds[i].logprobs or kinds[i].top_logprobs))
        )
        assert alone.drawn[0].top == together.drawn[i].top
        assert (alone.drawn[0].top is None) == (not kinds[i].top_logprobs)
        alone_BV = logits_BV[i : i + 1].clone()
        Sampler().edit(alone_BV, [own])
        assert torch.equal(alone_BV[0], edited_BV[i])
    # What has nothing to edit is left as it was; the others are not.
    changed = [not torch.equal(a, b) for a, b in zip(logits_BV, edited_BV, strict=True)]
    assert changed == [bool(p.logit_bias) or p.repetition_penalty != 1 for p in kinds]


def test_log_probabilities_are_the_model_s_own() -> None:
    logits_BV = torch.tensor([LOGITS, LOGITS])
    cut = SamplingParams(temperature=0.2, top_k=1, repetition_penalty=5.0, logit_bias={3: 9.0}, logprobs=True)
    rows = [row(bare_request(None, (0,), cut), 0.5), row(bare_request(None, (0,), SamplingParams()), 0.5)]
    choice = Sampler().sample(logits_BV, rows)
    own = torch.tensor(LOGITS).log_softmax(-1)
    assert choice.tokens[0] == 3
    assert choice.drawn[0].logprob == pytest.approx(float(own[3]))
    assert choice.drawn[1].logprob is None


@pytest.mark.parametrize("guard", [True, False], ids=["guarded", "raw"])
def test_what_is_banned_is_not_chosen(guard: bool) -> None:
    tokens = TOKENS["multiverse"]
    params = SamplingParams(temperature=1, max_depth=0, logprobs=True, guard=guard)
    request = bare_request(tokens, tokens.encode("Q<Think>\n"), params)
    choice = request.limits.choices(request.trunk)
    assert choice.only is None
    # The bound holds back its own tag; the guard, all that the grammar does not allow.
    legal = {tokens.ids[Role.THINK_CLOSE]} if guard else set(tokens.roles) - {tokens.fork_tag}
    assert set(choice.banned) == set(tokens.roles) - legal
    logits_BV = torch.zeros(1, 300)
    logits_BV[0, tokens.fork_tag] = 50.0
    logits_BV[0, 5] = 20.0
    found = Sampler().sample(logits_BV.clone(), [(request, request.trunk)])
    assert found.tokens == [5]
    assert found.drawn[0].logprob == pytest.approx(-30.0, abs=1e-3)
    allowed = bare_request(tokens, tokens.encode("Q<Think>\n"), SamplingParams(temperature=0, max_depth=1, guard=guard))
    assert Sampler().sample(logits_BV.clone(), [(allowed, allowed.trunk)]).tokens == [tokens.fork_tag]


def busy(llm: LLM) -> dict[int, float]:
    """A bias with which a random model forks, nests and closes a lot, though the guard lets tags only stand apart."""
    tokens = llm.engine.tokens
    assert tokens is not None
    # Where outlines have no closing tag, the one that forks ends the last of them.
    last = Role.OUTLINE_CLOSE if Role.OUTLINE_CLOSE in tokens.ids else Role.GOAL_CLOSE
    closing = {tokens.ids[last]: 6.0, tokens.ids[Role.PATH_CLOSE]: 3.0}
    return {**dict.fromkeys(tokens.sep, 5.0), tokens.fork_tag: 8.0, tokens.outline_tag: 4.0, **closing}


def sampled(llm: LLM, *seeds: int | None) -> list[tuple[int, ...]]:
    params = [SamplingParams(temperature=1, top_p=1, seed=seed, max_tokens=40) for seed in seeds]
    return [generation.token_ids for generation in llm.generate(["Q"] * len(seeds), params)]


def test_a_seed_makes_a_request_repeatable(llm: LLM) -> None:
    llm.engine.sampler = LegalSampler()
    first = sampled(llm, 1, 2, 1, None, None)
    assert first[0] == first[2]
    assert len({first[0], first[1], first[3], first[4]}) == 4
    again = sampled(llm, 2, 1)
    assert again == [first[1], first[0]]


def test_randomness_does_not_depend_on_who_shares_the_batch(llm: LLM) -> None:
    params = [
        SamplingParams(temperature=1, top_p=1, seed=seed, max_tokens=300, max_width=2, logit_bias=busy(llm), logprobs=True)
        for seed in range(3)
    ]
    alone = [llm.generate("the question<Think>", own)[0] for own in params]
    assert any(len(set(generation.branches)) > 2 for generation in alone)
    crowd = [f"neighbour {i}" for i in range(9)]
    others = [SamplingParams(temperature=1, seed=5 + i, max_tokens=40) for i in range(9)]
    together = llm.generate([*crowd[:4], *["the question<Think>"] * 3, *crowd[4:]], [*others[:4], *params, *others[4:]])[4:7]
    for a, b in zip(alone, together, strict=True):
        assert (a.text, a.token_ids, a.branches, a.finish_reason) == (b.text, b.token_ids, b.branches, b.finish_reason)
        for value, other in zip(a.logprobs or (), b.logprobs or (), strict=True):
            assert value == other or value == pytest.approx(other, abs=1e-4)


class FreePaths(Sampler):
    """Opens one block of three and lets the model write a few tokens of plain text in every path."""

    def __init__(self, llm: LLM) -> None:
        tokens = llm.engine.tokens
        assert tokens is not None
        self.tokens = tokens
        self.policy = always_fork(tokens, 3, int(llm.tokenizer.eos_token_id))

    def sample(self, logits_BV: torch.Tensor, rows: list[tuple[Request, Branch]], *_: Any) -> Any:
        logits_BV = logits_BV.clone()
        logits_BV[:, [*self.tokens.roles, *self.tokens.sep]] = -1e9
        choice = super().sample(logits_BV, rows)
        for i, (request, branch) in enumerate(rows):
            if not branch.label or len(branch.token_ids) >= 20:
                choice.tokens[i] = self.policy(request, branch)
                if branch.label:
                    choice.tokens[i] = self.tokens.ids[Role.PATH_CLOSE]
        return choice


def test_every_path_draws_from_its_own_stream_whoever_is_near(llm: LLM) -> None:
    params = SamplingParams(temperature=50, top_p=1, seed=9, max_depth=1, max_tokens=400)  # hot: all tokens alike
    llm.engine.sampler = FreePaths(llm)
    (alone,) = llm.generate("the question", params)
    crowd = llm.generate(["x", "the question", "yy"], [SamplingParams(seed=i, max_depth=1, max_tokens=300) for i in (1, 2, 3)])
    assert crowd[1].token_ids != alone.token_ids
    together = llm.generate(["x", "the question", "yy"], params)[1]
    assert together.token_ids == alone.token_ids
    paths = [
        tuple(t for t, b, f in zip(alone.token_ids, alone.branches, alone.forced, strict=True) if b == label and not f)
        for label in ("1", "2", "3")
    ]
    assert len({len(path) for path in paths}) == 1
    # Siblings start at the same position in nearly the same context, and still write different things.
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert sum(x == y for x, y in zip(paths[a], paths[b], strict=True)) < len(paths[a]) / 2


def test_a_stream_belongs_to_a_place_in_the_tree_not_to_the_order_of_forks() -> None:
    tokens = TOKENS["multiverse"]
    script = Script(Document((Block(("a", "b"), (("so", INNER), ("or", INNER)), "c"),)), tokens)

    def family(order: Order) -> list[Branch]:
        request = bare_request(tokens, [1], SamplingParams(seed=3))
        for branch in chosen_for(request, order):
            if len(branch.token_ids) < len(script.by_path[branch.path]):
                request.advance(branch, script.next(branch))
        return request.tree.branches

    first, last = family(list), family(lambda branches: branches[::-1])
    assert [branch.path for branch in first] != [branch.path for branch in last]
    draws = {branch.path: branch.rng.random() for branch in first}
    assert draws == {branch.path: branch.rng.random() for branch in last}


def test_a_scripted_run_reports_forced_tokens_without_log_probability(llm: LLM) -> None:
    (generation,) = run_documents(llm, [NESTED])
    assert generation.logprobs is not None
    assert [value is None for value in generation.logprobs] == list(generation.forced)
    assert all(value <= 0 for value in generation.logprobs if value is not None)


def test_long_lists_of_allowed_tokens_are_kept_only_as_long_as_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [tuple(range(start, start + 100)) for start in range(30)]

    def references() -> list[int]:
        return [sys.getrefcount(allowed) for allowed in lists]

    before, now = references(), iter(lists)
    monkeypatch.setattr(Limits, "choices", lambda *_: Choices(next(now), ()))
    sampler = Sampler()
    for start in range(30):
        rows = [row(bare_request(None, params=SamplingParams(temperature=0)), 0.5)]
        assert sampler.sample(torch.arange(200.0)[None], rows).tokens == [start + 99]
    kept = [number - own for number, own in zip(references(), before, strict=True)]
    assert kept == [0] * 22 + [1] * 8  # the last ones
    del sampler
    assert references() == before


def test_limits_hold_where_a_path_may_begin_with_a_fork() -> None:
    # Nothing stands between a label and a tag: what may follow the label is a long list that holds the tag of a fork.
    tokens = resolve(build_tokenizer(MULTIVERSE_COMPACT), MULTIVERSE_COMPACT)
    tokens.__dict__["spaced"] = tuple(token for token in range(60) if token not in tokens.roles)
    logits_BV = torch.zeros(1, 400)
    logits_BV[0, tokens.fork_tag] = 50.0
    chosen = []
    for depth in (1, 2):
        request = bare_request(tokens, tokens.encode("Q"), SamplingParams(temperature=0, max_depth=depth))
        for token in (tokens.fork_tag, *tokens.encode(" x"), tokens.ids[Role.GOAL_CLOSE]):
            request.advance(request.trunk, token)
        (path,) = request.tree.open_branches
        assert path.label == "1"
        chosen.append(Sampler().sample(logits_BV.clone(), [(request, path)]).tokens[0] == tokens.fork_tag)
    assert chosen == [False, True]
