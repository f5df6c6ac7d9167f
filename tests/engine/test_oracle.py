"""The oracle: one dense forward of the untouched transformers model must give the engine's own log-probabilities."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from multiverse import LLM, Generation, SamplingParams
from multiverse.attention import dense_inputs
from multiverse.engine import Request
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import (
    MULTIVERSE,
    MULTIVERSE_COMPACT,
    Block,
    Blocks,
    Document,
    Positions,
    TokenDialect,
    encode,
    layout,
    place,
)
from tests.conftest import FAMILIES as MODELS
from tests.conftest import build_tokenizer, save_model
from tests.strategies import documents

TOLERANCE = 1e-4
POOL = 4200
"""Slots: enough for the longest request alone. After every step each of them is accounted for."""


def dense_logprobs(
    model: Any,
    prompt: tuple[int, ...],
    generated: tuple[int, ...],
    tokens: TokenDialect,
    share_every: int | None = None,
) -> tuple[np.ndarray, Any]:
    """Log-probability of each generated token by one dense forward, and the layout of the whole sequence."""
    ids = [*prompt, *generated]
    whole = layout(ids, tokens, decoded=True)
    with torch.inference_mode():
        logits_LV = model(**dense_inputs(ids, whole, share_every=share_every)).logits[0].float()
    logprobs_LV = logits_LV.log_softmax(-1)
    # The token before a token in its own line of thought, which is not always the one before it in document order.
    before = predecessors(whole)
    values = [float(logprobs_LV[before[i], ids[i]]) for i in range(len(prompt), len(ids))]
    return np.array(values), whole


def predecessors(whole: Any) -> list[int]:
    """Index of the visible token at the position before each token; sampled tokens always have it in their own branch."""
    last: dict[int, int] = {}
    out = []
    for i, branch in enumerate(whole.writers):
        out.append(last.get(branch, -1))
        last[branch] = i
    return out


def check(model: Any, generation: Generation, tokens: TokenDialect, share_every: int | None = None) -> int:
    """Compare every sampled token; returns how many there were."""
    assert generation.logprobs is not None
    prompt, ids = generation.prompt_token_ids, generation.token_ids
    stop = 1 if generation.finish_reason == "stop" else 0  # end of text is not part of the grammar
    expected, whole = dense_logprobs(model, prompt, ids[: len(ids) - stop] if stop else ids, tokens, share_every)
    assert generation.positions[: len(expected)] == whole.positions[len(prompt) :]
    assert generation.branches[: len(expected)] == whole.labels[len(prompt) :]
    assert generation.forced[: len(expected)] == whole.forced[len(prompt) :]
    # The end of text takes a forward like any other choice.
    assert generation.usage.critical_path_steps == whole.critical_path_steps(len(prompt)) + stop
    compared = 0
    for value, reference in zip(generation.logprobs, expected, strict=False):
        if value is not None:
            assert abs(value - reference) <= TOLERANCE
            compared += 1
    return compared


Pair = tuple[LLM, Any]


@pytest.fixture(scope="module")
def pair(model_folders: dict[str, Path]) -> Callable[..., Pair]:
    """Our engine and the untouched model, by family, places of blocks and layout."""

    @cache
    def made(family: str, blocks: Blocks, positions: Positions = "engine") -> Pair:
        dialect = replace(MULTIVERSE, blocks=blocks, positions=positions)
        llm = LLM(model_folders[family], dialect=dialect, kv_memory=POOL * (512 if family == "qwen3" else 256))
        llm.engine.sampler = ScriptedSampler()
        return llm, AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()

    return made


PARAMS = SamplingParams(temperature=0, logprobs=True, max_tokens=4000, max_branches=1000)

Disturb = Callable[[LLM], bool]


def run_scripted(
    llm: LLM,
    docs: list[Document],
    prompts: list[str],
    gaps: list[int],
    budget: int = 2048,
    params: SamplingParams = PARAMS,
    disturb: Disturb | None = None,
) -> list[Generation]:
    """Write each document after its prompt, submitting one more request every few steps.

    Args:
        disturb: called after every step; says whether it has changed anything.
    """
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    assert isinstance(engine.sampler, ScriptedSampler)
    engine.scheduler.max_batch_tokens = budget
    end = int(llm.tokenizer.eos_token_id)
    requests: list[Request] = []

    def step() -> None:
        engine.step()
        engine.check_integrity()
        if disturb is not None and disturb(llm):
            engine.check_integrity()

    try:
        for document, prompt, gap in zip(docs, prompts, gaps, strict=True):
            request = engine.submit(tokens.encode(prompt), params)
            engine.sampler.scripts[request.id] = Script(document, tokens, end)
            requests.append(request)
            for _ in range(gap):
                if engine.busy:
                    step()
        while engine.busy:
            step()
    finally:
        for request in requests:
            engine.abort(request)
    assert engine.slots.owned == 0
    return [engine.generation(request) for request in requests]


def places(llm: LLM) -> Blocks:
    assert llm.engine.tokens is not None
    return llm.engine.tokens.dialect.blocks


def agree(pair: Pair, data: st.DataObject) -> None:
    """Several random trees share every batch, at random offsets; a small budget cuts prompts and heads into chunks."""
    llm, model = pair
    docs = data.draw(st.lists(documents(depth=3, forks=True, places=places(llm)), min_size=5, max_size=7))
    prompts = data.draw(st.lists(st.sampled_from(["Q", "a longer question?", "12+"]), min_size=len(docs), max_size=len(docs)))
    gaps = data.draw(st.lists(st.integers(0, 12), min_size=len(docs), max_size=len(docs)))
    budget = data.draw(st.sampled_from([31, 128, 2048]))
    tokens = llm.engine.tokens
    assert tokens is not None
    for document, generation in zip(docs, run_scripted(llm, docs, prompts, gaps, budget), strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens) > 0


class Trouble:
    """Preempts running requests at random steps, and empties the prefix cache now and then.

    Seldom one that is being computed again, or with small chunks it would hardly ever come to an end.
    """

    def __init__(self, rng: random.Random, *, evict: bool) -> None:
        self.rng, self.evict = rng, evict

    def __call__(self, llm: LLM) -> bool:
        engine, rng = llm.engine, self.rng
        if not engine.scheduler.running or rng.random() >= 0.15:
            return False
        request = rng.choice(engine.scheduler.running)
        if request.queues.prefill and rng.random() < 0.8:
            return False
        engine.scheduler.preempt(request)
        if self.evict and rng.random() < 0.7:
            engine.cache.clear()
        return True


FAMILIES = ["qwen2", "qwen3", "llama"]
PLACED: list[tuple[str, Blocks]] = [("qwen2", "thinking"), ("qwen3", "both"), ("llama", "answer")]
"""Every family, and every place of blocks."""


@pytest.mark.parametrize(
    ("family", "blocks"),
    [("qwen2", "thinking"), ("qwen3", "thinking"), ("llama", "thinking"), *PLACED[1:], ("qwen3", "answer")],
)
@settings(max_examples=3)
@given(data=st.data())
def test_engine_agrees_with_one_dense_forward(
    pair: Callable[..., Pair], family: str, blocks: Blocks, data: st.DataObject
) -> None:
    # 3 examples of at least 5 trees each: at least 90 trees; thousands of them at length.
    agree(pair(family, blocks), data)


@pytest.mark.parametrize(("family", "blocks"), PLACED)
@settings(max_examples=1)
@given(data=st.data())
def test_the_released_layout_agrees_with_one_dense_forward(
    pair: Callable[..., Pair], family: str, blocks: Blocks, data: st.DataObject
) -> None:
    agree(pair(family, blocks, "released"), data)


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["engine", "released"])
@pytest.mark.parametrize("blocks", ["thinking", "answer", "both"])
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150)
@given(data=st.data())
def test_engine_agrees_with_one_dense_forward_at_length(
    pair: Callable[..., Pair], family: str, blocks: Blocks, positions: Positions, data: st.DataObject
) -> None:
    agree(pair(family, blocks, positions), data)


@pytest.mark.parametrize("blocks", ["thinking", "answer"])
def test_a_chain_of_nested_blocks_to_depth_three(pair: Callable[..., Pair], blocks: Blocks) -> None:
    # Whatever the random trees happen to be: a block in a path in a path, wide, with ragged paths and text after each join.
    def body(depth: int, label: str) -> tuple[str | Block, ...]:
        if not depth:
            return (label * (1 + len(label)),)
        inner = Block(("l", "m", "n"), tuple(body(depth - 1, label + letter) for letter in "lmn"), "sum " + label)
        return ("before", inner, "between", inner, "after") if depth == 1 else ("before", inner, "after")

    llm, model = pair("qwen3", blocks)
    tokens = llm.engine.tokens
    assert tokens is not None
    document = place(body(3, "a"), "done", tokens.dialect)
    (generation,) = run_scripted(llm, [document], ["Q"], [0])
    assert generation.tree == document
    assert document.depth == 3
    assert check(model, generation, tokens) > 1000
    assert generation.usage.parallelism > 3


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> tuple[LLM, Any]:
    """Our engine and the untouched model, with the compact dialect: no separators, outlines that the next tag ends."""
    tokenizer = build_tokenizer(MULTIVERSE_COMPACT)
    torch.manual_seed(9)
    folder = save_model(tmp_path_factory.mktemp("compact"), MODELS["qwen3"](len(tokenizer)), tokenizer)
    llm = LLM(folder, kv_memory=8 << 20)
    llm.engine.sampler = ScriptedSampler()
    return llm, AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()


@settings(max_examples=3)
@given(data=st.data())
def test_the_compact_dialect_agrees_with_one_dense_forward(compact: tuple[LLM, Any], data: st.DataObject) -> None:
    llm, model = compact
    tokens = llm.engine.tokens
    assert tokens is not None
    assert tokens.dialect == MULTIVERSE_COMPACT
    docs = data.draw(st.lists(documents(depth=2, forks=True, places="answer"), min_size=4, max_size=5))
    rng = random.Random(data.draw(st.integers(0, 1 << 30)))
    disturb = Trouble(rng, evict=True) if rng.random() < 0.5 else None
    gaps = [rng.randrange(8) for _ in docs]
    generations = run_scripted(llm, docs, ["Q"] * len(docs), gaps, rng.choice([13, 40, 2048]), disturb=disturb)
    for document, generation in zip(docs, generations, strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens) > 0


def draw_work(data: st.DataObject, size: int, where: Blocks) -> tuple[list[Document], list[str], list[int], random.Random]:
    docs = data.draw(st.lists(documents(depth=2, forks=True, places=where), min_size=size, max_size=size))
    prompts = data.draw(st.lists(st.sampled_from(["Q", "Question", "Question 2"]), min_size=size, max_size=size))
    gaps = data.draw(st.lists(st.integers(0, 8), min_size=size, max_size=size))
    return docs, prompts, gaps, random.Random(data.draw(st.integers(0, 1 << 30)))


@pytest.mark.parametrize(("family", "blocks"), PLACED)
@pytest.mark.parametrize("evict", [False, True], ids=["kept in the cache", "evicted"])
@settings(max_examples=2)
@given(data=st.data())
def test_preemption_at_any_step_changes_nothing(
    pair: Callable[..., Pair], family: str, blocks: Blocks, evict: bool, data: st.DataObject
) -> None:
    preempted(pair(family, blocks), evict, data)


@pytest.mark.parametrize("evict", [False, True], ids=["kept in the cache", "evicted"])
@settings(max_examples=1)
@given(data=st.data())
def test_preemption_changes_nothing_in_the_released_layout(pair: Callable[..., Pair], evict: bool, data: st.DataObject) -> None:
    preempted(pair("qwen3", "both", "released"), evict, data)


def preempted(pair: Pair, evict: bool, data: st.DataObject) -> None:
    # Small chunks and few branches at a time, so that restoring is cut up and blocks are gone through in waves.
    llm, model = pair
    blocks = places(llm)
    docs, prompts, gaps, rng = draw_work(data, 4, blocks)
    tokens, scheduler = llm.engine.tokens, llm.engine.scheduler
    assert tokens is not None
    scheduler.max_batch_branches = rng.choice([1, 3, 256])
    before = scheduler.preemptions
    try:
        generations = run_scripted(llm, docs, prompts, gaps, rng.choice([13, 40, 2048]), disturb=Trouble(rng, evict=evict))
    finally:
        scheduler.max_batch_branches = 256
    assert sum(generation.usage.preemptions for generation in generations) == scheduler.preemptions - before
    for document, generation in zip(docs, generations, strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens) > 0


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["engine", "released"])
@pytest.mark.parametrize("evict", [False, True], ids=["kept in the cache", "evicted"])
@pytest.mark.parametrize("blocks", ["thinking", "answer", "both"])
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12)
@given(data=st.data())
def test_preemption_at_any_step_changes_nothing_at_length(
    pair: Callable[..., Pair], family: str, blocks: Blocks, evict: bool, positions: Positions, data: st.DataObject
) -> None:
    preempted(pair(family, blocks, positions), evict, data)


@pytest.mark.parametrize(
    ("family", "blocks", "every"), [("qwen2", "thinking", 8), ("qwen3", "both", 1), ("llama", "answer", 8)]
)
@settings(max_examples=1)
@given(data=st.data())
def test_paths_that_share_every_so_often_agree_too(
    pair: Callable[..., Pair], family: str, blocks: Blocks, every: int, data: st.DataObject
) -> None:
    shared(pair(family, blocks), every, data)


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 8])
@pytest.mark.parametrize("blocks", ["thinking", "answer", "both"])
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=10)
@given(data=st.data())
def test_paths_that_share_every_so_often_agree_at_length(
    pair: Callable[..., Pair], family: str, blocks: Blocks, every: int, data: st.DataObject
) -> None:
    shared(pair(family, blocks), every, data)


def shared(pair: Pair, every: int, data: st.DataObject) -> None:
    llm, model = pair
    docs, prompts, gaps, rng = draw_work(data, 3, places(llm))
    tokens, scheduler = llm.engine.tokens, llm.engine.scheduler
    assert tokens is not None
    scheduler.max_batch_branches = rng.choice([1, 3, 256])
    disturb = Trouble(rng, evict=True) if rng.random() < 0.7 else None
    try:
        generations = run_scripted(
            llm, docs, prompts, gaps, rng.choice([13, 40, 2048]), replace(PARAMS, share_every=every), disturb
        )
    finally:
        scheduler.max_batch_branches = 256
    for document, generation in zip(docs, generations, strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens, every) > 0


@pytest.mark.parametrize("every", [None, 1, 8])
def test_sharing_is_seen_by_the_model(pair: Callable[..., Pair], every: int | None) -> None:
    # The two masks differ where it matters: numbers of one would not pass as those of the other.
    llm, model = pair("qwen2", "thinking")
    tokens = llm.engine.tokens
    assert tokens is not None
    document = Document((Block(("a", "b"), (("first path, long enough",), ("second one, longer than eight",)), "c"),), "A")
    (generation,) = run_scripted(llm, [document], ["Q"], [0], params=replace(PARAMS, share_every=every))
    check(model, generation, tokens, every)
    for other in {None, 1, 8} - {every}:
        with pytest.raises(AssertionError):
            check(model, generation, tokens, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pool_that_is_too_small_for_all_makes_them_take_turns(model_folders: dict[str, Path], family: str) -> None:
    # Eight families of nested blocks on a pool that holds about two: nobody is lost, and nothing changes.
    llm = LLM(model_folders[family], kv_memory=420 * (512 if family == "qwen3" else 256))
    llm.engine.sampler = ScriptedSampler()
    model = AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()
    tokens = llm.engine.tokens
    assert tokens is not None
    inner = Block(("x", "y"), (("inner x",), ("inner y, longer",)), "sum")
    document = Document(("t", Block(("a", "b", "c"), (("p" * 20,), (inner, "q"), ("r" * 30,)), "c" * 9), "after"), "A")
    length = len(encode(document, tokens).token_ids)
    size = llm.engine.slots.size
    assert length + 1 < size < 3 * length
    params = replace(PARAMS, max_tokens=size - 8)
    generations = run_scripted(llm, [document] * 8, [f"Q{i}" for i in range(8)], [3] * 8, 64, params)
    assert llm.engine.scheduler.preemptions > 0
    for generation in generations:
        assert generation.tree == document
        assert check(model, generation, tokens) > 0
