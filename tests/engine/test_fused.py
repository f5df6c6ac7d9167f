"""Fused operators against the modules that they replace, in Triton's interpreter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from multiverse.engine.fused import FusedMLP, FusedRMSNorm, fuse, rotate
from tests.conftest import DEVICE

pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")


@pytest.mark.parametrize(("family", "norms"), [("qwen2", 5), ("qwen3", 9)])
def test_a_fused_model_gives_the_same_logits(model_folders: dict[str, Path], family: str, norms: int) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(model_folders[family]).eval().to(DEVICE)
    ids = torch.randint(0, 200, (1, 7), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    with torch.inference_mode():
        expected = model(ids).logits
        # Two layers: norms before attention and MLP (and of queries and keys), one at the end; two MLPs; two attentions.
        assert fuse(model) == norms + 2 + 2
        found = model(ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    kinds = [type(module) for module in model.modules()]
    assert kinds.count(FusedRMSNorm) == norms
    assert kinds.count(FusedMLP) == 2


def test_only_this_model_is_changed(model_folders: dict[str, Path]) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(model_folders["llama"]).eval().to(DEVICE)
    other = copy.deepcopy(model)
    before = type(model.model.layers[0].self_attn).forward
    fuse(model)
    assert type(model.model.layers[0].self_attn).forward is before
    assert model.model.layers[0].self_attn.forward.__func__.__globals__["apply_rotary_pos_emb"] is rotate
    assert other.model.layers[0].self_attn.forward.__func__ is before


def test_what_is_not_what_it_is_called_stays() -> None:
    class OddRMSNorm(nn.Module):
        """Adds one to its weight, as some do."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.rand(8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)

    class GeluMLP(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
            self.act_fn = nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
            return out

    model = nn.Sequential(OddRMSNorm(), GeluMLP()).to(DEVICE)
    assert fuse(model) == 0
    assert [type(module) for module in model] == [OddRMSNorm, GeluMLP]
