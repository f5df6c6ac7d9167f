"""Triton kernels that take the place of a handful of small operators each. Imported only where Triton is there and used.

A decode step of few rows has nothing to compute in them, so each costs what it takes to start. They round where the operators
round that they replace.

Shape legend: M rows, N rows of the forward, H heads, S numbers in a row, D head size.
"""

import triton
import triton.language as tl


@triton.jit
def rms_norm(x_MS, weight_S, out_MS, epsilon, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """One row a program: ``weight * (x / rms(x))``, the quotient rounded to the type of x first."""
    row = tl.program_id(0).to(tl.int64) * SIZE
    place = tl.arange(0, PADDED)
    there = place < SIZE
    x = tl.load(x_MS + row + place, mask=there, other=0.0)
    x32 = x.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x32 * x32, 0) / SIZE + epsilon)
    weight = tl.load(weight_S + place, mask=there, other=0.0)
    out = weight.to(tl.float32) * (x32 * scale).to(x.dtype).to(tl.float32)
    tl.store(out_MS + row + place, out.to(x.dtype), mask=there)


@triton.jit
def silu_times(gate, up, out, count, BLOCK: tl.constexpr):
    """``silu(gate) * up``, number by number."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < count
    g = tl.load(gate + place, mask=there, other=0.0)
    g32 = g.to(tl.float32)
    silu = (g32 / (1.0 + tl.exp(-g32))).to(g.dtype).to(tl.float32)
    tl.store(out + place, (silu * tl.load(up + place, mask=there, other=0.0).to(tl.float32)).to(g.dtype), mask=there)


@triton.jit
def rotate(
    x_NHD,
    cos_ND,
    sin_ND,
    out_NHD,
    x_row,
    x_head,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
):
    """One row and head a program: rotary positions, the halves of a head being the two coordinates."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    low = tl.arange(0, HALF)
    there = low < SIZE // 2
    high = low + SIZE // 2
    x = x_NHD + row * x_row + head * x_head
    a, b = tl.load(x + low, mask=there, other=0.0), tl.load(x + high, mask=there, other=0.0)
    kind = a.dtype
    a, b = a.to(tl.float32), b.to(tl.float32)
    angle = row * SIZE
    cos_low = tl.load(cos_ND + angle + low, mask=there, other=0.0).to(tl.float32)
    cos_high = tl.load(cos_ND + angle + high, mask=there, other=0.0).to(tl.float32)
    sin_low = tl.load(sin_ND + angle + low, mask=there, other=0.0).to(tl.float32)
    sin_high = tl.load(sin_ND + angle + high, mask=there, other=0.0).to(tl.float32)
    first = (a * cos_low).to(kind).to(tl.float32) + (-b * sin_low).to(kind).to(tl.float32)
    second = (b * cos_high).to(kind).to(tl.float32) + (a * sin_high).to(kind).to(tl.float32)
    out = out_NHD + (row * HEADS + head) * SIZE
    tl.store(out + low, first.to(kind), mask=there)
    tl.store(out + high, second.to(kind), mask=there)
