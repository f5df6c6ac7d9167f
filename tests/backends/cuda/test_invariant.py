"""The Triton kernels over tiles cut at fixed places: the same bits in every batch, in Triton's interpreter or on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from multiverse.backends.batch import Family
from multiverse.backends.cuda.attention import TiledAttention
from multiverse.backends.cuda.backend import CudaBackend
from multiverse.backends.cuda.buffers import send
from multiverse.backends.cuda.layers import TritonLinear, TritonNorm
from multiverse.backends.cuda.plan import Plan
from tests.backends.cuda.families import TorchTiles, expected, on
from tests.backends.invariant.test_plan import PLAIN, families_of, random_call
from tests.conftest import DEVICE

pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")

DTYPES = [torch.float32] if DEVICE == "cpu" else [torch.float32, torch.bfloat16]
"""The interpreter's products of bfloat16 are not right."""


def plan_of(attention: TiledAttention, families: list[Family], rows: int) -> Plan:
    """The plan of full attention."""
    attention.heads, attention.windows = (PLAIN["heads"], PLAIN["kv_heads"]), {None}
    return attention.plan(families, rows)[None]


@pytest.mark.parametrize(
    "attention", [TiledAttention(4, deterministic=True), TorchTiles(deterministic=True)], ids=["kernels", "torch"]
)
def test_attention_is_right_and_the_same_bits_alone(attention: TiledAttention) -> None:
    every, _ = families_of(0)
    families, start = [], 0
    for family in (every[1], every[2], every[6]):  # a path with a block, 520 tokens, a plain request
        families.append(family._replace(rows=family.rows - family.rows[0] + start))
        start += len(family.rows)
    call = on(random_call(start, PLAIN, None, torch.float32), DEVICE)
    attention.launch(call, send(plan_of(attention, families, start), call.query_NHD.device))
    found_NHV = call.out_NHV.clone()
    torch.testing.assert_close(found_NHV.float().cpu(), expected(on(call, "cpu"), families), atol=1e-4, rtol=1e-4)
    for family in families:
        first, last = int(family.rows[0]), int(family.rows[-1]) + 1
        own = call._replace(query_NHD=call.query_NHD[first:last].clone(), out_NHV=torch.zeros_like(call.out_NHV[first:last]))
        alone = family._replace(rows=np.arange(last - first))
        attention.launch(own, send(plan_of(attention, [alone], last - first), own.query_NHD.device))
        assert torch.equal(own.out_NHV, found_NHV[first:last])


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_linear_layer_gives_a_row_the_same_bits_in_every_batch(gated: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    size, out = 136, 72

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    x_NE, weight_FE, norm = normal(40, size), normal(out * (1 + gated), size), TritonNorm(normal(size), 1e-5)
    invariant = TritonLinear(weight_FE, None, norm, gated=gated, invariant=True)
    usual = TritonLinear(weight_FE, None, norm, gated=gated)
    whole_NF = invariant(x_NE)
    torch.testing.assert_close(whole_NF, usual.gemm(x_NE), atol=2e-1 if dtype == torch.bfloat16 else 1e-4, rtol=2e-2)
    for rows, start in ((1, 0), (1, 39), (2, 15), (16, 3), (17, 20)):
        assert torch.equal(invariant(x_NE[start : start + rows]), whole_NF[start : start + rows])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_backend_passes_its_own_proof(model_folders: dict[str, Path], dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], dtype=dtype)
    backend = CudaBackend(torch.device(DEVICE), TiledAttention(8, deterministic=True), None)
    backend.prepare(model, "qwen3")
    assert backend.allocate(1 << 20)
