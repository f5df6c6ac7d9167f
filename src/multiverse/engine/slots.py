"""The account of the KV pool's slots: every slot is free or owned, never both, never twice. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class SlotPool:
    """Hands out slots (indices into the KV pool) and takes them back."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[int] = list(range(size - 1, -1, -1))
        self._owned = np.zeros(size, dtype=bool)

    @property
    def free(self) -> int:
        """Number of slots that can be taken."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Take `count` slots. The scheduler has made sure that they are there."""
        assert count <= len(self._free), f"{count} slots wanted, {len(self._free)} free"
        start = len(self._free) - count
        slots = self._free[start:]
        del self._free[start:]
        self._owned[slots] = True
        return slots

    def give_back(self, slots: Sequence[int] | NDArray[np.int64]) -> None:
        """Return slots to the pool."""
        back = [int(slot) for slot in slots]
        assert self._owned[back].all(), "a slot was returned that nobody owned"
        assert len(set(back)) == len(back), "a slot was returned twice at once"
        self._owned[back] = False
        self._free += back

    def check_integrity(self) -> None:
        """Prove the account: the free list and the owned marks cover every slot exactly once."""
        free = np.zeros(self.size, dtype=bool)
        free[self._free] = True
        assert int(free.sum()) == len(self._free), "a slot is in the free list twice"
        assert not (free & self._owned).any(), "a slot is both free and owned"
        assert (free | self._owned).all(), "a slot is neither free nor owned"
