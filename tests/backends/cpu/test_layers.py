"""Layers on the native CPU kernels against the modules that they replace."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from multiverse.attention.tree import register
from multiverse.backends.base import ForwardContext
from multiverse.backends.buckets import Bucket
from multiverse.backends.cpu.build import kernels
from multiverse.backends.cpu.layers import NativeFusedLinear, NativeKernels
from multiverse.backends.fused_layers import fuse_layers
from multiverse.backends.kv_pool import KVPool
from multiverse.backends.torch import TorchBackend
from tests.backends.cpu.test_kernels import SHAPE, model_of

LIBRARY: Any = kernels()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no compiler, or a processor without AVX-512 for bfloat16")


def ready(model: Any) -> Any:
    """A model whose attention is the engine's."""
    model.set_attn_implementation(register())
    return model


@torch.inference_mode()
def logits(model: Any, rows: int) -> tuple[Tensor, KVPool]:
    """Of one causal line of rows, and their keys and values."""
    ids = torch.randint(1, 90, (1, rows), generator=torch.Generator().manual_seed(1))
    order, visible = torch.arange(rows), torch.ones(1, rows, rows, dtype=torch.bool).tril()
    pool = KVPool(rows)
    context = ForwardContext(
        pool, TorchBackend(), order.flip(0), [Bucket(order[None], order[None].flip(1), visible, None, order[None], order[None])]
    )
    return model(ids, position_ids=order[None], use_cache=False, tree_context=context).logits[0].float(), pool


def fused(model: Any) -> int:
    return fuse_layers(model, NativeKernels(LIBRARY))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_fused_model_is_as_near_to_float32_as_before(family: str) -> None:
    model = ready(model_of(family))
    exact = ready(copy.deepcopy(model).float())
    sizes = (1, 2, 5, 17, LIBRARY.multiverse_rows() + 1)
    before = {rows: logits(model, rows) for rows in sizes}
    assert fused(model) == 2
    for rows in sizes:
        (expected, _), (theirs, pool), (found, own) = logits(exact, rows), before[rows], logits(model, rows)
        assert (found - expected).abs().mean() <= 1.5 * (theirs - expected).abs().mean() + 1e-3
        torch.testing.assert_close(own.value_SKV[0], pool.value_SKV[0], atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(own.key_SKD[0], pool.key_SKD[0], atol=4e-2, rtol=4e-2)


def test_biases_of_queries_keys_and_values() -> None:
    torch.manual_seed(0)
    shape = {**SHAPE, "hidden_size": 128}
    model = Qwen2ForCausalLM(Qwen2Config(**{key: value for key, value in shape.items() if key != "head_dim"})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    model = ready(model.bfloat16())
    theirs, _ = logits(model, 6)
    assert fused(model) == 2
    torch.testing.assert_close(logits(model, 6)[0], theirs, atol=5e-2, rtol=5e-2)


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    model = ready(model_of("llama"))
    fused(model)
    layer, few = model.model.layers[0], LIBRARY.multiverse_rows()
    x_NE = torch.randn(few, 64).bfloat16()
    with torch.inference_mode():
        for linear in layer.forward.__self__.linears:
            wide = x_NE if linear.size == 64 else torch.randn(few, linear.size).bfloat16()
            whole = linear(wide)
            for rows in (1, 3, 8, 12, 16):
                assert torch.equal(linear(wide[:rows]), whole[:rows])


def test_weights_stay_where_the_modules_have_them() -> None:
    model = ready(model_of("qwen3"))
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    fused(model)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    attention = model.model.layers[0].self_attn
    storages = {module.weight.untyped_storage().data_ptr() for module in (attention.q_proj, attention.k_proj, attention.v_proj)}
    assert len(storages) == 1


@pytest.mark.parametrize(
    ("family", "why"),
    [("qwen2", "do not support these heads"), ("gemma", "its MLP differs"), ("olmo2", "input_layernorm")],
)
def test_unsupported_layers_are_not_replaced(family: str, why: str, caplog: pytest.LogCaptureFixture) -> None:
    model = ready(model_of(family))
    theirs, _ = logits(model, 4)
    with caplog.at_level(logging.INFO, logger="multiverse.backends.fused_layers"):
        assert fused(model) == 0
    assert why in caplog.text
    assert torch.equal(logits(model, 4)[0], theirs)


def test_other_types_and_gates_with_biases_are_refused() -> None:
    for weight, bias in ((torch.zeros(8, 4), None), (torch.zeros(8, 4).bfloat16(), torch.zeros(8).bfloat16())):
        with pytest.raises(ValueError, match="do not support this linear layer"):
            NativeFusedLinear(weight, bias, None, LIBRARY, gated=True)


def test_a_residual_that_lies_elsewhere() -> None:
    weight, x_NE = torch.randn(48, 64).bfloat16(), torch.randn(3, 64).bfloat16()
    linear = NativeFusedLinear(weight, None, None, LIBRARY, gated=False)
    residual = torch.randn(48, 3).bfloat16().T
    with torch.inference_mode():
        expected = linear(x_NE) + residual
        assert torch.equal(linear(x_NE, residual), expected)
        many = torch.randn(LIBRARY.multiverse_rows() + 2, 64).bfloat16()
        torch.testing.assert_close(linear(many, linear(many)), 2 * nn.functional.linear(many, weight), rtol=1e-2, atol=1e-2)
