"""What only a GPU can show: that captured graphs are really replayed, in every type, and give what the dense forward gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.backends.cuda.backend import CudaBackend
from multiverse.engine.scripted import ScriptedSampler
from tests.conftest import cuda
from tests.engine.steering import NESTED, run_documents, two_paths
from tests.engine.test_oracle import FAMILIES, check, dense_logprobs

pytestmark = cuda


@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_are_replayed_and_agree(model_folders: dict[str, Path], family: str) -> None:
    llm = LLM(model_folders[family], kv_memory=8 << 20)
    llm.engine.sampler = ScriptedSampler()
    backend = llm.engine.backend
    assert isinstance(backend, CudaBackend)
    assert backend.graphs is not None
    model: Any = AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()
    assert llm.engine.tokens is not None
    for _ in range(2):  # captured, then replayed
        for generation in run_documents(llm, [NESTED, two_paths()]):
            assert check(model, generation, llm.engine.tokens) > 50
    assert backend.graphs.replays > 50
    assert backend.hits > 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_as_near_as_its_rounding(model_folders: dict[str, Path], dtype: str) -> None:
    llm = LLM(model_folders["qwen3"], kv_memory=8 << 20, dtype=dtype)
    llm.engine.sampler = ScriptedSampler()
    model: Any = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], dtype=getattr(torch, dtype)).eval().float()
    assert llm.engine.tokens is not None
    (generation,) = run_documents(llm, [NESTED])
    assert generation.logprobs is not None
    expected, _ = dense_logprobs(model, generation.prompt_token_ids, generation.token_ids[:-1], llm.engine.tokens)
    pairs = zip(generation.logprobs, expected, strict=False)
    errors = [abs(value - other) for value, other in pairs if value is not None]
    assert sum(errors) / len(errors) < 0.05
    assert max(errors) < 0.5


def test_what_torch_computes_is_what_the_kernels_compute(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(temperature=0, max_tokens=64)
    prompts = [f"question {number}" for number in range(9)]
    ours = LLM(model_folders["llama"], kv_memory=8 << 20).generate(prompts, params)
    monkeypatch.setenv("MULTIVERSE_NATIVE", "0")
    torchs = LLM(model_folders["llama"], kv_memory=8 << 20).generate(prompts, params)
    assert [one.token_ids for one in ours] == [one.token_ids for one in torchs]


def test_gradients_of_the_block_mask_are_those_of_the_dense_one() -> None:
    from multiverse.attention.packed import Visibility, packed_attention

    torch.manual_seed(0)
    length, heads, kv_heads, size = 512, 4, 2, 64
    segment_BL = torch.arange(length, device="cuda")[None] // 64
    table_BSS = torch.ones(1, 8, 8, dtype=torch.bool, device="cuda")
    table_BSS[0, 3:6, 3:6] = torch.eye(3, dtype=torch.bool, device="cuda")  # three paths of a block
    table_BSS[0, 7, :7] = False  # another document
    position_BL = torch.arange(length, device="cuda")[None]
    shapes = ((1, heads, length, size), (1, kv_heads, length, size), (1, kv_heads, length, size))
    inputs = [torch.randn(*shape, device="cuda") for shape in shapes]
    weight = torch.randn(1, length, heads, size, device="cuda")
    gradients = {}
    for kind in ("dense", "block"):
        own = [tensor.clone().requires_grad_() for tensor in inputs]
        seen = Visibility(segment_BL, table_BSS, position_BL, kind=kind)
        out, _ = packed_attention(torch.nn.Module(), *own, None, visibility=seen)
        (out * weight).sum().backward()
        gradients[kind] = [out.detach(), *(tensor.grad for tensor in own)]
    for dense, block in zip(gradients["dense"], gradients["block"], strict=True):
        torch.testing.assert_close(block, dense, atol=2e-3, rtol=2e-3)
