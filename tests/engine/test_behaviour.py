"""Log-probabilities and supports of the distributions that tokens are drawn from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import Support
from multiverse.engine.behaviour import Supports
from multiverse.engine.limits import Choices
from multiverse.engine.sampler import Choice, Row, Sampler
from multiverse.errors import RequestError
from tests.engine.steering import bare_request, prompt_ids
from tests.engine.test_sampler import LOGITS, busy, naive, row

PROCESSED = SamplingParams(
    temperature=1,
    top_p=1,
    seed=3,
    logprobs=True,
    logprobs_mode="processed_logprobs",
    supports=True,
    max_tokens=160,
    max_width=3,
)


def drawable(support: Support | None, vocabulary: int) -> set[int]:
    """The tokens that could be drawn."""
    if support is None:
        return set(range(vocabulary))
    return set(support.token_ids) if support.allowed else set(range(vocabulary)) - set(support.token_ids)


@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 10), min_size=2, max_size=9),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.integers(0, 6),
    top_p=st.sampled_from([0.2, 0.63, 0.97, 1.0]),
    min_p=st.sampled_from([0.0, 0.07, 0.31]),
    penalty=st.sampled_from([1.0, 1.3]),
    uniform=st.floats(0, 0.999),
)
@settings(max_examples=40)
def test_a_token_has_the_probability_with_which_it_is_drawn(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, penalty: float, uniform: float
) -> None:
    cuts: dict[str, Any] = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "repetition_penalty": penalty}
    params = replace(PROCESSED, temperature=temperature, top_logprobs=20, **cuts)
    rows = [row(bare_request(None, (0,), params), uniform), row(bare_request(None, (0,), SamplingParams()), uniform)]
    choice = Sampler().sample(torch.tensor([logits, logits]), rows)
    expected = naive(logits, params, {0})
    found, token = choice.drawn[0], choice.tokens[0]
    assert token is not None
    assert found.logprob == pytest.approx(math.log(expected[token]), abs=1e-5)
    assert drawable(found.support, len(logits)) == expected.keys()
    assert found.top is not None
    assert {one: math.exp(value) for one, value in found.top} == pytest.approx(expected, abs=1e-5)
    assert choice.drawn[1] == (None, None, None)


def test_at_temperature_0_it_is_the_distribution_at_1_without_cuts() -> None:
    params = replace(PROCESSED, temperature=0, top_k=2, top_p=0.5, logit_bias={3: 9.0})
    choice = Sampler().sample(torch.tensor([LOGITS]), [row(bare_request(None, (1,), params), 0.5)])
    biased = torch.tensor(LOGITS)
    biased[3] += 9
    assert choice.tokens == [3]
    assert choice.drawn[0].logprob == pytest.approx(float(biased.log_softmax(-1)[3]), abs=1e-6)
    assert choice.drawn[0].support is None


class Watched(Sampler):
    """Keeps the logits that the model gave, by request, path and number of token."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, tuple[int, ...], int], Tensor] = {}

    def sample(self, logits_BV: Tensor, rows: list[Row], *_: Any) -> Choice:
        for row_V, (request, branch) in zip(logits_BV, rows, strict=True):
            self.seen[request.id, branch.path, len(branch.token_ids)] = row_V.clone()
        return super().sample(logits_BV, rows)


@pytest.mark.parametrize(
    ("temperature", "top_p", "guard"), [(1.0, 1.0, True), (0.7, 0.9, True), (0.7, 1.0, False)], ids=["plain", "cut", "raw"]
)
def test_the_support_gives_back_what_grammar_limits_and_cuts_did(
    llm: LLM, temperature: float, top_p: float, guard: bool
) -> None:
    llm.engine.sampler = sampler = Watched()
    vocabulary = llm.vocabulary
    # A bias is no part of a support; here it only makes the model fork.
    params = replace(PROCESSED, temperature=temperature, top_p=top_p, guard=guard, logit_bias=busy(llm))
    each = [replace(params, seed=i, max_tokens=90 + 40 * i, max_depth=i % 3) for i in range(6)]
    requests = [llm.engine.submit(prompt_ids(llm, f"{i} is it<Think>"), own) for i, own in enumerate(each)]
    llm.engine.run(requests)
    compared, restricted = 0, set()
    for request in requests:
        for branch in request.tree.branches:
            for number, (token, forced, drawn) in enumerate(zip(branch.token_ids, branch.forced, branch.drawn, strict=True)):
                if forced:
                    assert drawn == (None, None, None)
                    continue
                logits_V = sampler.seen[request.id, branch.path, number].double()
                for other, bias in params.logit_bias.items():
                    logits_V[other] += bias
                allowed = drawable(drawn.support, vocabulary)
                kept = torch.zeros(vocabulary, dtype=torch.bool)
                kept[sorted(allowed)] = True
                value_V = (logits_V / temperature).masked_fill(~kept, -torch.inf).log_softmax(-1)
                assert token in allowed
                assert drawn.logprob == pytest.approx(float(value_V[token]), abs=1e-5)
                if top_p == 1:  # only what is not allowed is left out
                    assert drawn.support is None or not drawn.support.allowed or len(drawn.support.token_ids) < vocabulary / 2
                restricted.add(len(allowed))
                compared += 1
    if guard:
        assert compared > 150
        assert len(restricted) > 4
        assert any(request.closed for request in requests)
        assert any(len(request.tree.branches) > 2 for request in requests)
    else:  # a random model soon breaks the grammar
        assert compared > 10
        assert {request.finish_reason for request in requests} == {"malformed"}


def facts(generation: Generation) -> tuple[Any, ...]:
    return generation.token_ids, generation.supports, generation.finish_reason


def test_preemption_the_cache_and_company_change_nothing(llm: LLM) -> None:
    params = replace(PROCESSED, logit_bias=busy(llm), n=2)
    prompts = ["first<Think>", "second, longer<Think>"]
    alone = [one for prompt in prompts for one in llm.generate(prompt, params)]
    engine = llm.engine
    requests = [
        engine.submit(prompt_ids(llm, prompt), params, sample=sample) for prompt in prompts for sample in range(params.n)
    ]
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
        if steps % 7 == 0 and engine.scheduler.running:
            engine.scheduler.preempt(engine.scheduler.running[steps % len(engine.scheduler.running)])
            if steps % 2:
                engine.cache.clear()
    disturbed = [engine.generation(request) for request in requests]
    assert any(one.usage.preemptions for one in disturbed)
    for one, other in zip(alone, disturbed, strict=True):
        assert facts(one) == facts(other)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.supports is not None
        assert [value is None for value in one.logprobs or ()] == list(one.forced)
        assert len(one.supports) == len(one.token_ids)


def test_the_end_of_text_is_drawn_too(llm: LLM) -> None:
    end = int(llm.tokenizer.eos_token_id)
    (generation,) = llm.generate("Q", replace(PROCESSED, logit_bias={end: 100.0}, max_depth=0))
    assert generation.token_ids[-1] == end
    assert generation.logprobs is not None
    assert generation.logprobs[-1] == pytest.approx(0, abs=1e-6)
    assert generation.supports is not None
    assert end in drawable(generation.supports[-1], llm.vocabulary)


def test_equal_supports_are_one_object(llm: LLM) -> None:
    (generation,) = llm.generate("Q<Think>", replace(PROCESSED, logit_bias=busy(llm)))
    supports = [one for one in generation.supports or () if one is not None]
    assert len(supports) > 20
    assert len({id(one) for one in supports}) == len(set(supports)) < len(supports) / 3


def test_a_support_is_the_shorter_of_two_lists() -> None:
    supports = Supports()
    assert supports.of(Choices((7, 3), ()), (), 100) == Support((3, 7), allowed=True)
    assert supports.of(Choices((7, 3), (7,)), (), 100) == Support((3,), allowed=True)
    assert supports.of(Choices(None, (9, 2)), (99,), 100) == Support((2, 9, 99), allowed=False)
    assert supports.of(Choices(None, ()), (), 100) is None
    assert supports.of(Choices(tuple(range(4)), ()), (), 5) == Support((4,), allowed=False)
    mask = torch.arange(10).remainder(5).ne(0).numpy()
    assert supports.of(Choices(None, (1,), mask), (), 10) == Support((0, 1, 5), allowed=False)
    kept = torch.arange(10) < 2
    assert supports.of(Choices(None, (1,)), (), 10, kept) == Support((0, 1), allowed=True)
    assert supports.of(Choices(None, (1,)), (), 10, ~torch.zeros(10, dtype=torch.bool)) is None


def test_nothing_is_recorded_unless_asked(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("multiverse.engine.sampler.behaviour", never)
    monkeypatch.setattr(Supports, "of", never)
    params = SamplingParams(temperature=0.7, top_p=0.9, seed=1, max_tokens=20, logprobs=True, top_logprobs=2)
    (generation,) = llm.generate("Q", params)
    assert generation.supports is None
    assert generation.logprobs is not None


def test_the_mode_needs_log_probabilities() -> None:
    with pytest.raises(RequestError, match="logprobs_mode='processed_logprobs' has no effect without logprobs or top_logprobs"):
        SamplingParams(logprobs_mode="processed_logprobs")
    with pytest.raises(RequestError, match="logprobs_mode='raw' is not valid: it must be 'raw_logprobs', 'processed_logprobs'"):
        SamplingParams(logprobs=True, logprobs_mode="raw")  # type: ignore[arg-type]


def test_deterministic_generation_records_the_same(model_folders: dict[str, Path]) -> None:
    llm = LLM(model_folders["qwen3"], kv_memory=8 << 20, deterministic=True)
    params = replace(PROCESSED, logit_bias=busy(llm), temperature=0.7, top_p=0.9)
    prompts = [f"{i} is it<Think>" for i in range(3)]
    together = llm.generate(prompts, [replace(params, seed=i) for i in range(3)])
    llm.engine.scheduler.max_batch_branches = 1
    for number, one in enumerate(together):
        (alone,) = llm.generate(prompts[number], replace(params, seed=number))
        assert facts(alone) == facts(one)
        assert alone.logprobs == one.logprobs
