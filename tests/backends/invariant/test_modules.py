"""Linear layers, activations and rotary embeddings whose rows do not depend on the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from multiverse.backends.cpu.build import kernels
from multiverse.backends.cpu.modules import NativeLinear
from multiverse.backends.invariant.linears import InvariantLinear, _trial, agreeing_sizes, invariant_linear
from multiverse.backends.invariant.modules import InvariantActivation, InvariantRotary, elementwise, make_invariant

SHAPES = [(576, 960), (576, 1536), (1536, 576), (96, 50), (33, 17), (896, 128)]
"""Inputs and outputs; the third is one that float32 rows of one and of more differ in, on processors with AVX-512."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_a_linear_layer_gives_a_row_the_same_bits_in_every_batch(
    dtype: torch.dtype, pack: bool, inputs: int, outputs: int
) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs).to(dtype)
    x_MK = torch.randn(150, inputs).to(dtype)
    with torch.inference_mode():
        expected_MN = plain(x_MK)
        linear = invariant_linear(plain, pack=pack)
        found_MN = linear(x_MK)
        torch.testing.assert_close(found_MN, expected_MN, rtol=2e-2, atol=2e-2)
        for rows in (1, 2, 3, 5, 8, 13, 16, 31, 64, 100, 129):
            for start in {0, 1, 7, 150 - rows}:
                part_MK = x_MK[start : start + rows]
                assert torch.equal(linear(part_MK[None])[0], found_MN[start : start + rows]), (rows, start)


@pytest.mark.skipif(kernels() is None, reason="no compiler, or a processor without AVX-512 for bfloat16")
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_native_rows_are_the_same_in_every_batch_however_many(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    library: Any = kernels()
    linear = NativeLinear(nn.Linear(inputs, outputs).bfloat16(), library, invariant=True)
    x_MK = torch.randn(300, inputs).bfloat16()
    with torch.inference_mode():
        found_MN = linear(x_MK)
        for rows in (1, 2, 5, 16, 33, 128, 129, 257):
            for start in {0, 1, 300 - rows}:
                assert torch.equal(linear(x_MK[start : start + rows]), found_MN[start : start + rows]), (rows, start)


def test_sizes_that_disagree_are_not_used() -> None:
    weight_NK = torch.randn(7, 40, generator=torch.Generator().manual_seed(0))
    base_MK = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))

    def apply(x_MK: Tensor) -> Tensor:
        """Sums in another order for one row, for more than 12, and in the second of every five rows of 10."""
        parts = [(row_K * weight_NK).unbind(1) for row_K in x_MK]
        orders = [len(x_MK) == 1 or len(x_MK) > 12 or (len(x_MK) == 10 and i % 5 == 1) for i in range(len(x_MK))]
        sums = [sum(reversed(part) if other else part) for part, other in zip(parts, orders, strict=True)]
        return torch.stack([torch.as_tensor(one) for one in sums])

    assert agreeing_sizes(apply, base_MK, (1, 2, 3, 4, 8, 10, 12, 14)) == (2, 3, 4, 8, 12)


def test_a_trial_shows_an_order_that_ordinary_numbers_in_16_bits_hide() -> None:
    linear = nn.Linear(1024, 64).bfloat16()
    with torch.inference_mode():
        trial, base_MK = _trial(linear)
        sums = [
            (
                base_MK.float() @ trial.weight.float().t()
                if whole
                else sum(
                    a.float() @ b.float().t() for a, b in zip(base_MK.split(512, 1), trial.weight.split(512, 1), strict=True)
                )
            ).bfloat16()
            for whole in (True, False)
        ]
        assert (sums[0] != sums[1]).float().mean() > 0.5
        assert trial(base_MK).float().abs().max() < 1e-3


def test_elements_do_not_depend_on_their_place() -> None:
    x = torch.randn(70_001, generator=torch.Generator().manual_seed(0)) * 4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for function in (torch.exp, torch.nn.functional.silu, torch.cos):
            whole = elementwise(function, x)
            torch.testing.assert_close(whole, function(x))
            for start, end in ((0, 1), (5, 6), (17, 50), (40_000, 70_001), (70_000, 70_001)):
                assert torch.equal(elementwise(function, x[start:end]), whole[start:end])
    finally:
        torch.set_num_threads(before)


def rotary() -> LlamaRotaryEmbedding:
    parameters = {"rope_type": "default", "rope_theta": 10000.0}
    config = LlamaConfig(hidden_size=48, num_attention_heads=4, max_position_embeddings=64, rope_parameters=parameters)
    return LlamaRotaryEmbedding(config)


def test_angles_do_not_depend_on_the_other_positions() -> None:
    plain = rotary()
    found, x = InvariantRotary(plain), torch.zeros(1, 1, 48)
    position_ids = torch.arange(3001)[None]
    cos, sin = found(x, position_ids)
    expected_cos, expected_sin = plain(x, position_ids)
    torch.testing.assert_close(cos, expected_cos)
    torch.testing.assert_close(sin, expected_sin)
    for start, end in ((0, 1), (7, 8), (100, 133), (3000, 3001)):
        part = found(x, position_ids[:, start:end])
        assert torch.equal(part[0], cos[:, start:end])
        assert torch.equal(part[1], sin[:, start:end])


def test_a_module_with_two_names_is_replaced_in_both_places() -> None:
    linear, activation = nn.Linear(4, 4), nn.SiLU()
    model = nn.Sequential(linear, activation, linear, activation)
    x = torch.randn(2, 4)
    expected = model(x)
    make_invariant(model)
    assert isinstance(model[0], InvariantLinear)
    assert model[2] is model[0]
    assert isinstance(model[1], InvariantActivation)
    assert model[3] is model[1]
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)
