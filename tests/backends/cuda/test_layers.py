"""Fused layers against the modules that they replace, in Triton's interpreter; on the GPU where there is one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from multiverse import LLM
from multiverse.attention.tree import register
from multiverse.backends.base import ForwardContext
from multiverse.backends.buckets import Bucket
from multiverse.backends.cuda.layers import TritonKernels, TritonLinear, TritonNorm
from multiverse.backends.fused_layers import fuse_layers, fuse_norms
from multiverse.backends.kv_pool import KVPool
from multiverse.backends.torch import TorchBackend
from tests.conftest import DEVICE, SHAPE

pytest.importorskip("triton", reason="the kernels need Triton, which has no build for this system")


def fuse(model: Any) -> int:
    """As for a GPU; how many layers and norms."""
    return fuse_layers(model, TritonKernels()) + fuse_norms(model, TritonKernels())


def ready(model: Any) -> Any:
    """A model whose attention is the engine's."""
    model = model.eval().to(DEVICE)
    model.set_attn_implementation(register())
    return model


@torch.inference_mode()
def logits(model: Any, rows: int) -> torch.Tensor:
    """Of one causal line of rows."""
    ids = torch.randint(0, 200, (1, rows), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    order = torch.arange(rows, device=DEVICE)
    visible = torch.ones(1, rows, rows, dtype=torch.bool, device=DEVICE).tril()
    bucket = Bucket(order[None], order[None], visible, None, order[None], order[None])
    context = ForwardContext(KVPool(rows), TorchBackend(torch.device(DEVICE)), order, [bucket])
    out: torch.Tensor = model(ids, position_ids=order[None], use_cache=False, tree_context=context).logits
    assert context.layers == {0, 1}
    return out


@pytest.mark.parametrize(("family", "norms"), [("qwen2", 5), ("qwen3", 9), ("llama", 5), ("mistral", 5)])
def test_a_fused_model_gives_the_same_logits(model_folders: dict[str, Path], family: str, norms: int) -> None:
    model = ready(AutoModelForCausalLM.from_pretrained(model_folders[family]))
    expected = {rows: logits(model, rows) for rows in (1, 2, 16, 17)}
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    # Two layers, and the norms: before attention and MLP (and of queries and keys), one at the end.
    assert fuse(model) == 2 + norms
    for rows, theirs in expected.items():
        torch.testing.assert_close(logits(model, rows), theirs, atol=1e-4, rtol=1e-4)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_biases_everywhere() -> None:
    config = LlamaConfig(vocab_size=256, attention_bias=True, mlp_bias=True, bos_token_id=None, **SHAPE)
    torch.manual_seed(0)
    model = ready(LlamaForCausalLM(config))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(weight, std=0.1)
    expected = {rows: logits(model, rows) for rows in (1, 3, 20)}
    assert fuse(model) == 2 + 5
    for rows, theirs in expected.items():
        torch.testing.assert_close(logits(model, rows), theirs, atol=1e-4, rtol=1e-4)


def test_joined_weights_are_kept_once(model_folders: dict[str, Path]) -> None:
    model = ready(AutoModelForCausalLM.from_pretrained(model_folders["qwen2"]))
    fuse(model)
    layer = model.model.layers[0]
    assert (
        layer.self_attn.q_proj.weight.untyped_storage().data_ptr() == layer.self_attn.v_proj.weight.untyped_storage().data_ptr()
    )
    assert layer.mlp.gate_proj.weight.untyped_storage().data_ptr() == layer.mlp.up_proj.weight.untyped_storage().data_ptr()


def test_only_this_model_is_changed(model_folders: dict[str, Path]) -> None:
    model = ready(AutoModelForCausalLM.from_pretrained(model_folders["llama"]))
    other = copy.deepcopy(model)
    fuse(model)
    assert "forward" in vars(model.model.layers[0])
    assert "forward" not in vars(other.model.layers[0])


def test_layers_that_compute_something_else_are_not_replaced(model_folders: dict[str, Path]) -> None:
    class OddRMSNorm(nn.Module):
        """Adds one to its weight, as some do."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.rand(size)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)

    model = ready(AutoModelForCausalLM.from_pretrained(model_folders["llama"]))
    layers = model.model.layers
    layers[0].input_layernorm = OddRMSNorm(SHAPE["hidden_size"]).to(DEVICE)
    layers[1].mlp.act_fn = nn.GELU()
    expected = logits(model, 5)
    assert fuse(model) == 4  # neither layer; three norms of theirs, and the last
    assert all("forward" not in vars(layer) for layer in layers)
    torch.testing.assert_close(logits(model, 5), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 16, 17])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_linears(rows: int, gated: bool, plain: bool) -> None:
    """Sizes that no block divides, with everything fused into the linear layer and with nothing."""
    generator = torch.Generator().manual_seed(rows)
    size, out = 136, 72

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    x_NE, weight_FE, bias_F = normal(rows, size), normal(out * (1 + gated), size), normal(out * (1 + gated))
    norm, residual_NF = TritonNorm(normal(size), 1e-5), normal(rows, out)
    expected = x_NE.double() if plain else nn.functional.rms_norm(x_NE.double(), (size,), norm.weight_E.double(), 1e-5)
    expected = expected @ weight_FE.double().t() + (0 if plain else bias_F)
    if gated:
        a, b = expected.chunk(2, -1)
        expected = nn.functional.silu(a) * b
    linear = TritonLinear(weight_FE, None if plain else bias_F, None if plain else norm, gated=gated)
    found = linear(x_NE) if plain else linear(x_NE, residual_NF.clone())
    torch.testing.assert_close(found.double(), expected + (0 if plain else residual_NF), atol=1e-3, rtol=1e-4)


@pytest.mark.skipif(DEVICE != "cuda", reason="the engine fuses on a GPU only")
def test_the_engine_fuses(model_folders: dict[str, Path]) -> None:
    for family in ("qwen2", "qwen3", "llama", "mistral"):
        llm = LLM(model_folders[family], kv_memory=8 << 20)
        assert all("forward" in vars(layer) for layer in llm.engine.loaded.model.model.layers)
