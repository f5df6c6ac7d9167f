"""The engine's attention against one softmax a row, written out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AttentionInterface

from multiverse.attention.tree import TREE_ATTENTION, register, tree_attention
from multiverse.backends.base import ForwardContext
from multiverse.backends.buckets import Bucket
from multiverse.backends.kv_pool import KVPool
from multiverse.backends.torch import TorchBackend
from multiverse.errors import ModelError


def naive(query_HD: Tensor, key_UKD: Tensor, value_UKV: Tensor, visible_U: Tensor, scale: float) -> Tensor:
    """One row: softmax over the slots that it may read, head by head."""
    query, key, value = query_HD.double().numpy(), key_UKD.double().numpy(), value_UKV.double().numpy()
    slots = np.flatnonzero(visible_U.numpy())
    heads, kv_heads = query.shape[0], key.shape[1]
    out = []
    for head in range(heads):
        kv_head = head * kv_heads // heads
        weights = [math.exp(query[head] @ key[slot, kv_head] * scale) for slot in slots]
        out.append(sum(weight * value[slot, kv_head] for weight, slot in zip(weights, slots, strict=True)) / sum(weights))
    return torch.tensor(np.array(out), dtype=torch.float32)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    return {
        "seed": draw(st.integers(0, 2**31)),
        "kv_heads": kv_heads,
        "heads": kv_heads * draw(st.sampled_from([1, 2, 4])),
        "size": draw(st.sampled_from([4, 8])),
        "value_size": draw(st.sampled_from([4, 6])),
        "window": draw(st.sampled_from([None, None, 1, 2, 5])),
        # Per group its rows and slots; groups of one bucket are padded to the longest.
        "buckets": draw(
            st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=3), min_size=1, max_size=3)
        ),
    }


@given(case=cases())
@settings(max_examples=40)
def test_agrees_with_one_softmax_a_row(case: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(case["seed"])

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    slots, layer = 24, 3
    pool = KVPool(slots)
    pool.write(
        layer,
        torch.randperm(slots, generator=generator),
        normal(slots, case["kv_heads"], case["size"]),
        normal(slots, case["kv_heads"], case["value_size"]),
    )
    count = sum(rows for groups in case["buckets"] for rows, _ in groups)
    query_NHD = normal(count, case["heads"], case["size"])
    order_N = torch.randperm(count, generator=generator)
    window = case["window"]
    buckets: list[Bucket] = []
    expected_NHV = torch.full((count, case["heads"], case["value_size"]), math.nan)
    start = 0
    for groups in case["buckets"]:
        most_rows, most_slots = max(rows for rows, _ in groups), max(width for _, width in groups)
        row_GR = torch.zeros(len(groups), most_rows, dtype=torch.long)
        slot_GU = torch.zeros(len(groups), most_slots, dtype=torch.long)
        visible_GRU = torch.zeros(len(groups), most_rows, most_slots, dtype=torch.bool)
        real_GR = torch.zeros(len(groups), most_rows, dtype=torch.bool)
        row_position_GR = torch.zeros(len(groups), most_rows, dtype=torch.long)
        slot_position_GU = torch.zeros(len(groups), most_slots, dtype=torch.long)
        for g, (rows, width) in enumerate(groups):
            row_GR[g] = order_N[start]
            row_GR[g, :rows] = order_N[start : start + rows]
            slot_GU[g, :width] = torch.randperm(slots, generator=generator)[:width]
            # Every row sees at least one slot, which is its own: at its own position.
            visible_GRU[g, :rows, :width] = integers(2, rows, width).bool()
            own = integers(width, rows)
            visible_GRU[g, torch.arange(rows), own] = True
            slot_position_GU[g, :width] = integers(8, width)
            row_position_GR[g, :rows] = slot_position_GU[g, own]
            real_GR[g, :rows] = True
            visible_GRU[g, rows:] = visible_GRU[g, 0]
            row_position_GR[g, rows:] = row_position_GR[g, 0]
            for r in range(rows):
                seen_U = visible_GRU[g, r]
                if window is not None:
                    seen_U = seen_U & (row_position_GR[g, r] - slot_position_GU[g] < window)
                key_UKD, value_UKV = pool.key_SKD[layer][slot_GU[g]], pool.value_SKV[layer][slot_GU[g]]
                row = int(row_GR[g, r])
                expected_NHV[row] = naive(query_NHD[row], key_UKD, value_UKV, seen_U, 0.3)
            start += rows
        real = None if bool(real_GR.all()) else real_GR
        buckets.append(Bucket(row_GR, slot_GU, visible_GRU, real, row_position_GR, slot_position_GU))
    context = ForwardContext(pool, TorchBackend(), torch.zeros(0, dtype=torch.long), buckets)
    out_NHV = context.backend.attend(query_NHD, layer, context, 0.3, window)
    assert out_NHV.shape == expected_NHV.shape
    torch.testing.assert_close(out_NHV, expected_NHV, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 2])
def test_a_bucket_without_a_mask_reads_every_slot(window: int | None) -> None:
    # One decode token in each of two requests that have read 4 tokens each: nothing is padded, nothing is hidden.
    torch.manual_seed(0)
    pool = KVPool(8)
    pool.write(0, torch.arange(8), torch.randn(8, 2, 4), torch.randn(8, 2, 4))
    query_NHD = torch.randn(2, 4, 4)
    slot_GU = torch.tensor([[0, 2, 4, 6], [7, 5, 3, 1]])
    position_GU = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    bucket = Bucket(torch.tensor([[0], [1]]), slot_GU, None, None, torch.tensor([[3], [3]]), position_GU)
    context = ForwardContext(pool, TorchBackend(), torch.zeros(0, dtype=torch.long), [bucket])
    out_NHV = context.backend.attend(query_NHD, 0, context, 0.5, window)
    for row in range(2):
        seen_U = torch.ones(4, dtype=torch.bool) if window is None else torch.tensor([False, False, True, True])
        slots = slot_GU[row]
        expected = naive(query_NHD[row], pool.key_SKD[0][slots], pool.value_SKV[0][slots], seen_U, 0.5)
        torch.testing.assert_close(out_NHV[row], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("window", [None, 2])
def test_slots_in_a_row_are_not_gathered(first: int, window: int | None) -> None:
    # One request alone, whose slots follow each other: a slice of the pool will do, and rows stay where they are.
    torch.manual_seed(0)
    pool = KVPool(9)
    pool.write(0, torch.arange(9), torch.randn(9, 2, 4), torch.randn(9, 2, 3))
    query_NHD = torch.randn(2, 4, 4)
    slot_U, position_R = torch.arange(first, first + 5), torch.tensor([3, 4])
    visible_RU = torch.arange(5)[None] <= position_R[:, None]
    bucket = Bucket(torch.tensor([[0, 1]]), slot_U[None], visible_RU[None], None, position_R[None], torch.arange(5)[None])
    context = ForwardContext(pool, TorchBackend(), slot_U[-2:], [bucket])
    (plan,) = context.bucket_plans
    assert plan.in_order
    assert plan.first_slot == first
    assert plan.gather(pool.key_SKD[0]).data_ptr() == pool.key_SKD[0][first].data_ptr()
    out_NHV = context.backend.attend(query_NHD, 0, context, 0.5, window)
    for row in range(2):
        seen_U = visible_RU[row] if window is None else visible_RU[row] & (position_R[row] - torch.arange(5) < window)
        expected = naive(query_NHD[row], pool.key_SKD[0][slot_U], pool.value_SKV[0][slot_U], seen_U, 0.5)
        torch.testing.assert_close(out_NHV[row], expected, atol=1e-6, rtol=1e-5)


def test_the_pool_takes_its_shapes_from_the_first_write() -> None:
    pool = KVPool(5)
    assert pool.bytes_per_slot == 0
    slot_N = torch.tensor([3, 1])
    key_NKD, value_NKV = torch.arange(12.0).reshape(2, 2, 3), torch.arange(8.0).reshape(2, 2, 2)
    pool.write(0, slot_N, key_NKD, value_NKV)
    pool.write(7, slot_N, key_NKD.bfloat16(), value_NKV.bfloat16())
    assert pool.key_SKD[0].shape == (5, 2, 3)
    assert pool.value_SKV[0].shape == (5, 2, 2)
    assert pool.key_SKD[7].dtype == torch.bfloat16
    assert torch.equal(pool.key_SKD[0][slot_N], key_NKD)
    assert torch.equal(pool.value_SKV[0][slot_N], value_NKV)
    assert pool.bytes_per_slot == (2 * 3 + 2 * 2) * (4 + 2)
    pool.write(0, torch.tensor([1]), -key_NKD[:1], -value_NKV[:1])
    assert torch.equal(pool.key_SKD[0][slot_N], torch.stack([key_NKD[0], -key_NKD[0]]))


def one_row_context() -> ForwardContext:
    zero = torch.zeros(1, dtype=torch.long)
    return ForwardContext(KVPool(2), TorchBackend(), zero, [Bucket(zero[None], zero[None], None, None, zero[None], zero[None])])


def call(**kwargs: Any) -> tuple[Tensor, None]:
    module: Any = SimpleNamespace(layer_idx=4)
    return tree_attention(module, torch.ones(1, 2, 1, 4), torch.ones(1, 1, 1, 4), torch.full((1, 1, 1, 3), 5.0), None, **kwargs)


def test_the_function_transformers_calls() -> None:
    context = one_row_context()
    out, weights = call(tree_context=context)
    assert weights is None
    assert out.shape == (1, 1, 2, 3)
    assert torch.equal(out, torch.full((1, 1, 2, 3), 5.0))
    assert context.layers == {4}
    assert torch.equal(context.pool.value_SKV[4][0], torch.full((1, 3), 5.0))


def test_without_a_context_it_refuses() -> None:
    with pytest.raises(ModelError, match="inside the engine only"):
        call()


@pytest.mark.parametrize("name", ["softcap", "s_aux"])
def test_what_it_cannot_compute_it_refuses_by_name(name: str) -> None:
    context = one_row_context()
    with pytest.raises(ModelError, match=f"SimpleNamespace uses '{name}'"):
        call(tree_context=context, **{name: 30.0})
    call(tree_context=context, **{name: None})


def test_registration() -> None:
    assert register() == TREE_ATTENTION
    assert AttentionInterface()[TREE_ATTENTION] is tree_attention
