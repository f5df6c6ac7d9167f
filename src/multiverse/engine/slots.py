"""The account of the KV pool's slots: every slot is free, cached, or owned, never two ways. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

FREE, CACHED, OWNED = 0, 1, 2
"""What a slot can be: to be had, kept by the prefix cache, or written by one request alone."""


class SlotPool:
    """Hands out slots (indices into the KV pool) and takes them back."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stack = np.arange(size - 1, -1, -1, dtype=np.int64)  # the free ones are the first `free`
        self._state = np.zeros(size, dtype=np.uint8)
        self.free = size
        self.cached = 0

    @property
    def owned(self) -> int:
        """Number of slots that requests own."""
        return self.size - self.free - self.cached

    def take(self, count: int) -> NDArray[np.int64]:
        """Take `count` free slots. The scheduler has made sure that they are there."""
        assert count <= self.free, f"{count} slots wanted, {self.free} free"
        slots = self._stack[self.free - count : self.free][::-1].copy()
        self.free -= count
        self._move(slots, FREE, OWNED)
        return slots

    def peek(self, count: int) -> Ints:
        """The slots that will be taken next, one after the other."""
        return self._stack[self.free - count : self.free][::-1].copy()

    def give_back(self, slots: Sequence[int] | NDArray[np.int64]) -> None:
        """A request returns slots that it owns."""
        self._release(np.asarray(slots, dtype=np.int64), OWNED)

    def cache(self, slots: NDArray[np.int64]) -> None:
        """A request leaves slots that it owns to the prefix cache."""
        self._move(slots, OWNED, CACHED)
        self.cached += len(slots)

    def evict(self, slots: NDArray[np.int64]) -> None:
        """The prefix cache gives slots up."""
        self.cached -= len(slots)
        self._release(slots, CACHED)

    def owns(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these slots belong to a request, and not to the cache."""
        owned: NDArray[np.bool_] = self._state[slots] == OWNED
        return owned

    def _release(self, slots: NDArray[np.int64], state: int) -> None:
        self._move(slots, state, FREE)
        self._stack[self.free : self.free + len(slots)] = slots
        self.free += len(slots)

    def _move(self, slots: NDArray[np.int64], before: int, after: int) -> None:
        if len(slots) == 1:  # as most are: one for each token that is written
            slot = slots[0]
            assert self._state[slot] == before, "a slot changed hands that was not there to be given"
            self._state[slot] = after
            return
        assert (self._state[slots] == before).all(), "a slot changed hands that was not there to be given"
        self._state[slots] = after
        assert len(set(slots.tolist())) == len(slots), "a slot was named twice"

    def check_integrity(self, owned: Sequence[int] | None = None, cached: Sequence[int] | None = None) -> None:
        """Prove the account.

        Args:
            owned: the slots that requests say they own, if known.
            cached: the slots that the prefix cache says it keeps, if known.

        Raises:
            AssertionError: a slot is free, cached or owned in more than one way, or in none.
        """
        free = self._stack[: self.free]
        listed = np.zeros(self.size, dtype=bool)
        listed[free] = True
        assert int(listed.sum()) == self.free, "a slot is in the free list twice"
        assert (self._state[free] == FREE).all(), "a slot is both free and taken"
        counts = [int((self._state == state).sum()) for state in (FREE, CACHED, OWNED)]
        assert counts == [self.free, self.cached, self.owned], f"the account is off: {counts}"
        for name, state, claimed in (("owned", OWNED, owned), ("cached", CACHED, cached)):
            if claimed is not None:
                listed[:] = False
                listed[claimed] = True
                assert int(listed.sum()) == len(claimed), f"a slot is {name} twice"
                assert (listed == (self._state == state)).all(), f"slots are not {name} as claimed"
