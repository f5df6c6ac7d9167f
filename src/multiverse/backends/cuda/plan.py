"""The attention of a forward as tiles for a kernel that reads every shared list of keys and values once. No torch.

The rows of a forward and the slots that they may read are cut into *segments*: some rows of one request and a list of slots
that all of them may read, apart from causality and sliding windows. For a trunk ``a b`` with the paths ``c d`` and ``e``, whose
rows are ``d`` and ``e``, there are three:

          a  b  c  d  e
      d   1  1  2  2  .         1: rows d e, slots a b        read once for both
      e   1  1  .  .  3         2: row d, slots c d           3: row e, slot e

Within a segment the mask is one interval of the list per row, since the list is in the order of computation: it ends at the
row's own token and begins where a sliding window begins. Segments are cut into *tiles*, at most so many rows by so many slots,
which are computed independently. Each tile gives a row a *partial* (its softmax over these slots, with the log-sum-exp), and a
row's partials are merged. Nested blocks, joined paths, prompts and several tokens of one branch need nothing else.

The cascade is Ye et al. 2024 (https://flashinfer.ai/2024/02/02/cascade-inference.html); splitting the slots is split-KV, or
"flash decoding" (Dao et al. 2023, https://pytorch.org/blog/flash-decoding/).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..batch import Family, Ints

Ints32 = NDArray[np.int32]


class Tiling(NamedTuple):
    """The size of a kernel's tiles.

    Attributes:
        narrow, wide: most rows of a tile; there are two kinds, so that segments of few rows do not pay for those of many.
        block: slots that the kernel reads at a time; tiles are cut at multiples of it.
        tiles: number of tiles that keeps the device busy; slots are split until there are about so many.
    """

    narrow: int
    wide: int
    block: int
    tiles: int


class Plan(NamedTuple):
    """The attention of one forward, for one window.

    Attributes:
        slots: the slots of all segments, one list after the other.
        entries: one per row of a segment: row of the forward, and the interval of `slots` that it reads [3].
        narrow, wide: one per tile: its first entry, number of entries, the interval of `slots`, and its first partial [5]; the
            partials of its other entries follow.
        partials: numbers of partials, those of a row adjacent.
        offsets: for each row of the forward where its own begin in `partials`, and the end of the last.
    """

    slots: Ints32
    entries: Ints32
    narrow: Ints32
    wide: Ints32
    partials: Ints32
    offsets: Ints32


class _Segments:
    """Collects segments: their slots, entries, and the blocks of rows that they are cut into."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        self.slots: list[Ints] = []
        self.entries: list[Ints] = []
        self.row_blocks: list[tuple[int, int, int, int, bool]] = []  # first entry, entries, first slot, end, narrow
        self.slot_count = self.entry_count = 0

    def add(self, slots: Ints, rows: Ints, begin: Ints, end: Ints) -> None:
        """A segment whose rows read slots `begin` to `end` of the list."""
        entries = np.empty((len(rows), 3), dtype=np.int64)
        entries[:, 0] = rows
        entries[:, 1] = begin + self.slot_count
        entries[:, 2] = end + self.slot_count
        narrow = len(rows) <= self.tiling.narrow
        size = self.tiling.narrow if narrow else self.tiling.wide
        for first in range(0, len(rows), size):
            own = entries[first : first + size]
            low, high = int(own[:, 1].min()), int(own[:, 2].max())
            self.row_blocks.append((self.entry_count + first, len(own), low, high, narrow))
        self._append(slots, entries)

    def add_row(self, slots: Ints, row: int, begin: int, end: int) -> None:
        """A segment of a single row; a forward may have many."""
        low, high = begin + self.slot_count, end + self.slot_count
        self.row_blocks.append((self.entry_count, 1, low, high, True))
        self._append(slots, np.array(((row, low, high),)))

    def add_single(self, families: list[Family]) -> None:
        """Families of one row and one branch, a segment each: requests that are in no block, of which there may be many."""
        lengths = np.array([len(family.slots) for family in families])
        high = self.slot_count + np.cumsum(lengths)
        low = high - lengths
        rows = np.concatenate([family.rows for family in families])
        first = range(self.entry_count, self.entry_count + len(families))
        self.row_blocks += zip(first, repeat(1), low.tolist(), high.tolist(), repeat(True), strict=False)
        self._append(np.concatenate([family.slots for family in families]), np.stack([rows, low, high], axis=1))

    def _append(self, slots: Ints, entries: Ints) -> None:
        self.slots.append(slots)
        self.entries.append(entries)
        self.slot_count += len(slots)
        self.entry_count += len(entries)


def plan(families: Sequence[Family], rows: int, tiling: Tiling, window: int | None = None) -> Plan:
    """Lay out the attention of all families.

    Args:
        rows: rows of the whole forward; those of no family get no partials.
        window: a row reads a slot only if it is less than `window` positions back.
    """
    segments = _Segments(tiling)
    single = []
    for family in families:
        if window is None and len(family.rows) == 1 and len(family.visible) == 1:
            single.append(family)
        else:
            _add_segments(family, window, segments)
    if single:
        segments.add_single(single)
    row_blocks = np.array(segments.row_blocks, dtype=np.int64).reshape(-1, 5)
    tiles, narrow = _split_kv(row_blocks, tiling)
    entries = _concatenate(segments.entries).reshape(-1, 3)
    # The partials of a tile follow each other in the order of its entries.
    counts = tiles[:, 1]
    first_partial = np.cumsum(counts) - counts
    partial_count = int(counts.sum())
    entry = np.repeat(tiles[:, 0] - first_partial, counts) + np.arange(partial_count)
    row = entries[entry, 0]
    partials = np.argsort(row, kind="stable")
    offsets = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=rows), out=offsets[1:])
    tiles = np.concatenate([tiles, first_partial[:, None]], axis=1)
    return Plan(
        slots=_int32(_concatenate(segments.slots)),
        entries=_int32(entries),
        narrow=_int32(tiles[narrow]),
        wide=_int32(tiles[~narrow]),
        partials=_int32(partials),
        offsets=_int32(offsets),
    )


def _add_segments(family: Family, window: int | None, segments: _Segments) -> None:
    """Add the segments of one family."""
    count, rows = len(family.slots), len(family.rows)
    own = family.owners[count - rows :]
    visible = family.visible[own]  # by row, and branch of a slot
    if window is None and visible.all():  # nothing is hidden: one segment
        if rows == 1:
            segments.add_row(family.slots, int(family.rows[0]), 0, count)
        else:
            segments.add(family.slots, family.rows, np.zeros(rows, dtype=np.int64), np.arange(count - rows + 1, count + 1))
        return
    # Branches that the same rows may read share a segment, except with a window: positions increase within one branch only.
    keys: dict[bytes, int] = {}
    if window is None:
        readers = np.packbits(visible, axis=0).T.copy()
        key = np.array([keys.setdefault(line.tobytes(), len(keys)) for line in readers], dtype=np.int16)
    else:
        key = np.arange(len(family.visible), dtype=np.int16)
    for column in _columns_by_key(key[family.owners], int(key.max()) + 1):
        reader = np.flatnonzero(visible[:, family.owners[column[0]]])
        if not len(reader):
            continue
        begin, end = np.zeros(len(reader), dtype=np.int64), np.searchsorted(column, count - rows + reader, side="right")
        if window is not None:
            reach = family.positions[count - rows + reader] - window
            begin = np.searchsorted(family.positions[column], reach, side="right")
        some = end > begin
        if len(reader) == 1 and some[0]:
            segments.add_row(family.slots[column], int(family.rows[reader[0]]), int(begin[0]), int(end[0]))
        elif some.any():
            segments.add(family.slots[column], family.rows[reader[some]], begin[some], end[some])


def _columns_by_key(key: NDArray[np.int16], keys: int) -> list[Ints]:
    """For each key that occurs, its indices. Two-byte keys sort by radix, and a long first run is not sorted at all."""
    others = key != key[0]
    first = int(others.argmax())
    order = np.argsort(key[first:], kind="stable") + first
    ends = np.cumsum(np.bincount(key[first:], minlength=keys))
    lists = np.split(order, ends[:-1])
    lists[key[0]] = np.concatenate([np.arange(first), lists[key[0]]])
    return [column for column in lists if len(column)]


def _split_kv(row_blocks: Ints, tiling: Tiling) -> tuple[Ints, NDArray[np.bool_]]:
    """Blocks of rows split by slots into tiles (first entry, entries, first slot, end), and which tiles are narrow."""
    length = row_blocks[:, 3] - row_blocks[:, 2]
    blocks = -(-int(length.sum()) // (tiling.block * max(1, tiling.tiles)))
    size = tiling.block * max(1, blocks)
    splits = -(-length // size)
    which = np.repeat(np.arange(len(row_blocks)), splits)
    number = np.arange(len(which)) - np.repeat(np.cumsum(splits) - splits, splits)
    tiles = row_blocks[which, :4]
    tiles[:, 2] += number * size
    tiles[:, 3] = np.minimum(tiles[:, 3], tiles[:, 2] + size)
    return tiles, row_blocks[which, 4].astype(bool)


def _concatenate(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)


def _int32(array: Ints) -> Ints32:
    return np.ascontiguousarray(array, dtype=np.int32)
