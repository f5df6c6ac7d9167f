"""Matrices in 8 or 4 bits: codes in blocks along their inputs, each block with a scale and perhaps a minimum.

A number is ``scale * (code - zero)``, where zero is half the range of codes, or ``scale * code + minimum``. Codes lie as the
kernels read them, sixteen rows side by side (see quantised.cpp).

Shape legend: N rows (outputs), K columns (inputs), B blocks of 32 columns, P scales in a block of 32 (two, if a block has 16),
S scales in a row (B times P), G groups of 16 rows, Q rows of four codes in a block (8, or 4 in 4 bits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

GROUP, BLOCK, _FOUR = 16, 32, 4
Bits = Literal[8, 4]

_CANDIDATES = (8.0, 7.4, 8.6, 7.0)
"""How many steps the largest number of a block may be away from zero, in 4 bits: the best of them is taken."""


@dataclass(frozen=True, eq=False)
class QuantisedWeight:
    """A matrix, where a plain linear layer has a tensor.

    Attributes:
        codes_GBQ64: bytes of the codes.
        scales_GS16, mins_GS16: in half precision; without minimums codes are around zero.
        shape: N and K.
        bits: of a code.
        block: columns with one scale: 32 or 16.
        dtype: of the layer's inputs and outputs.
    """

    codes_GBQ64: Tensor
    scales_GS16: Tensor
    mins_GS16: Tensor | None
    shape: tuple[int, int]
    bits: Bits
    block: int
    dtype: torch.dtype

    device = torch.device("cpu")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(part.nbytes for part in (self.codes_GBQ64, self.scales_GS16, self.mins_GS16) if part is not None)

    def rows(self, index_N: Tensor) -> Tensor:
        """These rows as float32 numbers [..., K]."""
        groups, blocks = self.codes_GBQ64.shape[:2]
        group, row, parts = index_N // GROUP, index_N % GROUP, BLOCK // self.block
        codes = self.codes_GBQ64.view(groups, blocks, -1, GROUP, _FOUR)[group, :, :, row]
        if self.bits == 4:
            codes = torch.cat([codes & 15, codes >> 4], -2)
        codes = codes.flatten(-2).unflatten(-1, (parts, self.block))
        scales = self._parts(self.scales_GS16, group, row)
        mins = -self.zero * scales if self.mins_GS16 is None else self._parts(self.mins_GS16, group, row)
        numbers: Tensor = torch.addcmul(mins, codes, scales).flatten(-3)[..., : self.shape[1]]
        return numbers

    def _parts(self, values_GS16: Tensor, group: Tensor, row: Tensor) -> Tensor:
        own = values_GS16[group, :, row].float()
        parts: Tensor = own.unflatten(-1, (-1, BLOCK // self.block))[..., None]
        return parts

    def dequantised(self) -> Tensor:
        """All of it as float32 numbers [N, K]."""
        return self.rows(torch.arange(len(self)))

    @property
    def zero(self) -> int:
        """The code of zero, without minimums."""
        return 1 << (self.bits - 1)

    def split(self, sizes: Sequence[int]) -> list[Self]:
        """Consecutive rows, as views. All sizes but the last are multiples of 16."""
        views, begin = [], 0
        for size in sizes:
            from_, to = begin // GROUP, -(-(begin + size) // GROUP)
            mins = None if self.mins_GS16 is None else self.mins_GS16[from_:to]
            codes, scales = self.codes_GBQ64[from_:to], self.scales_GS16[from_:to]
            views.append(replace(self, codes_GBQ64=codes, scales_GS16=scales, mins_GS16=mins, shape=(size, self.shape[1])))
            begin += size
        return views

    def alike(self, other: QuantisedWeight) -> bool:
        """Whether the two have one format, and as many columns."""
        forms = [(one.shape[1], one.bits, one.block, one.dtype, one.mins_GS16 is None) for one in (self, other)]
        return forms[0] == forms[1]


def concatenated(weights: Sequence[QuantisedWeight]) -> QuantisedWeight:
    """The rows of all.

    Raises:
        ValueError: they are of several formats, or groups of rows would be cut.
    """
    first = weights[0]
    if not all(first.alike(other) for other in weights) or any(len(weight) % GROUP for weight in weights):
        raise ValueError("these quantised weights cannot be put together")
    mins = [weight.mins_GS16 for weight in weights]
    return replace(
        first,
        codes_GBQ64=torch.cat([weight.codes_GBQ64 for weight in weights]),
        scales_GS16=torch.cat([weight.scales_GS16 for weight in weights]),
        mins_GS16=None if mins[0] is None else torch.cat([part for part in mins if part is not None]),
        shape=(sum(map(len, weights)), first.shape[1]),
    )


def packed(
    codes_NK: Tensor, scales_NS: Tensor, mins_NS: Tensor | None, *, bits: Bits, dtype: torch.dtype, columns: int | None = None
) -> QuantisedWeight:
    """A matrix in the order of the kernels.

    Args:
        codes_NK: uint8; K is a multiple of 32.
        scales_NS, mins_NS: S is K divided by 32 or 16.
        columns: real ones, if some at the end are padding.
    """
    rows, padded = codes_NK.shape
    more = -rows % GROUP
    groups, blocks = (rows + more) // GROUP, padded // BLOCK
    codes = torch.nn.functional.pad(codes_NK, (0, 0, 0, more)).view(groups, GROUP, blocks, BLOCK // _FOUR, _FOUR)
    codes = codes.permute(0, 2, 3, 1, 4)
    if bits == 4:
        codes = codes[:, :, :4] | (codes[:, :, 4:] << 4)
    scales, mins = (None if part is None else _grouped(part, more) for part in (scales_NS, mins_NS))
    assert scales is not None
    shape = rows, padded if columns is None else columns
    codes = codes.contiguous().view(groups, blocks, -1, GROUP * _FOUR)
    return QuantisedWeight(codes, scales, mins, shape, bits, padded // scales_NS.shape[1], dtype)


def _grouped(values_NS: Tensor, more: int) -> Tensor:
    padded = torch.nn.functional.pad(values_NS.half(), (0, 0, 0, more))
    return padded.view(-1, GROUP, padded.shape[1]).transpose(1, 2).contiguous()


def quantised(weight_NK: Tensor, bits: Bits) -> QuantisedWeight:
    """A matrix rounded to codes around zero, in blocks of 32 columns.

    In 8 bits the largest number of a block is 127 steps away from zero. In 4 bits it is about 8, with its sign on the side that
    has one code more, and of a few scales the one with the least square error is taken.
    """
    columns = weight_NK.shape[1]
    parts = [_coded(part, bits) for part in weight_NK.split(max(1, (1 << 22) // columns))]
    codes_NK, scales_NB = (torch.cat(each) for each in zip(*parts, strict=True))
    return packed(codes_NK, scales_NB, None, bits=bits, dtype=weight_NK.dtype, columns=columns)


def _coded(weight_NK: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    padded = torch.nn.functional.pad(weight_NK.detach().float(), (0, -weight_NK.shape[1] % BLOCK))
    blocks_NBI = padded.unflatten(1, (-1, BLOCK))
    if bits == 8:
        scales_NB = (blocks_NBI.abs().amax(-1) / 127).half()
        return _codes(blocks_NBI, scales_NB, 8).flatten(1), scales_NB
    largest_NB = blocks_NBI.gather(-1, blocks_NBI.abs().argmax(-1, keepdim=True))[..., 0]
    best_NBI, best_NB, least_NB = None, None, None
    for steps in _CANDIDATES:
        scales_NB = (largest_NB / -steps).half()
        codes_NBI = _codes(blocks_NBI, scales_NB, 4)
        error_NB = ((codes_NBI - 8.0) * scales_NB.float()[..., None] - blocks_NBI).square_().sum(-1)
        if best_NBI is None or best_NB is None or least_NB is None:
            best_NBI, best_NB, least_NB = codes_NBI, scales_NB, error_NB
            continue
        better_NB = error_NB < least_NB
        best_NBI = torch.where(better_NB[..., None], codes_NBI, best_NBI)
        best_NB, least_NB = torch.where(better_NB, scales_NB, best_NB), torch.minimum(error_NB, least_NB)
    assert best_NBI is not None
    assert best_NB is not None
    return best_NBI.flatten(1), best_NB


def _codes(blocks_NBI: Tensor, scales_NB: Tensor, bits: int) -> Tensor:
    zero = 1 << (bits - 1)
    steps_NB = torch.where(scales_NB == 0, 0.0, 1 / scales_NB.float())
    return (blocks_NBI * steps_NB[..., None]).round_().add_(zero).clamp_(int(bits == 8), 2 * zero - 1).to(torch.uint8)
