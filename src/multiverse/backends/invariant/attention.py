"""Attention over the tiles of a plan, in plain torch: every product has one shape, and partials are merged in order.

Shape legend: N rows of the forward, H query heads, K key/value heads, F query heads per key/value head, D head size (V of
values where it differs), S slots of the pool, T tiles, R rows of a tile (padded), U slots of a tile (padded), E entries, which
are rows of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..batch import Family
from ..kv_pool import Call
from .modules import elementwise
from .plan import TilePlan, plan_tiles

CHUNK, TILE_ROWS = 128, 8
"""Slots and rows of a tile, to which all are padded."""
MOST_PARTIALS = 8192
"""Partials of one plan, which bounds the memory for them."""
_TILES_AT_ONCE = 64


class TilePlans:
    """The plans of a forward, made when a layer first asks for its window.

    Args:
        rows: rows of the forward.
        chunk, tile_rows, most_partials: as in `plan_tiles`.
    """

    def __init__(
        self, families: Sequence[Family], rows: int, *, chunk: int, tile_rows: int, most_partials: int | None = MOST_PARTIALS
    ) -> None:
        self._families, self._rows = families, rows
        self._chunk, self._tile_rows, self._most_partials = chunk, tile_rows, most_partials
        self._plans: dict[int | None, list[PaddedTiles]] = {}

    def of(self, window: int | None) -> list[PaddedTiles]:
        """The plans for layers with this window; each row is in one."""
        if window not in self._plans:
            plans = plan_tiles(
                self._families,
                self._rows,
                chunk=self._chunk,
                tile_rows=self._tile_rows,
                window=window,
                most_partials=self._most_partials,
            )
            self._plans[window] = [PaddedTiles(plan, self._chunk, self._tile_rows) for plan in plans]
        return self._plans[window]


class PaddedTiles:
    """A plan, and what torch's attention needs of it, made when it is first used.

    Attributes:
        plan: the plan.
        merge_steps: for the first partial of every row, the second, ...: the rows that have one, and its number.
    """

    def __init__(self, plan: TilePlan, chunk: int, tile_rows: int) -> None:
        self.plan, self._chunk, self._tile_rows = plan, chunk, tile_rows

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slots of each tile [T, U], its rows [T, R], what each row reads [T, R, U], and the place of each entry in T x R."""
        first, count, low, high = self.plan.tiles.T.astype(np.int64)
        at_TU = low[:, None] + np.arange(self._chunk)
        slot_TU = self.plan.slots[np.where(at_TU < high[:, None], at_TU, low[:, None])].astype(np.int64)
        entry_TR = first[:, None] + np.arange(self._tile_rows)
        real_TR = entry_TR < (first + count)[:, None]
        entry_TR = np.where(real_TR, entry_TR, first[:, None])  # padding repeats the first row
        row_TR, begin_TR, end_TR = np.moveaxis(self.plan.entries[entry_TR].astype(np.int64), -1, 0)
        seen_TRU = (at_TU[:, None] >= begin_TR[..., None]) & (at_TU[:, None] < end_TR[..., None])
        place_E = np.flatnonzero(real_TR)
        return torch.from_numpy(slot_TU), torch.from_numpy(row_TR), torch.from_numpy(seen_TRU), torch.from_numpy(place_E)

    @cached_property
    def merge_steps(self) -> list[tuple[Tensor, Tensor]]:
        """See the class."""
        start, end = self.plan.offsets[:-1].astype(np.int64), self.plan.offsets[1:].astype(np.int64)
        steps = []
        for number in range(int((end - start).max(initial=0))):
            rows = np.flatnonzero(end - start > number)
            steps.append((torch.from_numpy(rows), torch.from_numpy(self.plan.partials[start[rows] + number].astype(np.int64))))
        return steps


def attend_padded(call: Call, tiles: PaddedTiles) -> None:
    """Write the output of the rows of a plan."""
    device, (_, heads, size) = call.query_NHD.device, call.query_NHD.shape
    kv_heads, value_size = call.value_SKV.shape[1:]
    folds = heads // kv_heads
    slot_TU, row_TR, seen_TRU, place_E = (tensor.to(device) for tensor in tiles.padded)
    partials: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(slot_TU), _TILES_AT_ONCE):
        part = slice(start, start + _TILES_AT_ONCE)
        count, rows = row_TR[part].shape
        # [T, R, K, F, D] -> [T * K, R * F, D]
        query = call.query_NHD[row_TR[part]].float().view(count, rows, kv_heads, folds, size).transpose(1, 2)
        query = query.reshape(count * kv_heads, rows * folds, size)
        key = call.key_SKD[slot_TU[part]].float().permute(0, 2, 3, 1).reshape(count * kv_heads, size, -1)
        value = call.value_SKV[slot_TU[part]].float().transpose(1, 2).reshape(count * kv_heads, -1, value_size)
        score = torch.bmm(query, key).mul_(call.scale).view(count, kv_heads, rows, folds, -1)
        score.masked_fill_(~seen_TRU[part][:, None, :, None], -torch.inf)
        top = score.amax(-1)
        top.masked_fill_(top == -torch.inf, 0.0)
        weight = elementwise(torch.exp, score.sub_(top[..., None]))
        out = torch.bmm(weight.view(count * kv_heads, rows * folds, -1), value).view(count, kv_heads, rows, folds, value_size)
        partials.append((top.transpose(1, 2), weight.sum(-1).transpose(1, 2), out.transpose(1, 2)))
    top_EH, total_EH, out_EHV = (_entries(parts, place_E, heads) for parts in zip(*partials, strict=True))
    _merge(call, [(r.to(device), e.to(device)) for r, e in tiles.merge_steps], top_EH, total_EH, out_EHV)


def _entries(parts: tuple[Tensor, ...], place_E: Tensor, heads: int) -> Tensor:
    """Parts [T, R, K, F, ...] as one tensor [E, H, ...]."""
    whole = torch.cat(parts)
    return whole.reshape(whole.shape[0] * whole.shape[1], heads, *whole.shape[4:])[place_E]


def _merge(call: Call, steps: list[tuple[Tensor, Tensor]], top_EH: Tensor, total_EH: Tensor, out_EHV: Tensor) -> None:
    """Write the sum of each row's partials, in order."""
    rows = len(call.query_NHD)
    top_NH = top_EH.new_full((rows, top_EH.shape[1]), -torch.inf)
    for row, entry in steps:
        top_NH[row] = torch.maximum(top_NH[row], top_EH[entry])
    total_NH, out_NHV = torch.zeros_like(top_NH), out_EHV.new_zeros(rows, *out_EHV.shape[1:])
    for row, entry in steps:
        share = elementwise(torch.exp, top_EH[entry] - top_NH[row])
        total_NH[row] += share * total_EH[entry]
        out_NHV[row] += share[..., None] * out_EHV[entry]
    if steps:
        row = steps[0][0]
        call.out_NHV[row] = (out_NHV[row] / total_NH[row][..., None]).to(call.out_NHV.dtype)
