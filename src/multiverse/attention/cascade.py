"""Who reads what, as work for a kernel that reads every shared stretch of keys and values once. No torch.

The rows of a forward and the slots that they may read are cut into *pieces*: some rows of one request and a list of slots that
all of them see, as far as causality and window let them. For a trunk ``a b`` with the paths ``c d`` and ``e``, whose rows are
``d`` and ``e``, there are three:

          a  b  c  d  e
      d   1  1  2  2  .         1: rows d e, slots a b        read once for both
      e   1  1  .  .  3         2: row d, slots c d           3: row e, slot e

What is left of a mask inside a piece is one interval of the list for each row, since a list is in the order in which it was
read: its end is where the row itself was read, its beginning where a sliding window begins. Pieces are cut into *items*, at
most so many rows by so many slots, of which any number can be computed at once. Each gives a row a part of its softmax, and
the parts are merged by their log-sum-exp. Blocks that nest, paths that have joined, prompts and several tokens of one branch
are all just pieces.

The cascade is Ye et al. 2024 (https://flashinfer.ai/2024/02/02/cascade-inference.html); cutting the slots is "flash decoding"
(Dao et al. 2023, https://pytorch.org/blog/flash-decoding/).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Small = NDArray[np.int32]


class Family(NamedTuple):
    """The rows of one request in a forward, and what has been read of it.

    Attributes:
        rows: rows of the forward, in order; they are the request's newest reads.
        slots, positions, owners: slot, position and branch of everything that has been read, the rows included, in the order
            in which it was read. The positions of one branch rise.
        visible: whether a branch sees another.
    """

    rows: Ints
    slots: Ints
    positions: Ints
    owners: Ints
    visible: NDArray[np.bool_]


class Tiling(NamedTuple):
    """How large the items of a kernel are.

    Attributes:
        narrow, wide: most rows of an item; pieces of few rows are not to pay for those of many.
        block: slots that the kernel takes at a time; items are cut at multiples of it.
        items: how many items keep the device busy; slots are cut until there are about so many.
    """

    narrow: int
    wide: int
    block: int
    items: int


class Plan(NamedTuple):
    """The work of one forward, for one window.

    Attributes:
        slots: the slots of all pieces, one list after the other.
        entries: a row of a piece each: row of the forward, and the interval of `slots` that it reads.
        narrow, wide: an item each: its first entry, how many, the interval of `slots`, its first part, which those of its other
            entries follow.
        parts: part numbers, those of a row next to each other.
        offsets: for each row of the forward where in `parts` its own begin; one more at the end.
    """

    slots: Small
    entries: Small
    narrow: Small
    wide: Small
    parts: Small
    offsets: Small


class Planner(Protocol):
    """What lays out the work of a forward for a backend that takes plans."""

    def plan(self, families: Sequence[Family], rows: int) -> dict[int | None, Plan]:
        """One plan for each window that the model's layers have (`None` for full attention); `rows` as in `plan`."""
        ...


class _Pieces:
    """Pieces as they are collected: slots, entries, and the tiles that they are cut into by rows."""

    def __init__(self, tiling: Tiling) -> None:
        self.tiling = tiling
        self.slots: list[Ints] = []
        self.entries: list[Ints] = []
        self.tiles: list[tuple[int, int, int, int, bool]] = []  # first entry, entries, first slot, end, whether it is narrow
        self.slot_count = self.entry_count = 0

    def add(self, slots: Ints, rows: Ints, begin: Ints, end: Ints) -> None:
        """Rows that read slots `begin` to `end` of a list."""
        entries = np.empty((len(rows), 3), dtype=np.int64)
        entries[:, 0] = rows
        entries[:, 1] = begin + self.slot_count
        entries[:, 2] = end + self.slot_count
        narrow = len(rows) <= self.tiling.narrow
        size = self.tiling.narrow if narrow else self.tiling.wide
        for first in range(0, len(rows), size):
            own = entries[first : first + size]
            low, high = int(own[:, 1].min()), int(own[:, 2].max())
            self.tiles.append((self.entry_count + first, len(own), low, high, narrow))
        self._take(slots, entries)

    def add_one(self, slots: Ints, row: int, begin: int, end: int) -> None:
        """The same for a row alone, of which a forward may have many."""
        low, high = begin + self.slot_count, end + self.slot_count
        self.tiles.append((self.entry_count, 1, low, high, True))
        self._take(slots, np.array(((row, low, high),)))

    def add_alone(self, families: list[Family]) -> None:
        """Families of one row and one branch, which are a piece each: the many requests that are not in a block just now."""
        lengths = np.array([len(family.slots) for family in families])
        high = self.slot_count + np.cumsum(lengths)
        low = high - lengths
        rows = np.concatenate([family.rows for family in families])
        first = range(self.entry_count, self.entry_count + len(families))
        self.tiles += zip(first, repeat(1), low.tolist(), high.tolist(), repeat(True), strict=False)
        self._take(np.concatenate([family.slots for family in families]), np.stack([rows, low, high], axis=1))

    def _take(self, slots: Ints, entries: Ints) -> None:
        self.slots.append(slots)
        self.entries.append(entries)
        self.slot_count += len(slots)
        self.entry_count += len(entries)


def plan(families: Sequence[Family], rows: int, tiling: Tiling, window: int | None = None) -> Plan:
    """Lay out the work of all families.

    Args:
        rows: rows of the whole forward; those of no family get no parts.
        window: a row reads a slot only if it is less than `window` positions back.
    """
    pieces = _Pieces(tiling)
    alone = []
    for family in families:
        if window is None and len(family.rows) == 1 and len(family.visible) == 1:
            alone.append(family)
        else:
            _cut_up(family, window, pieces)
    if alone:
        pieces.add_alone(alone)
    tiles = np.array(pieces.tiles, dtype=np.int64).reshape(-1, 5)
    items, narrow = _items(tiles, tiling)
    entries = _join(pieces.entries).reshape(-1, 3)
    # The parts of an item follow each other in the order of its entries.
    counts = items[:, 1]
    first_part = np.cumsum(counts) - counts
    part_count = int(counts.sum())
    entry = np.repeat(items[:, 0] - first_part, counts) + np.arange(part_count)
    row = entries[entry, 0]
    parts = np.argsort(row, kind="stable")
    offsets = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(row, minlength=rows), out=offsets[1:])
    items = np.concatenate([items, first_part[:, None]], axis=1)
    return Plan(
        slots=_small(_join(pieces.slots)),
        entries=_small(entries),
        narrow=_small(items[narrow]),
        wide=_small(items[~narrow]),
        parts=_small(parts),
        offsets=_small(offsets),
    )


def _cut_up(family: Family, window: int | None, pieces: _Pieces) -> None:
    """Add the pieces of one family."""
    count, rows = len(family.slots), len(family.rows)
    own = family.owners[count - rows :]
    sees = family.visible[own]  # by row, and branch of a slot
    if window is None and sees.all():  # nobody is hidden: one piece
        if rows == 1:
            pieces.add_one(family.slots, int(family.rows[0]), 0, count)
        else:
            pieces.add(family.slots, family.rows, np.zeros(rows, dtype=np.int64), np.arange(count - rows + 1, count + 1))
        return
    # Branches that the same rows see share a piece, except under a window: positions rise within one branch only.
    keys: dict[bytes, int] = {}
    if window is None:
        seen_by = np.packbits(sees, axis=0).T.copy()
        key = np.array([keys.setdefault(line.tobytes(), len(keys)) for line in seen_by], dtype=np.int16)
    else:
        key = np.arange(len(family.visible), dtype=np.int16)
    for column in _by_key(key[family.owners], int(key.max()) + 1):
        reader = np.flatnonzero(sees[:, family.owners[column[0]]])
        if not len(reader):
            continue
        begin, end = np.zeros(len(reader), dtype=np.int64), np.searchsorted(column, count - rows + reader, side="right")
        if window is not None:
            reach = family.positions[count - rows + reader] - window
            begin = np.searchsorted(family.positions[column], reach, side="right")
        some = end > begin
        if len(reader) == 1 and some[0]:
            pieces.add_one(family.slots[column], int(family.rows[reader[0]]), int(begin[0]), int(end[0]))
        elif some.any():
            pieces.add(family.slots[column], family.rows[reader[some]], begin[some], end[some])


def _by_key(key: NDArray[np.int16], keys: int) -> list[Ints]:
    """For each key that occurs, where it does. Two-byte keys sort by radix, and a long first run is not sorted at all."""
    others = key != key[0]
    first = int(others.argmax())
    order = np.argsort(key[first:], kind="stable") + first
    ends = np.cumsum(np.bincount(key[first:], minlength=keys))
    lists = np.split(order, ends[:-1])
    lists[key[0]] = np.concatenate([np.arange(first), lists[key[0]]])
    return [column for column in lists if len(column)]


def _items(tiles: Ints, tiling: Tiling) -> tuple[Ints, NDArray[np.bool_]]:
    """Tiles cut by slots into items (first entry, entries, first slot, end), and which of those are narrow."""
    length = tiles[:, 3] - tiles[:, 2]
    blocks = -(-int(length.sum()) // (tiling.block * max(1, tiling.items)))
    size = tiling.block * max(1, blocks)
    cuts = -(-length // size)
    which = np.repeat(np.arange(len(tiles)), cuts)
    number = np.arange(len(which)) - np.repeat(np.cumsum(cuts) - cuts, cuts)
    items = tiles[which, :4]
    items[:, 2] += number * size
    items[:, 3] = np.minimum(items[:, 3], items[:, 2] + size)
    return items, tiles[which, 4].astype(bool)


def _join(arrays: list[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)


def _small(array: Ints) -> Small:
    return np.ascontiguousarray(array, dtype=np.int32)
