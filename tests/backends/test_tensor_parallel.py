"""A model over two processes gives what the untouched model gives in one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM

from multiverse import LLM
from multiverse.backends.tensor_parallel import TensorParallelBackend, check_splittable
from multiverse.engine.model import load
from multiverse.engine.scripted import ScriptedSampler
from multiverse.errors import ModelError
from multiverse.structure import Block, Document
from tests.engine.test_oracle import Trouble, check, run_scripted

INNER = Block(("x", "y"), (("inner x",), ("inner y, longer",)), "sum")
DOCUMENTS = [
    Document(("t", Block(("a", "b", "c"), (("p" * 20,), (INNER, "q"), ("r" * 30,)), "c" * 9), "after"), "A"),
    Document(("no fork at all",), "B"),
    Document((Block(("one", "two"), (("1",), (Block(("d", "e"), ((INNER,), ("e" * 40,)), "up"),)), "s"), "t", INNER), "C"),
]


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "llama"])
def pair(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Iterator[tuple[LLM, Any]]:
    """An engine over two processes, and the untouched model in one."""
    folder = model_folders[request.param]
    llm = LLM(folder, kv_memory=4 << 20, tensor_parallel=2)
    llm.engine.sampler = ScriptedSampler()
    yield llm, AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    backend = llm.engine.backend
    assert isinstance(backend, TensorParallelBackend)
    backend.ranks.close()
    assert not dist.is_initialized()


def test_each_rank_keeps_its_own_heads(pair: tuple[LLM, Any]) -> None:
    llm, model = pair
    pool = llm.engine.backend.pool
    run_scripted(llm, DOCUMENTS[:1], ["Q"], [0])
    heads = model.config.num_key_value_heads
    assert {tensor.shape[1] for tensor in [*pool.key_SKD.values(), *pool.value_SKV.values()]} == {heads // 2}


def test_two_ranks_agree_with_one_dense_forward(pair: tuple[LLM, Any]) -> None:
    # Nested blocks of three requests in one batch, cut into small chunks, preempted and evicted on the way.
    llm, model = pair
    tokens = llm.engine.tokens
    assert tokens is not None
    trouble = Trouble(random.Random(7), evict=True)
    generations = run_scripted(llm, DOCUMENTS, ["Q", "a longer question?", "12+"], [5, 3, 0], 40, disturb=trouble)
    for document, generation in zip(DOCUMENTS, generations, strict=True):
        assert generation.tree == document
        assert check(model, generation, tokens) > 0
    assert sum(generation.usage.preemptions for generation in generations) > 0


def test_two_in_one_process_are_refused(pair: tuple[LLM, Any], model_folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="process of its own"):
        load(model_folders["qwen2"], tensor_parallel=2)
    assert pair[0].engine.backend.broken is None


@pytest.mark.parametrize(("size", "message"), [(3, "does not divide the 4 num_attention_heads"), (0, "tensor_parallel=0")])
def test_sizes_that_cannot_be(model_folders: dict[str, Path], size: int, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(model_folders["qwen3"], device="cpu", tensor_parallel=size)


def test_model_without_a_plan_is_refused(model_folders: dict[str, Path]) -> None:
    config = AutoConfig.from_pretrained(model_folders["qwen3"])
    config.base_model_tp_plan = None
    with pytest.raises(ModelError, match="no tensor-parallel plan"):
        check_splittable(config, "x", 2, torch.device("cpu"))
