"""Padded groups of rows with a mask: what attention by torch and by the CPU kernels reads.

Shape legend: N rows of the forward, K key/value heads, D head size, S slots of the pool, G groups in a bucket, R rows a group
(padded), U slots a group (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .batch import Family

# Groups share a bucket while padding is at most this share of the row-slot pairs.
_MAX_PADDING = 0.5


class Bucket(NamedTuple):
    """Groups of similar size whose attention is one call. A group is the rows of one request and the slots that they read.

    Attributes:
        row_GR: row of the forward; padding rows repeat the group's first row.
        slot_GU: slot of the pool; padding repeats the group's first slot and is masked.
        visible_GRU: whether the row may read the slot; `None` if every row reads every slot and nothing is padded.
        real_GR: which rows are not padding; `None` if all are real.
        row_position_GR, slot_position_GU: positions, for layers with a sliding window.
    """

    row_GR: Tensor
    slot_GU: Tensor
    visible_GRU: Tensor | None
    real_GR: Tensor | None
    row_position_GR: Tensor
    slot_position_GU: Tensor

    def to(self, device: torch.device) -> Bucket:
        """A copy on a device."""
        tensors: list[Any] = [None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self]
        return Bucket(*tensors)


def build_buckets(families: Sequence[Family], split_rows: int = 0) -> list[Bucket]:
    """Put families of similar size together, so that one attention call serves many requests with little padding.

    Args:
        split_rows: families of at most so many rows never share a bucket with larger ones.
    """
    buckets: list[Bucket] = []
    group: list[Family] = []
    area = 0
    for family in sorted(families, key=lambda f: (len(f.rows), len(f.slots))):
        grown, own = [*group, family], len(family.rows) * len(family.slots)
        padded = len(grown) * max(len(f.rows) for f in grown) * max(len(f.slots) for f in grown)
        crosses = bool(group) and len(group[0].rows) <= split_rows < len(family.rows)
        if group and (crosses or padded * (1 - _MAX_PADDING) > area + own):
            buckets.append(_bucket(group))
            grown, area = [family], 0
        group = grown
        area += own
    if group:
        buckets.append(_bucket(group))
    return buckets


def _bucket(families: list[Family]) -> Bucket:
    size, rows, slots = len(families), max(len(f.rows) for f in families), max(len(f.slots) for f in families)
    masks = [family.mask() for family in families]
    padded = any(len(f.rows) < rows or len(f.slots) < slots for f in families)
    masked = padded or any(mask is not None for mask in masks)
    row_GR = np.zeros((size, rows), dtype=np.int64)
    slot_GU = np.empty((size, slots), dtype=np.int64)
    row_position_GR = np.zeros((size, rows), dtype=np.int64)
    slot_position_GU = np.zeros((size, slots), dtype=np.int64)
    visible_GRU = np.zeros((size, rows, slots), dtype=bool)
    real_GR = np.zeros((size, rows), dtype=bool)
    for index, (family, mask) in enumerate(zip(families, masks, strict=True)):
        r, u = len(family.rows), len(family.slots)
        row_GR[index] = family.rows[0]
        row_GR[index, :r] = family.rows
        # Masked slots are still multiplied by zero, so padding has to be a slot of the same request: not-a-number in one
        # request would otherwise reach the others.
        slot_GU[index] = family.slots[0]
        slot_GU[index, :u] = family.slots
        # A padding row repeats the first row in every way, so that its softmax is not over nothing.
        row_position_GR[index] = family.positions[-r]
        row_position_GR[index, :r] = family.positions[-r:]
        slot_position_GU[index, :u] = family.positions
        visible_GRU[index, :r, :u] = True if mask is None else mask
        visible_GRU[index, r:] = visible_GRU[index, 0]
        real_GR[index, :r] = True
    return Bucket(
        row_GR=torch.from_numpy(row_GR),
        slot_GU=torch.from_numpy(slot_GU),
        visible_GRU=torch.from_numpy(visible_GRU) if masked else None,
        real_GR=None if real_GR.all() else torch.from_numpy(real_GR),
        row_position_GR=torch.from_numpy(row_position_GR),
        slot_position_GU=torch.from_numpy(slot_position_GU),
    )


class BucketPlan:
    """Everything about a bucket that is the same in every layer, computed once per forward.

    Attributes:
        in_order: the bucket holds exactly the forward's rows in order, so nothing has to be gathered or scattered.
        first_slot: first of the slots if they are consecutive, so that a slice replaces a gather; else `None`.
    """

    def __init__(self, bucket: Bucket, rows: int) -> None:
        self.bucket = bucket
        self.in_order = False
        self.first_slot: int | None = None
        self._visible: dict[int | None, Tensor | None] = {}
        self._masks: dict[int | None, Tensor | None] = {}
        if bucket.row_GR.device.type == "cpu":  # elsewhere these checks would wait for the device
            self.in_order = bucket.row_GR.numel() == rows and bool((bucket.row_GR.flatten() == torch.arange(rows)).all())
            if len(bucket.slot_GU) == 1:
                first, count = int(bucket.slot_GU[0, 0]), bucket.slot_GU.shape[1]
                if bool((bucket.slot_GU[0] == torch.arange(first, first + count)).all()):
                    self.first_slot = first

    def gather(self, pool_SKD: Tensor) -> Tensor:
        """The groups' slots of a pool [G, K, U, D]."""
        groups, width = self.bucket.slot_GU.shape
        if self.first_slot is not None:
            return pool_SKD[None, self.first_slot : self.first_slot + width].transpose(1, 2)
        gathered = pool_SKD.index_select(0, self.bucket.slot_GU.flatten())
        return gathered.view(groups, width, *pool_SKD.shape[1:]).transpose(1, 2)

    def visible(self, window: int | None) -> Tensor | None:
        """Which slots each row may read [G, R, U]; `None` if every row reads every slot."""
        if window not in self._visible:
            bucket = self.bucket
            visible_GRU = bucket.visible_GRU
            if window is not None:
                near_GRU = bucket.row_position_GR[:, :, None] - bucket.slot_position_GU[:, None, :] < window
                visible_GRU = near_GRU if visible_GRU is None else near_GRU & visible_GRU
            self._visible[window] = None if visible_GRU is None else visible_GRU.contiguous()
        return self._visible[window]

    def mask(self, window: int | None, folds: int, dtype: torch.dtype) -> Tensor | None:
        """The same as an additive mask [G, 1, folds * R, U] for `folds` query heads per key/value head."""
        if window not in self._masks:
            mask, visible_GRU = None, self.visible(window)
            if visible_GRU is not None:
                groups, rows, width = visible_GRU.shape
                mask = torch.zeros(visible_GRU.shape, dtype=dtype, device=visible_GRU.device)
                mask = mask.masked_fill_(~visible_GRU, -torch.inf)[:, None, None]
                mask = mask.expand(groups, 1, folds, rows, width).reshape(groups, 1, folds * rows, width)
            self._masks[window] = mask
        return self._masks[window]
