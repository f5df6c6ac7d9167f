"""Triton kernels of a fused layer. Imported only where Triton is used.

A decode step of few rows is bound by reading the weights and by launching kernels. So a linear layer includes the operators
before and after it (norm, bias, gate, residual), and for one row, where launches are most of the rest, kernels overlap: with
`EARLY` a kernel starts while the previous one still runs, reads what does not depend on it (its weights), and waits before it
reads anything else ("programmatic dependent launch", CUDA C++
Programming Guide, chapter 4.5; Hopper and later).

Shape legend: M rows, E inputs and F outputs of the linear layer, O outputs after the gate (half of F, else F),
N rows of the forward, H query heads, K key/value heads, D head size, S slots.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def rms_norm(x_ME, weight_E, out_ME, epsilon, SIZE: tl.constexpr, PADDED: tl.constexpr, EARLY: tl.constexpr):
    """One row per program: ``weight * (x / rms(x))``, the quotient rounded to the type of x first."""
    row = tl.program_id(0).to(tl.int64) * SIZE
    place = tl.arange(0, PADDED)
    there = place < SIZE
    weight = tl.load(weight_E + place, mask=there, other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    x = tl.load(x_ME + row + place, mask=there, other=0.0)
    x32 = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x32 * x32, 0) / SIZE + epsilon)
    out = weight.to(tl.float32) * (x32 * scale).to(x.dtype).to(tl.float32)
    tl.store(out_ME + row + place, out.to(x.dtype), mask=there)


@triton.jit
def gate(both_MF, out_MO, OUT: tl.constexpr, BLOCK: tl.constexpr):
    """``silu(a) * b``, where a is the first half of a row and b the second."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = place < OUT
    a = tl.load(both_MF + row * 2 * OUT + place, mask=there, other=0.0)
    b = tl.load(both_MF + row * 2 * OUT + OUT + place, mask=there, other=0.0)
    tl.store(out_MO + row * OUT + place, _gated(a.to(tl.float32), b.to(tl.float32)).to(a.dtype), mask=there)


@triton.jit
def _gated(a, b):
    return a / (1.0 + tl.exp(-a)) * b


@triton.jit
def gemv(
    x_ME,
    weight_FE,
    bias_F,
    norm_E,
    residual_MO,
    out_MO,
    epsilon,
    SIZE: tl.constexpr,
    OUT: tl.constexpr,
    BIASED: tl.constexpr,
    NORMED: tl.constexpr,
    GATED: tl.constexpr,
    ADDED: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_E: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One input row: a few outputs per program, summed in fp32 without tensor cores."""
    line = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    feature = _feature(line, OUT, GATED)
    real = feature < (2 * OUT if GATED else OUT)
    place = tl.arange(0, BLOCK_E)
    row_F1 = weight_FE + feature.to(tl.int64)[:, None] * SIZE
    weight = tl.load(row_F1 + place[None, :], mask=real[:, None] & (place < SIZE)[None, :], other=0.0)
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    total = tl.zeros((BLOCK_F, BLOCK_E), tl.float32)
    squares = tl.zeros((BLOCK_E,), tl.float32)
    for start in range(0, SIZE, BLOCK_E):
        if start > 0:
            there = start + place < SIZE
            weight = tl.load(row_F1 + (start + place)[None, :], mask=real[:, None] & there[None, :], other=0.0)
        x = tl.load(x_ME + start + place, mask=start + place < SIZE, other=0.0).to(tl.float32)
        if NORMED:
            squares += x * x
            x *= tl.load(norm_E + start + place, mask=start + place < SIZE, other=0.0).to(tl.float32)
        total += weight.to(tl.float32) * x[None, :]
    out = tl.sum(total, 1)
    if NORMED:
        out *= 1.0 / tl.sqrt(tl.sum(squares, 0) / SIZE + epsilon)
    if BIASED:
        out += tl.load(bias_F + feature, mask=real, other=0.0).to(tl.float32)
    if GATED:
        first, second = tl.split(tl.reshape(out, (BLOCK_F // 2, 2)))
        out = _gated(first, second)
        line = tl.program_id(0) * (BLOCK_F // 2) + tl.arange(0, BLOCK_F // 2)
    if ADDED:
        out += tl.load(residual_MO + line, mask=line < OUT, other=0.0).to(tl.float32)
    tl.store(out_MO + line, out.to(out_MO.dtype.element_ty), mask=line < OUT)


@triton.jit
def small_gemm(
    x_ME,
    weight_FE,
    bias_F,
    residual_MO,
    out_MO,
    rows,
    SIZE: tl.constexpr,
    OUT: tl.constexpr,
    BIASED: tl.constexpr,
    GATED: tl.constexpr,
    ADDED: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """16 input rows, the least that a tensor core takes, per program of the second axis: the same for any number of them.

    The norm is a kernel of its own: here it would cost more.
    """
    line = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    feature = _feature(line, OUT, GATED)
    real = feature < (2 * OUT if GATED else OUT)
    row_F1 = weight_FE + feature.to(tl.int64)[:, None] * SIZE
    place, lane = tl.arange(0, BLOCK_E), tl.program_id(1) * 16 + tl.arange(0, 16)
    total = tl.zeros((BLOCK_F, 16), tl.float32)
    for start in range(0, SIZE, BLOCK_E):
        there = start + place < SIZE
        weight = tl.load(row_F1 + (start + place)[None, :], mask=real[:, None] & there[None, :], other=0.0)
        seen = there[:, None] & (lane < rows)[None, :]
        x = tl.load(x_ME + lane[None, :] * SIZE + (start + place)[:, None], mask=seen, other=0.0)
        total = tl.dot(weight, x, total, input_precision="ieee")
    if BIASED:
        total += tl.load(bias_F + feature, mask=real, other=0.0).to(tl.float32)[:, None]
    if GATED:
        first, second = tl.split(tl.permute(tl.reshape(total, (BLOCK_F // 2, 2, 16)), (0, 2, 1)))
        total = _gated(first, second)
        line = tl.program_id(0) * (BLOCK_F // 2) + tl.arange(0, BLOCK_F // 2)
    at = lane[None, :] * OUT + line[:, None]
    kept = (line < OUT)[:, None] & (lane < rows)[None, :]
    if ADDED:
        total += tl.load(residual_MO + at, mask=kept, other=0.0).to(tl.float32)
    tl.store(out_MO + at, total.to(out_MO.dtype.element_ty), mask=kept)


@triton.jit
def _feature(line, OUT: tl.constexpr, GATED: tl.constexpr):
    """The weight row of an output line: with a gate, lines alternate between the two halves."""
    if GATED:
        return line // 2 + (line % 2) * OUT
    return line


@triton.jit
def rotate_and_store(
    qkv_NF,
    cos_ND,
    sin_ND,
    query_norm_D,
    key_norm_D,
    slot_N,
    query_NHD,
    key_SKD,
    value_SKD,
    epsilon,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
    NORMED: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One row and head per program: (norm and) rotate a query or a key; write a key or a value to its slot."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    low = tl.arange(0, HALF)
    there = low < SIZE // 2
    high = low + SIZE // 2
    x = qkv_NF + (row * (HEADS + 2 * KV_HEADS) + head) * SIZE
    a, b = tl.load(x + low, mask=there, other=0.0), tl.load(x + high, mask=there, other=0.0)
    kind = a.dtype
    slot = tl.load(slot_N + row)
    if head >= HEADS + KV_HEADS:
        place = value_SKD + (slot * KV_HEADS + head - HEADS - KV_HEADS) * SIZE
    else:
        if head >= HEADS:  # noqa: SIM108  (Triton knows no pointer that is one thing or another in one expression)
            place = key_SKD + (slot * KV_HEADS + head - HEADS) * SIZE
        else:
            place = query_NHD + (row * HEADS + head) * SIZE
        a, b = a.to(tl.float32), b.to(tl.float32)
        if NORMED:
            scale = 1.0 / tl.sqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / SIZE + epsilon)
            if head >= HEADS:
                weight_low = tl.load(key_norm_D + low, mask=there, other=0.0)
                weight_high = tl.load(key_norm_D + high, mask=there, other=0.0)
            else:
                weight_low = tl.load(query_norm_D + low, mask=there, other=0.0)
                weight_high = tl.load(query_norm_D + high, mask=there, other=0.0)
            a = ((a * scale).to(kind).to(tl.float32) * weight_low.to(tl.float32)).to(kind).to(tl.float32)
            b = ((b * scale).to(kind).to(tl.float32) * weight_high.to(tl.float32)).to(kind).to(tl.float32)
        angle = row * SIZE
        cos_low = tl.load(cos_ND + angle + low, mask=there, other=0.0).to(tl.float32)
        cos_high = tl.load(cos_ND + angle + high, mask=there, other=0.0).to(tl.float32)
        sin_low = tl.load(sin_ND + angle + low, mask=there, other=0.0).to(tl.float32)
        sin_high = tl.load(sin_ND + angle + high, mask=there, other=0.0).to(tl.float32)
        first = (a * cos_low).to(kind).to(tl.float32) + (-b * sin_low).to(kind).to(tl.float32)
        second = (b * cos_high).to(kind).to(tl.float32) + (a * sin_high).to(kind).to(tl.float32)
        a, b = first.to(kind), second.to(kind)
    tl.store(place + low, a, mask=there)
    tl.store(place + high, b, mask=there)
