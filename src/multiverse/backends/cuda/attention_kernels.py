"""Triton kernels of the attention (see `plan.py` for segments, tiles and partials). Imported only where Triton is used.

Kernels are compiled for the device at their first launch; with ``TRITON_INTERPRET=1`` set before the import they run on the
CPU. Scores are in base 2, the exponential that GPUs have.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size, V head size of values, S slots, P partials.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def attend_tiles(
    query_NHD,
    key_SKD,
    value_SKV,
    partial_PHV,
    lse_PH,
    slots,
    entries,
    tiles,
    count,
    scale_log2,
    query_row,
    query_head,
    key_slot,
    key_head,
    value_slot,
    value_head,
    HEADS: tl.constexpr,
    FOLDS: tl.constexpr,
    SIZE: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    PADDED: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Each program computes every `num_programs`-th tile, for one key/value head: its rows over its slots, which are read once.

    A lane is one query head of one row: all heads that share the key/value head, of as many rows as fit.
    """
    if EARLY:  # overlaps with the end of the previous kernel (see `layer_kernels.py`)
        gdc_wait()
        gdc_launch_dependents()
    kv_head = tl.program_id(1)
    lane = tl.arange(0, LANES)
    row_in_tile, head = lane // FOLDS, kv_head * FOLDS + lane % FOLDS
    dim, value_dim = tl.arange(0, PADDED), tl.arange(0, VALUE_PADDED)
    for number in range(tl.program_id(0), tl.load(count), tl.num_programs(0)):
        tile = tiles + number * 5
        first_entry, rows = tl.load(tile), tl.load(tile + 1)
        first, end, first_partial = tl.load(tile + 2), tl.load(tile + 3), tl.load(tile + 4)
        real = row_in_tile < rows
        entry = entries + (first_entry + row_in_tile) * 3
        row = tl.load(entry, mask=real, other=0).to(tl.int64)
        begin = tl.load(entry + 1, mask=real, other=0)
        stop = tl.load(entry + 2, mask=real, other=0)
        query = tl.load(
            query_NHD + (row * query_row + head * query_head)[:, None] + dim[None, :],
            mask=real[:, None] & (dim < SIZE)[None, :],
            other=0.0,
        )
        peak = tl.full((LANES,), float("-inf"), tl.float32)
        total = tl.zeros((LANES,), tl.float32)
        out = tl.zeros((LANES, VALUE_PADDED), tl.float32)
        for start in range(first, end, BLOCK):
            index = start + tl.arange(0, BLOCK)
            there = index < end
            slot = tl.load(slots + index, mask=there, other=0).to(tl.int64)
            key = tl.load(
                key_SKD + (slot * key_slot + kv_head * key_head)[None, :] + dim[:, None],
                mask=there[None, :] & (dim < SIZE)[:, None],
                other=0.0,
            )
            score = tl.dot(query, key, input_precision="ieee") * scale_log2
            seen = (index[None, :] >= begin[:, None]) & (index[None, :] < stop[:, None]) & there[None, :]
            score = tl.where(seen, score, float("-inf"))
            new_peak = tl.maximum(peak, tl.max(score, 1))
            base = tl.where(new_peak == float("-inf"), 0.0, new_peak)  # where nothing has been seen yet
            weight = tl.exp2(score - base[:, None])
            fade = tl.exp2(peak - base)
            total = total * fade + tl.sum(weight, 1)
            value = tl.load(
                value_SKV + (slot * value_slot + kv_head * value_head)[:, None] + value_dim[None, :],
                mask=there[:, None] & (value_dim < VALUE_SIZE)[None, :],
                other=0.0,
            )
            out = tl.dot(weight.to(value.dtype), value, out * fade[:, None], input_precision="ieee")
            peak = new_peak
        some = total > 0
        out = out / tl.where(some, total, 1.0)[:, None]
        lse = tl.where(some, peak + tl.log2(tl.where(some, total, 1.0)), float("-inf"))
        partial = (first_partial + row_in_tile).to(tl.int64) * HEADS + head
        tl.store(
            partial_PHV + partial[:, None] * VALUE_SIZE + value_dim[None, :],
            out,
            mask=real[:, None] & (value_dim < VALUE_SIZE)[None, :],
        )
        tl.store(lse_PH + partial, lse, mask=real)


@triton.jit
def merge_partials(
    partial_PHV,
    lse_PH,
    out_NHV,
    partials,
    offsets,
    HEADS: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE_PADDED: tl.constexpr,
    PARTIALS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row and head: its partials, each weighted by its share of the softmax. A row without partials gets zeros."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    row, head = tl.program_id(0), tl.program_id(1)
    dim = tl.arange(0, VALUE_PADDED)
    peak = float("-inf")
    total = 0.0
    out = tl.zeros((VALUE_PADDED,), tl.float32)
    end = tl.load(offsets + row + 1)
    for first in range(tl.load(offsets + row), end, PARTIALS):
        number = first + tl.arange(0, PARTIALS)
        there = number < end
        partial = tl.load(partials + number, mask=there, other=0).to(tl.int64) * HEADS + head
        lse = tl.load(lse_PH + partial, mask=there, other=float("-inf"))
        value = tl.load(
            partial_PHV + partial[:, None] * VALUE_SIZE + dim[None, :],
            mask=there[:, None] & (dim < VALUE_SIZE)[None, :],
            other=0.0,
        )
        new_peak = tl.maximum(peak, tl.max(lse, 0))
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        fade, weight = tl.exp2(peak - base), tl.exp2(lse - base)
        out = out * fade + tl.sum(value * weight[:, None], 0)
        total = total * fade + tl.sum(weight, 0)
        peak = new_peak
    out = out / tl.where(total > 0, total, 1.0)
    place = out_NHV + (row.to(tl.int64) * HEADS + head) * VALUE_SIZE
    tl.store(place + dim, out.to(out_NHV.dtype.element_ty), mask=dim < VALUE_SIZE)
