"""What the model has read of a request, in the order in which it read it. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .branch import Branch, Run
from .cache import Keys, make_keys

Ints = NDArray[np.int64]
_COLUMNS = 4


class Reading:
    """Token, position, slot and branch of everything that has been read, one column a token."""

    def __init__(self) -> None:
        self.count = 0
        self._table = np.zeros((_COLUMNS, 64), dtype=np.int64)

    @property
    def token_ids(self) -> Ints:
        """Tokens in the order read."""
        return self._table[0, : self.count]

    @property
    def positions(self) -> Ints:
        """Position of each."""
        return self._table[1, : self.count]

    @property
    def slots(self) -> Ints:
        """Slot of each; may be written to."""
        return self._table[2, : self.count]

    @property
    def owners(self) -> Ints:
        """Index of the branch of each."""
        return self._table[3, : self.count]

    def add(self, run: Run, slots: Ints) -> None:
        """The model reads this run into these slots."""
        length = len(run.token_ids)
        end = self.count + length
        if end > self._table.shape[1]:
            room = np.zeros((_COLUMNS, max(end, 2 * self.count) - self._table.shape[1]), dtype=np.int64)
            self._table = np.concatenate([self._table, room], axis=1)
        self._table[0, self.count : end] = run.token_ids
        self._table[1, self.count : end] = np.arange(run.position, run.position + length)
        self._table[2, self.count : end] = slots
        self._table[3, self.count : end] = run.branch.index
        self.count = end

    def clear(self) -> None:
        """Forget everything."""
        self.count = 0

    def keys(self, order: Ints) -> Keys:
        """Keys of the prefix cache, of the columns in this order."""
        return make_keys(self.token_ids[order], self.positions[order])

    def document_order(self, segments: Iterable[tuple[Branch, int, int]]) -> Ints:
        """Columns in document order.

        Args:
            segments: the document as stretches of branches (first and last own token); they may hold more than has been read.
        """
        by_branch = np.argsort(self.owners, kind="stable")
        counts = np.bincount(self.owners)
        first = np.cumsum(counts) - counts
        parts = [
            by_branch[first[branch.index] + start : first[branch.index] + min(end, counts[branch.index])]
            for branch, start, end in segments
            if branch.index < len(counts)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def runs(self, order: Ints, branches: list[Branch]) -> list[Run]:
        """Columns in this order as runs to be read again."""
        owners, positions, token_ids = self.owners[order], self.positions[order], self.token_ids[order]
        breaks = np.flatnonzero((np.diff(owners) != 0) | (np.diff(positions) != 1)) + 1
        return [
            Run(branches[owners[part[0]]], token_ids[part].tolist(), int(positions[part[0]]))
            for part in np.split(np.arange(len(order)), breaks)
            if len(part)
        ]
