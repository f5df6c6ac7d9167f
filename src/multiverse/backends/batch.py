"""The rows of one forward, as the engine hands them to a backend. All of it is on the host.

Shape legend: N rows of the forward, R rows of a request, U tokens that a request has computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


class Family(NamedTuple):
    """The rows of one request, and the tokens computed so far, the rows included, in the order of computation.

    Attributes:
        rows: indices of the rows in the forward, in order; they are the newest of the computed tokens.
        slots, positions, owners: slot, position and branch of every computed token. Positions within a branch increase.
        visible: whether a branch (row) may read the tokens of another (column).
        shared_RU: tokens of sibling paths that a row may read besides (`share_every`); `None` without sharing.
        ranks: number of each branch in document order; `None` unless the backend is deterministic.
        order: the computed tokens in document order, where that is not the order of positions in each branch's view (the layout
            ``released``); `None` otherwise, and unless the backend is deterministic.
    """

    rows: Ints
    slots: Ints
    positions: Ints
    owners: Ints
    visible: NDArray[np.bool_]
    shared_RU: NDArray[np.bool_] | None = None
    ranks: Ints | None = None
    order: Ints | None = None

    def mask(self) -> NDArray[np.bool_] | None:
        """Whether each row may read each computed token [R, U]; `None` if a single row may read all of them."""
        rows, count = len(self.rows), len(self.slots)
        if rows == 1 and self.visible.all():
            return None
        order = np.arange(count)
        mask_RU: NDArray[np.bool_] = order[None, :] <= order[-rows:, None]
        mask_RU &= self.visible[self.owners[-rows:]][:, self.owners]
        if self.shared_RU is not None:
            mask_RU |= self.shared_RU
        return mask_RU

    def same(self, other: Family) -> bool:
        """Whether both describe the same attention."""
        arrays = zip(self[:5], other[:5], strict=True)
        return self.shared_RU is other.shared_RU is None and all(np.array_equal(one, two) for one, two in arrays)


@dataclass
class Batch:
    """One forward. Rows of one request are adjacent.

    A backend only reads it: what it derives from it for the device (padded groups, tiles, masks) is in `ForwardContext`.
    """

    token_N: Tensor  # engine: token ids, int64
    position_N: Tensor  # engine: positions in the layout, raised by `models.rope.LONG` in long texts, int64
    slot_N: Tensor  # engine: slot of the KV pool that each row's keys and values are written to, int64
    families: list[Family]  # engine: for each request its rows and the tokens that they may read
    logits_indices: list[int]  # engine: rows whose logits are returned, in this order

    def same(self, other: Batch) -> bool:
        """Whether both are the same forward."""
        one, two = (self.token_N, self.position_N, self.slot_N), (other.token_N, other.position_N, other.slot_N)
        return (
            all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(one, two, strict=True))
            and self.logits_indices == other.logits_indices
            and len(self.families) == len(other.families)
            and all(a.same(b) for a, b in zip(self.families, other.families, strict=True))
        )
