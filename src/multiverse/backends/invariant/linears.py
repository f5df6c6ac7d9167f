"""Linear layers computed for those numbers of rows only that give a row the same bits, at any place.

A library's matrix product divides its sums by the shape, so a row's result depends on how many rows there are: in float32,
torch's own differs between 1, 2 to 12, and more rows, and one on weights reordered for oneDNN between 1 and more. For one shape
the order does not depend on the numbers, so a trial tells which shapes agree.

Shape legend: M rows, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..cpu.packed_linears import PackedLinear, packing_works

_SIZES = (*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128)
"""Numbers of rows that are tried; more rows are computed in several parts."""
_LEAST, _MOST_WORK = 16, 1 << 40
"""Numbers up to the first are always tried; larger ones not for very large layers, where the trial would take long."""
_DISTINCT = 3
"""Distinct rows of a trial, repeated: as no block of a kernel has a multiple of 3 rows only, each comes at every place."""

Apply = Callable[[Tensor], Tensor]
"""A linear layer of ``[M, K]``."""


class InvariantLinear(nn.Module):
    """Drop-in for a linear layer in inference.

    Args:
        linear: applies the layer to ``[M, K]``; a module, so that its weights stay part of the model.
        sizes: numbers of rows that give the same bits, increasing.
    """

    def __init__(self, linear: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.linear, self.sizes = linear, sizes

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., K]``."""
        x_MK = x.reshape(-1, x.shape[-1])
        parts = [self._part(part_MK) for part_MK in x_MK.split(self.sizes[-1])]
        y_MN = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y_MN.view(*x.shape[:-1], y_MN.shape[-1])

    def _part(self, x_MK: Tensor) -> Tensor:
        rows = len(x_MK)
        size = next(size for size in self.sizes if size >= rows)
        if size > rows:
            padded_MK = x_MK.new_zeros(size, x_MK.shape[1])
            padded_MK[:rows] = x_MK
            x_MK = padded_MK
        y_MN: Tensor = self.linear(x_MK)
        return y_MN[:rows]


MakeLinear = Callable[[nn.Linear], nn.Module]
"""Makes the replacement of a linear layer."""

_known: dict[tuple[object, ...], tuple[int, ...]] = {}


@torch.inference_mode()
def invariant_linear(linear: nn.Linear, *, pack: bool = True, keep: bool = False) -> InvariantLinear:
    """The replacement of a linear layer.

    Args:
        pack: reorder its weights for oneDNN where that works.
        keep: as in `PackedLinear`.
    """
    weight = linear.weight
    packed = pack and weight.device.type == "cpu" and packing_works(weight.dtype)
    module: nn.Module = PackedLinear(linear, keep=keep) if packed else linear
    shape = weight.shape, linear.bias is not None, weight.dtype, weight.device, packed, torch.get_num_threads()
    if shape not in _known:
        trial, base_MK = _trial(linear)
        outputs, inputs = weight.shape
        sizes = [size for size in _SIZES if size <= _LEAST or size * size * inputs * outputs <= _MOST_WORK]
        _known[shape] = agreeing_sizes(PackedLinear(trial) if packed else trial, base_MK, sizes)
    return InvariantLinear(module, _known[shape])


def _trial(like: nn.Linear) -> tuple[nn.Linear, Tensor]:
    """A layer of the same shape, and rows for which all of its sums are zero but for rounding: any other order shows.

    Of ordinary sums in 16 bits only a few round differently in another order.
    """
    generator = torch.Generator().manual_seed(0)
    weight_NK, inputs = like.weight, like.in_features
    linear = nn.Linear(inputs, like.out_features, like.bias is not None, weight_NK.device, weight_NK.dtype)
    half, odd = inputs // 2, inputs % 2
    order = torch.randperm(inputs, generator=generator)
    half_NK = torch.randn(like.out_features, half, generator=generator).to(weight_NK.dtype)
    linear.weight.copy_(torch.cat([half_NK, -half_NK, half_NK.new_ones(len(half_NK), odd)], dim=1)[:, order])
    half_MK = torch.randn(_DISTINCT, half, generator=generator).to(weight_NK.dtype)
    base_MK = torch.cat([half_MK, half_MK, half_MK.new_zeros(_DISTINCT, odd)], dim=1)[:, order].to(weight_NK.device)
    if like.bias is not None:  # of the size of what is left, so that it shows when it is added
        linear.bias.zero_()
        linear.bias.copy_(torch.randn(like.out_features, generator=generator) * linear(base_MK).float().std().cpu())
    return linear, base_MK


def agreeing_sizes(apply: Apply, base_MK: Tensor, trials: Sequence[int] = _SIZES) -> tuple[int, ...]:
    """The most numbers of rows, of those tried, with which each of the rows `base_MK` has the same result at every place."""
    results: list[tuple[Tensor, list[int]]] = []
    distinct = len(base_MK)
    for size in trials:
        # With fewer rows than distinct ones, several calls.
        starts = range(0, distinct, size) if size < distinct else (0,)
        calls = [(start + torch.arange(size, device=base_MK.device)) % distinct for start in starts]
        found = [apply(base_MK[which_M]) for which_M in calls]
        first: dict[int, Tensor] = {}
        same = True
        for which_M, y_MN in zip(calls, found, strict=True):
            for index, y_N in zip(which_M.tolist(), y_MN, strict=True):
                same = same and torch.equal(first.setdefault(index, y_N), y_N)
        if not same:
            continue
        y_MN = torch.stack([first[index] for index in range(distinct)])
        for known_MN, sizes in results:
            if torch.equal(known_MN, y_MN):
                sizes.append(size)
                break
        else:
            results.append((y_MN, [size]))
    most: list[int] = max((sizes for _, sizes in results), key=len)
    return tuple(most)
