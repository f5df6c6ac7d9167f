"""``deterministic=True``: the same tokens and log-probabilities, bit for bit, whatever happens beside a request."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from multiverse import LLM, Generation, SamplingParams
from multiverse.backends.base import ForwardContext
from multiverse.backends.cpu.backend import CpuBackend
from multiverse.engine.sampler import Sampler, _draw, score
from multiverse.engine.scripted import ScriptedSampler
from multiverse.errors import ModelError
from multiverse.tasks import problems
from tests.conftest import SHAPE, save_model
from tests.engine.steering import NESTED, prompt_ids, run_documents
from tests.engine.test_oracle import FAMILIES, PARAMS, Trouble, agree, draw_work, places, run_scripted
from tests.engine.test_sampler import busy

DTYPES = ("float32", "bfloat16")


@pytest.fixture(scope="module")
def llms(model_folders: dict[str, Path]) -> dict[tuple[str, str], LLM]:
    """A tiny model of each family in each type."""
    return {
        (family, dtype): LLM(model_folders[family], dtype=dtype, kv_memory=2 << 20, deterministic=True)
        for family in FAMILIES
        for dtype in DTYPES
    }


def bits(generation: Generation) -> tuple[Any, ...]:
    """What has to be the same."""
    assert generation.logprobs is not None
    return generation.token_ids, generation.positions, generation.logprobs, generation.finish_reason


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_nested_forks_in_any_company_at_length(
    llms: dict[tuple[str, str], LLM], family: str, dtype: str, data: st.DataObject
) -> None:
    any_company(llms[family, dtype], data)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=1)
@given(data=st.data())
def test_nested_forks_in_any_company(llms: dict[tuple[str, str], LLM], family: str, dtype: str, data: st.DataObject) -> None:
    any_company(llms[family, dtype], data)


@pytest.mark.parametrize("window", [None, 24])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=1)
@given(data=st.data())
def test_the_layout_released_in_any_company(
    beside: Callable[[str, int | None], tuple[LLM, Any]], dtype: str, window: int | None, data: st.DataObject
) -> None:
    any_company(beside(dtype, window)[0], data)


@pytest.fixture(scope="module")
def beside(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Callable[[str, int | None], tuple[LLM, Any]]:
    """A tiny model in the layout ``released``, and the same untouched; all layers have this window."""

    @cache
    def made(dtype: str, window: int | None) -> tuple[LLM, Any]:
        torch.manual_seed(5)
        config = MistralConfig(vocab_size=len(tokenizer), sliding_window=window, **SHAPE)
        folder = save_model(tmp_path_factory.mktemp("beside"), MistralForCausalLM(config), tokenizer)
        llm = LLM(folder, layout="released", dtype=dtype, kv_memory=2 << 20, deterministic=True)
        return llm, AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    return made


@settings(max_examples=1)
@given(data=st.data())
def test_the_layout_released_agrees_with_one_dense_forward(
    beside: Callable[[str, int | None], tuple[LLM, Any]], data: st.DataObject
) -> None:
    llm, model = beside("float32", None)
    llm.engine.sampler = ScriptedSampler()
    agree((llm, model), data)


def any_company(llm: LLM, data: st.DataObject) -> None:
    """Batches, gaps, chunks, waves, preemption with and without eviction, a warm cache, and the reverse order of requests."""
    llm.engine.sampler = ScriptedSampler()
    docs, prompts, gaps, rng = draw_work(data, 4, places(llm))
    alone = []
    for document, prompt in zip(docs, prompts, strict=True):
        llm.engine.cache.clear()
        alone += [bits(generation) for generation in run_scripted(llm, [document], [prompt], [0])]
    scheduler, backwards = llm.engine.scheduler, slice(None, None, -1)
    scheduler.max_batch_branches = rng.choice([1, 3, 256])
    try:
        disturb = Trouble(rng, evict=rng.random() < 0.5)
        troubled = run_scripted(llm, docs, prompts, gaps, rng.choice([13, 40, 2048]), disturb=disturb)
        reverse = run_scripted(llm, docs[backwards], prompts[backwards], gaps, rng.choice([13, 40, 2048]))[backwards]
    finally:
        scheduler.max_batch_branches = 256
    assert [bits(generation) for generation in troubled] == alone
    assert [bits(generation) for generation in reverse] == alone


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=1)
@given(data=st.data())
def test_it_agrees_with_one_dense_forward(
    llms: dict[tuple[str, str], LLM], model_folders: dict[str, Path], family: str, data: st.DataObject
) -> None:
    llm = llms[family, "float32"]
    llm.engine.sampler = ScriptedSampler()
    agree((llm, AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()), data)


def test_shared_stretches_of_paths_too(llms: dict[tuple[str, str], LLM]) -> None:
    llm = llms["qwen2", "bfloat16"]
    params = replace(PARAMS, share_every=3)
    llm.engine.cache.clear()
    (alone,) = run_documents(llm, [NESTED], params=params)
    llm.engine.scheduler.max_batch_branches, llm.engine.scheduler.max_batch_tokens = 1, 17
    try:
        both = run_documents(llm, [NESTED, NESTED], params=params)
    finally:
        llm.engine.scheduler.max_batch_branches, llm.engine.scheduler.max_batch_tokens = 256, 2048
    assert [bits(generation) for generation in both] == [bits(alone)] * 2


def run_free(llm: LLM, seeds: Sequence[int], **changed: int) -> list[tuple[Any, ...]]:
    """Random texts that fork as they like and meet their limits, in one batch."""
    engine = llm.engine
    engine.sampler = Sampler()
    params = SamplingParams(temperature=1, top_p=1, logprobs=True, max_width=3, logit_bias=busy(llm))
    usual = {name: getattr(engine.scheduler, name) for name in changed}
    for name, value in changed.items():
        setattr(engine.scheduler, name, value)
    try:
        each = [replace(params, seed=seed, max_tokens=240 + 30 * seed) for seed in seeds]
        requests = [engine.submit(prompt_ids(llm, f"{own.seed} is it<Think>"), own) for own in each]
        engine.run(requests)
    finally:
        for name, value in usual.items():
            setattr(engine.scheduler, name, value)
    assert not engine.rounds or not engine.rounds._held
    return [
        (
            request.finish_reason,
            sorted((branch.path, branch.token_ids, [one.logprob for one in branch.drawn]) for branch in request.tree.branches),
        )
        for request in requests
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_cut_waves_as_they_cut_a_request_alone(llms: dict[tuple[str, str], LLM], dtype: str) -> None:
    """With room for one branch at a time, paths do not come as far before the limit is near, unless a round waits for all."""
    llm, seeds = llms["qwen3", dtype], range(3)
    alone = []
    for seed in seeds:
        llm.engine.cache.clear()
        alone += run_free(llm, [seed])
    assert any(reason == "length" and len(branches) > 3 for reason, branches in alone)
    assert run_free(llm, seeds, max_batch_branches=2) == alone
    assert run_free(llm, seeds, max_batch_tokens=7) == alone
    rounds, llm.engine.rounds = llm.engine.rounds, None
    try:
        assert run_free(llm, seeds, max_batch_branches=2) != alone
    finally:
        llm.engine.rounds = rounds


QUESTIONS = [problem.question for name in ("worksheet", "cases") for problem in islice(problems(name, seed=3), 100)]


def ask(llm: LLM, order: Sequence[int], size: int, params: SamplingParams) -> dict[int, tuple[Any, ...]]:
    """Questions in this order, so many in a batch."""
    found: dict[int, tuple[Any, ...]] = {}
    for start in range(0, len(order), size):
        own = order[start : start + size]
        answers = llm.chat([[{"role": "user", "content": QUESTIONS[number]}] for number in own], params)
        found |= {number: bits(answer) for number, answer in zip(own, answers, strict=True)}
    return found


def compositions(llm: LLM, count: int, params: SamplingParams) -> None:
    """Ask so many questions in ten batch compositions, and compare all answers."""
    rng, scheduler, every = random.Random(0), llm.engine.scheduler, list(range(count))
    shuffled = [rng.sample(every, count) for _ in range(4)]
    plans: list[tuple[list[int], int, dict[str, int], bool]] = [
        (every, count, {}, False),
        (every, count, {}, True),  # in the cache of the one before
        (every[::-1], 7, {}, False),
        (shuffled[0], 32, {}, True),
        (shuffled[1], 3, {}, False),
        (shuffled[2], count, {"max_batch_tokens": 61}, False),
        (every, count, {"max_batch_branches": 5}, False),
        (shuffled[3], 16, {"max_batch_tokens": 23, "max_batch_branches": 3}, True),
        (every, count, {"max_requests": 5}, False),
        (every[: count // 4], 1, {}, False),
    ]
    expected: dict[int, tuple[Any, ...]] = {}
    usual = {name: getattr(scheduler, name) for name in ("max_batch_tokens", "max_batch_branches", "max_requests")}
    for order, size, changed, warm in plans:
        if not warm:
            llm.engine.cache.clear()
        for name, value in {**usual, **changed}.items():
            setattr(scheduler, name, value)
        found = ask(llm, order, size, params)
        expected = expected or found
        differing = [number for number, own in found.items() if own != expected[number]]
        assert not differing, (size, changed, warm)


@pytest.mark.parametrize("dtype", DTYPES)
def test_requests_in_ten_batch_compositions(dtype: str) -> None:
    llm = LLM(dtype=dtype, kv_memory=64 << 20, deterministic=True)
    compositions(llm, 6, SamplingParams(temperature=0, max_tokens=40, logprobs=True))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0, 1])
def test_two_hundred_requests_in_ten_batch_compositions(dtype: str, temperature: float) -> None:
    llm = LLM(dtype=dtype, kv_memory=256 << 20, deterministic=True)
    compositions(llm, 200, SamplingParams(temperature=temperature, seed=5, max_tokens=400, logprobs=True))


def test_scores_do_not_depend_on_the_batch(llms: dict[tuple[str, str], LLM]) -> None:
    llm = llms["llama", "bfloat16"]
    texts = ["one text", "another, which is a good deal longer than the first one", "x" * 300]
    together = llm.score(texts)
    assert [llm.score(text)[0] for text in texts] == together


def test_a_rows_numbers_in_the_sampler_do_not_depend_on_the_others() -> None:
    logits_BV = torch.randn(9, 50_003, generator=torch.Generator().manual_seed(0)) * 4
    params, uniforms = [SamplingParams(temperature=0.8, top_p=0.9, min_p=0.01)] * 9, [i / 9 for i in range(9)]
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            scores, drawn = score(logits_BV, [*range(9)]), _draw(logits_BV.clone(), params, uniforms).tolist()
            for row in range(9):
                assert score(logits_BV[row : row + 1], [row]) == scores[row : row + 1]
                assert _draw(logits_BV[row : row + 1].clone(), params[:1], uniforms[row : row + 1]).tolist() == [drawn[row]]
    finally:
        torch.set_num_threads(before)


def test_without_it_nothing_is_done_for_it(model_folders: dict[str, Path]) -> None:
    engine = LLM(model_folders["qwen2"], kv_memory=1 << 20).engine
    assert engine.rounds is None
    assert not engine.backend.deterministic
    ranks: list[Any] = []
    run = engine.backend.run
    engine.backend.run = lambda batch: [ranks.append(family.ranks) for family in batch.families] and run(batch)  # type: ignore[method-assign, func-returns-value]
    engine.run([engine.submit([1, 2, 3], SamplingParams(max_tokens=2))])
    assert ranks
    assert all(own is None for own in ranks)


def test_what_it_does_not_go_with_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"deterministic=True does not go with tensor_parallel=2: .* leave deterministic off"):
        LLM(deterministic=True, tensor_parallel=2)


Spoil = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda query_NHD: query_NHD * (1 + 2**-20 * (len(query_NHD) == 1)),
        lambda query_NHD: query_NHD * (1 + 2**-20 * (torch.arange(len(query_NHD)) == 31)[:, None, None]),
    ],
    ids=["number of rows", "place"],
)
def test_a_backend_that_depends_on_the_batch_is_found_out(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, spoil: Spoil
) -> None:
    plain = CpuBackend.attend

    def attend(self: Any, query_NHD: Tensor, layer: int, context: ForwardContext, *rest: Any) -> Tensor:
        return plain(self, spoil(query_NHD), layer, context, *rest)

    monkeypatch.setattr(CpuBackend, "attend", attend)
    assert LLM(model_folders["llama"], kv_memory=1 << 20)
    with pytest.raises(ModelError, match=r"deterministic=True does not hold for .*model type 'llama'.* on this machine"):
        LLM(model_folders["llama"], kv_memory=1 << 20, deterministic=True)


def test_branches_are_ranked_in_document_order(llms: dict[tuple[str, str], LLM]) -> None:
    """The inner paths of the first path come before the second one, although they were opened later."""
    llm = llms["qwen2", "float32"]
    llm.engine.sampler = ScriptedSampler()
    engine = llm.engine
    request = copy(engine).submit(prompt_ids(llm, "Q"), PARAMS)
    engine.abort(request)
    tree = request.tree
    for parent, labels in ((0, ("1", "2")), (2, ("2.1", "2.2")), (1, ("1.1",))):
        machine = tree.branches[parent].machine
        assert machine is not None
        machine.labels = machine.numbers = labels
        tree.fork(tree.branches[parent], labels)
    assert [branch.label for branch in tree.branches] == ["", "1", "2", "2.1", "2.2", "1.1"]
    assert np.argsort(tree.ranks).tolist() == [0, 1, 5, 2, 3, 4]
