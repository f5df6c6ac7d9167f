"""The engine on the CUDA backend: the oracle once more, with tiles and graphs, on a CPU.

Plain torch replaces the kernels, and a step that is run again replaces a graph that is replayed: buffers, padding rows, the
scratch slot and the choice of a graph are the same. The kernels themselves generate a document in Triton's interpreter.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from multiverse import LLM, SamplingParams
from multiverse.backends.cuda.attention import TiledAttention
from multiverse.backends.cuda.backend import CudaBackend
from multiverse.backends.cuda.cuda_graphs import CAPTURE_SIZES, CudaGraphRunner, Step, capture_size
from multiverse.engine import batch as batching
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Block, Document
from tests.backends.cuda.families import TorchTiles, on_cuda_backend, replay_in_place
from tests.conftest import DEVICE, SHAPE, save_model
from tests.engine.steering import NESTED, run_documents, two_paths
from tests.engine.test_oracle import FAMILIES, PARAMS, Trouble, agree, check, draw_work, places, run_scripted
from tests.strategies import documents

interpreted = pytest.mark.skipif(
    DEVICE == "cuda", reason="runs the kernels in the interpreter; with a GPU test_oracle.py runs them there"
)


@pytest.fixture(scope="module")
def pairs(model_folders: dict[str, Path]) -> dict[str, tuple[LLM, Any]]:
    pairs = {}
    for name in FAMILIES:
        # One family always without graphs.
        llm = on_cuda_backend(LLM(model_folders[name], kv_memory=8 << 20, device="cpu"), TorchTiles(), graphs=name != "llama")
        pairs[name] = llm, AutoModelForCausalLM.from_pretrained(model_folders[name], attn_implementation="sdpa").eval()
    return pairs


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=1)
@given(data=st.data())
def test_plans_agree_with_one_dense_forward(pairs: dict[str, tuple[LLM, Any]], family: str, data: st.DataObject) -> None:
    agree(pairs[family], data)


@settings(max_examples=1)
@given(data=st.data())
def test_plans_of_the_layout_released_agree_too(model_folders: dict[str, Path], data: st.DataObject) -> None:
    folder = model_folders["qwen3"]
    llm = on_cuda_backend(LLM(folder, layout="released", kv_memory=8 << 20, device="cpu"), TorchTiles())
    llm.engine.sampler = ScriptedSampler()
    agree((llm, AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()), data)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60)
@given(data=st.data())
def test_plans_agree_with_one_dense_forward_at_length(
    pairs: dict[str, tuple[LLM, Any]], family: str, data: st.DataObject
) -> None:
    agree(pairs[family], data)


@settings(max_examples=1)
@given(data=st.data())
def test_preemption_and_waves(pairs: dict[str, tuple[LLM, Any]], data: st.DataObject) -> None:
    llm, model = pairs["qwen3"]
    docs, prompts, gaps, rng = draw_work(data, 4, places(llm))
    llm.engine.scheduler.max_batch_branches = rng.choice([1, 3, 256])
    try:
        generations = run_scripted(llm, docs, prompts, gaps, rng.choice([13, 40, 2048]), disturb=Trouble(rng, evict=True))
    finally:
        llm.engine.scheduler.max_batch_branches = 256
    assert llm.engine.tokens is not None
    for document, generation in zip(docs, generations, strict=True):
        assert generation.tree == document
        assert check(model, generation, llm.engine.tokens) > 0


@settings(max_examples=1)
@given(data=st.data(), every=st.sampled_from([1, 8]))
def test_sharing_requests_among_others(pairs: dict[str, tuple[LLM, Any]], data: st.DataObject, every: int) -> None:
    # Their rows come in buckets, those of the others as plans, in one forward.
    llm, model = pairs["qwen2"]
    engine = llm.engine
    assert engine.tokens is not None
    assert isinstance(engine.sampler, ScriptedSampler)
    docs = data.draw(st.lists(documents(depth=2, forks=True), min_size=4, max_size=4))
    sharing = replace(PARAMS, share_every=every)
    requests = []
    for number, document in enumerate(docs):
        request = engine.submit(engine.tokens.encode(f"Q{number}"), sharing if number % 2 else PARAMS)
        engine.sampler.scripts[request.id] = Script(document, engine.tokens, int(llm.tokenizer.eos_token_id))
        requests.append(request)
    engine.run(requests)
    for number, (document, request) in enumerate(zip(docs, requests, strict=True)):
        generation = engine.generation(request)
        assert generation.tree == document
        assert check(model, generation, engine.tokens, every if number % 2 else None) > 0


@pytest.mark.parametrize(("window", "layout"), [(3, "engine"), (16, "engine"), (16, "released")])
def test_windows_have_plans_of_their_own(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, window: int, layout: str) -> None:
    torch.manual_seed(window)
    config = MistralConfig(vocab_size=len(tokenizer), sliding_window=window, **SHAPE)
    folder = save_model(tmp_path, MistralForCausalLM(config), tokenizer)
    plain = LLM(folder, layout=layout, kv_memory=4 << 20, device="cpu")
    plain.engine.sampler = ScriptedSampler()
    tiled = on_cuda_backend(LLM(folder, layout=layout, kv_memory=4 << 20, device="cpu"), TorchTiles())
    assert isinstance(tiled.engine.backend, CudaBackend)
    assert tiled.engine.backend.attention.windows == {window}
    for one, other in zip(*(run_documents(llm, [NESTED, two_paths()]) for llm in (plain, tiled)), strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs is not None
        assert other.logprobs is not None
        assert [value is None for value in one.logprobs] == [value is None for value in other.logprobs]
        for a, b in zip(one.logprobs, other.logprobs, strict=True):
            assert a is None or a == pytest.approx(b, abs=1e-4)


@interpreted
def test_the_kernels_pass_the_oracle(model_folders: dict[str, Path]) -> None:
    pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")
    llm = on_cuda_backend(LLM(model_folders["qwen3"], kv_memory=4 << 20, device="cpu"), TiledAttention(programs=2))
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], attn_implementation="sdpa").eval()
    document = Document((Block(("", ""), (("a",), (Block(("",), (("b",),), ""),)), ""),), "4")
    (generation,) = run_scripted(llm, [document], ["Q"], [0])
    assert generation.tree == document
    assert llm.engine.tokens is not None
    assert check(model, generation, llm.engine.tokens) > 20


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=1)
@given(data=st.data())
def test_the_kernels_pass_the_oracle_at_length(model_folders: dict[str, Path], family: str, data: st.DataObject) -> None:
    pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")
    llm = on_cuda_backend(LLM(model_folders[family], kv_memory=8 << 20, device="cpu"), TiledAttention(programs=2), graphs=False)
    agree((llm, AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()), data)


def with_graphs(model_folders: dict[str, Path]) -> tuple[LLM, CudaGraphRunner]:
    llm = on_cuda_backend(LLM(model_folders["qwen2"], kv_memory=4 << 20, device="cpu"), TorchTiles())
    assert isinstance(llm.engine.backend, CudaBackend)
    assert llm.engine.backend.graphs is not None
    return llm, llm.engine.backend.graphs


def test_a_graph_is_captured_once_and_replayed(model_folders: dict[str, Path]) -> None:
    llm, graphs = with_graphs(model_folders)
    captured: list[int] = []

    def capture(step: Step) -> tuple[Callable[[], object], Tensor]:
        replay, logits = replay_in_place(step)
        captured.append(len(logits))
        return replay, logits

    graphs._capture = capture
    run_documents(llm, [two_paths("one" * 9, "two" * 12), two_paths()])
    assert sorted(captured) == sorted(set(captured))
    assert set(captured) <= set(CAPTURE_SIZES)
    assert graphs.replays > 20


def test_what_fits_no_graph_runs_without(model_folders: dict[str, Path]) -> None:
    llm, graphs = with_graphs(model_folders)
    prompt = "x" * (CAPTURE_SIZES[-1] + 2)
    (generation,) = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=3))
    # The prompt ran without. Of the two steps after it the first was captured; a third was begun before the end was known.
    assert graphs.replays == 2
    assert len(generation.token_ids) == 3
    # A plan that is too large for its graph.
    small = graphs.capacity
    graphs.capacity = lambda rows: small(rows)._replace(entries=0)  # type: ignore[method-assign]
    llm.generate("y", SamplingParams(temperature=0, max_tokens=3))
    assert graphs.replays == 2


def test_the_scratch_slot_belongs_to_no_request(model_folders: dict[str, Path]) -> None:
    llm, _ = with_graphs(model_folders)
    backend = llm.engine.backend
    assert backend.pool.slots == backend.num_slots + 1 == llm.engine.slots.size + 1
    run_documents(llm, [Document((Block(("o",) * 5, (("p" * 4,),) * 5, "c"),), "A")])  # five rows in a graph of six
    scratch = backend.pool.key_SKD[0][-1]
    assert bool((scratch != 0).any())  # the padding row wrote there
    assert backend.num_slots not in llm.engine.slots._stack


def test_graphs_by_the_number_of_rows(model_folders: dict[str, Path]) -> None:
    llm, _ = with_graphs(model_folders)
    engine, backend = llm.engine, llm.engine.backend
    assert isinstance(backend, CudaBackend)
    for count in (1, 5, CAPTURE_SIZES[-1], CAPTURE_SIZES[-1] + 1):
        request = engine.submit([count % 100] * (count + 1), SamplingParams(max_tokens=1))
        batch = batching.build(engine.scheduler.schedule())
        assert len(batch.token_N) == count + 1
        expected = next((rows for rows in CAPTURE_SIZES if rows >= count + 1), None)
        assert capture_size(batch, backend.plan_tiles(batch)) == expected
        assert capture_size(batch, {}) is None
        batch.families[0] = batch.families[0]._replace(shared_RU=np.zeros((1, 1), dtype=bool))  # computed in buckets
        assert capture_size(batch, backend.plan_tiles(batch)) is None
        engine.abort(request)
    assert list(CAPTURE_SIZES) == sorted(CAPTURE_SIZES)
    assert all(later <= 2 * earlier for earlier, later in pairwise(CAPTURE_SIZES))


def test_random_padding_changes_no_logits(model_folders: dict[str, Path]) -> None:
    # The same forward in graphs of several sizes.
    llm, graphs = with_graphs(model_folders)
    engine, rng = llm.engine, random.Random(0)
    requests = [
        engine.submit([rng.randrange(100) for _ in range(9)], SamplingParams(max_tokens=4, temperature=0)) for _ in range(3)
    ]
    engine.step()
    batch = batching.build(engine.scheduler.schedule())
    assert len(batch.token_N) == 3
    assert isinstance(engine.backend, CudaBackend)
    plans = engine.backend.plan_tiles(batch)
    with torch.inference_mode():
        results = [graphs.capture(rows, batch, plans).logits[:3].clone() for rows in (3, 4, 24)]
    graphs._graphs.clear()
    for other in results[1:]:
        np.testing.assert_allclose(other.numpy(), results[0].numpy(), atol=1e-5)
    for request in requests:
        engine.abort(request)
