"""Allocator of the KV pool's slots: every slot is in exactly one state, free, cached or owned. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FREE, CACHED, OWNED = 0, 1, 2
"""States of a slot: available, held by the prefix cache, or owned by one request."""


class SlotPool:
    """Allocates and frees slots (indices into the KV pool)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stack = np.arange(size - 1, -1, -1, dtype=np.int64)  # the free ones are the first `free`
        self._state = np.zeros(size, dtype=np.uint8)
        self.free = size
        self.cached = 0
        self.on_free: Callable[[list[int]], None] | None = None  # called with slots that have become free

    @property
    def owned(self) -> int:
        """Number of slots that requests own."""
        return self.size - self.free - self.cached

    def take(self, count: int) -> NDArray[np.int64]:
        """Take `count` free slots. The caller has checked that there are enough."""
        assert count <= self.free, f"{count} slots wanted, {self.free} free"
        slots = self._stack[self.free - count : self.free][::-1].copy()
        self.free -= count
        self._move(slots, FREE, OWNED)
        return slots

    def peek(self, count: int) -> Ints:
        """The slots that `take` returns next, in order."""
        return self._stack[self.free - count : self.free][::-1].copy()

    def give_back(self, slots: Sequence[int] | NDArray[np.int64]) -> None:
        """Free slots that a request owns."""
        self._release(np.asarray(slots, dtype=np.int64), OWNED)

    def cache(self, slots: NDArray[np.int64]) -> None:
        """Move slots that a request owns to the prefix cache."""
        self._move(slots, OWNED, CACHED)
        self.cached += len(slots)

    def evict(self, slots: NDArray[np.int64]) -> None:
        """Free slots of the prefix cache."""
        self.cached -= len(slots)
        self._release(slots, CACHED)

    def owns(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these slots are owned by a request."""
        owned: NDArray[np.bool_] = self._state[slots] == OWNED
        return owned

    def _release(self, slots: NDArray[np.int64], state: int) -> None:
        self._move(slots, state, FREE)
        self._stack[self.free : self.free + len(slots)] = slots
        self.free += len(slots)
        if self.on_free is not None:
            self.on_free(slots.tolist())

    def _move(self, slots: NDArray[np.int64], before: int, after: int) -> None:
        if len(slots) == 1:  # the common case in decoding
            slot = slots[0]
            assert self._state[slot] == before, "a slot is not in the expected state"
            self._state[slot] = after
            return
        assert (self._state[slots] == before).all(), "a slot is not in the expected state"
        self._state[slots] = after
        assert len(set(slots.tolist())) == len(slots), "a slot is listed twice"

    def check_integrity(self, owned: Sequence[int] | Ints | None = None, cached: Sequence[int] | Ints | None = None) -> None:
        """Check that the states, the free list and the counts agree.

        Args:
            owned: the slots that requests own, if known.
            cached: the slots that the prefix cache holds, if known.

        Raises:
            AssertionError: they do not agree.
        """
        free = self._stack[: self.free]
        listed = np.zeros(self.size, dtype=bool)
        listed[free] = True
        assert int(listed.sum()) == self.free, "a slot is in the free list twice"
        assert (self._state[free] == FREE).all(), "a slot is both free and taken"
        counts = [int((self._state == state).sum()) for state in (FREE, CACHED, OWNED)]
        assert counts == [self.free, self.cached, self.owned], f"slot counts do not add up: {counts}"
        for name, state, claimed in (("owned", OWNED, owned), ("cached", CACHED, cached)):
            if claimed is not None:
                listed[:] = False
                listed[np.asarray(claimed, dtype=np.int64)] = True
                assert int(listed.sum()) == len(claimed), f"a slot is {name} twice"
                assert (listed == (self._state == state)).all(), f"{name} slots differ from those given"
