"""The tokens of a request whose keys and values have been computed, in the order of computation. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .branch import Branch, Span
from .prefix_cache import Keys, make_keys

Ints = NDArray[np.int64]
_COLUMNS = 4


class ComputedTokens:
    """Token, position, slot and branch of every computed token of a request, one column each.

    Attributes:
        count: number of columns.
    """

    def __init__(self) -> None:
        self.count = 0
        self._table = np.zeros((_COLUMNS, 64), dtype=np.int64)

    @property
    def token_ids(self) -> Ints:
        """Tokens in the order of computation."""
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

    def add(self, span: Span, slots: Ints) -> None:
        """Add the tokens of a span, whose keys and values go to these slots."""
        length = len(span.token_ids)
        end = self.count + length
        if end > self._table.shape[1]:
            grown = np.zeros((_COLUMNS, max(end, 2 * self.count) - self._table.shape[1]), dtype=np.int64)
            self._table = np.concatenate([self._table, grown], axis=1)
        self._table[0, self.count : end] = span.token_ids
        self._table[1, self.count : end] = np.arange(span.position, span.position + length)
        self._table[2, self.count : end] = slots
        self._table[3, self.count : end] = span.branch.index
        self.count = end

    def remove(self, branches: Iterable[int]) -> Ints:
        """Remove all columns of these branches; returns their slots."""
        gone = np.isin(self.owners, list(branches))
        slots = self.slots[gone].copy()
        kept = self._table[:, : self.count][:, ~gone]
        # A new table: a batch may still refer to the old one.
        self._table = np.zeros_like(self._table)
        self.count = kept.shape[1]
        self._table[:, : self.count] = kept
        return slots

    def clear(self) -> None:
        """Remove all columns."""
        self.count = 0

    def keys(self, order: Ints, shift: int) -> Keys:
        """Prefix cache keys of the columns in this order, with positions raised by `shift` (see `TokenQueues.shift`)."""
        return make_keys(self.token_ids[order], self.positions[order] + shift)

    def in_order(self, stretches: Iterable[tuple[Branch, int, int]]) -> Ints:
        """Columns in the order of these stretches of branches, which may hold more than has been computed.

        Args:
            stretches: first and last of the tokens that the branch computes.
        """
        by_branch = np.argsort(self.owners, kind="stable")
        counts = np.bincount(self.owners)
        first = np.cumsum(counts) - counts
        parts = [
            by_branch[first[branch.index] + start : first[branch.index] + min(end, counts[branch.index])]
            for branch, start, end in stretches
            if branch.index < len(counts)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def spans(self, order: Ints, branches: list[Branch]) -> list[Span]:
        """Columns in this order as spans, to be computed again."""
        owners, positions, token_ids = self.owners[order], self.positions[order], self.token_ids[order]
        breaks = np.flatnonzero((np.diff(owners) != 0) | (np.diff(positions) != 1)) + 1
        return [
            Span(branches[owners[part[0]]], token_ids[part].tolist(), int(positions[part[0]]))
            for part in np.split(np.arange(len(order)), breaks)
            if len(part)
        ]
