"""The order in which a row reads keys and values, cut into chunks at fixed places. No torch.

A row reads the tokens that its branch sees in the order of their positions, and at one position in document order. So the
list follows from the text alone: not from the order in which branches were computed, from slots, or from the rest of the batch.
Where tokens that see each other share positions (the layout ``released``) it reads them in document order throughout.
It is cut after every `chunk` tokens, counted from its beginning. Each chunk gives a row a *partial* (its softmax over these
tokens, unnormalised or with the log-sum-exp), and a row's partials are merged in order.

Rows of one branch read beginnings of one list, and the lists of all branches of a request begin alike. So a *tile* is one chunk
for several rows: its keys and values are read once, while each row is computed as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..batch import Family, Ints

Ints32 = NDArray[np.int32]


class TilePlan(NamedTuple):
    """The attention of some rows of a forward, for one window.

    Attributes:
        slots: the slots of all lists, one after the other.
        entries: one per row of a tile: row of the forward, and the interval of `slots` that it reads [3]. Its index is the
            number of its partial.
        tiles: one per tile: its first entry, number of entries, and the interval of `slots` [4].
        partials: numbers of partials, those of a row adjacent and in the order of the chunks.
        offsets: for each row of the forward where its own begin in `partials`, and the end of the last.
    """

    slots: Ints32
    entries: Ints32
    tiles: Ints32
    partials: Ints32
    offsets: Ints32


class Reader(NamedTuple):
    """Rows that read intervals of one list.

    Attributes:
        slots: the list, from chunk `first_chunk` on.
        rows: of the forward, increasing.
        begin, end: for each row the interval that it reads, counted from the beginning of `slots`.
        first_chunk: number of chunks that precede `slots`.
    """

    slots: Ints
    rows: Ints
    begin: Ints
    end: Ints
    first_chunk: int = 0

    def within(self, first: int, last: int) -> Reader:
        """The same of rows `first` to `last` of the forward."""
        some = slice(*np.searchsorted(self.rows, (first, last)).tolist())
        return self._replace(rows=self.rows[some], begin=self.begin[some], end=self.end[some])


def plan_tiles(
    families: Sequence[Family],
    rows: int,
    *,
    chunk: int,
    tile_rows: int,
    window: int | None = None,
    most_partials: int | None = None,
) -> list[TilePlan]:
    """Lay out the attention of all families.

    Args:
        rows: rows of the whole forward.
        chunk: tokens of a chunk.
        tile_rows: most rows of a tile.
        window: a row reads a token only if it is less than `window` positions back.
        most_partials: if there are more, several plans of fewer rows each are made, to save memory; every row is in one.
    """
    groups = [list(readers(family, window)) for family in families]
    size = rows
    if most_partials is not None:
        longest = max(-(-len(reader.slots) // chunk) for group in groups for reader in group)
        if rows * longest > most_partials:
            size = max(tile_rows, most_partials // longest)
    plans = []
    for first in range(0, rows, size):
        tiles = _Tiles(chunk, tile_rows)
        for group in groups:
            own = group if size >= rows else [reader.within(first, first + size) for reader in group]
            for reader in share([reader for reader in own if len(reader.rows)], chunk):
                tiles.add(reader)
        plans.append(tiles.plan(rows))
    return plans


def readers(family: Family, window: int | None = None) -> Iterator[Reader]:
    """The readers of a family: one per branch that has rows, or one per row where it reads tokens of sibling paths."""
    count, rows = len(family.slots), len(family.rows)
    owners, positions = family.owners, family.positions
    own = owners[count - rows :]
    if len(family.visible) == 1 and family.shared_RU is None:  # one branch: already in order
        yield _reader(family._replace(order=None), np.arange(count), np.arange(rows), window)
        return
    assert family.ranks is not None, "the engine does not lay out batches in document order"
    order = family.order if family.order is not None else np.lexsort((family.ranks[owners], positions))
    if family.shared_RU is not None or (family.order is not None and window is not None):
        mask_RU = family.mask()
        for row in range(rows):
            seen = order if mask_RU is None else order[mask_RU[row, order]]
            if family.order is not None and window is not None:
                seen = seen[positions[count - rows + row] - positions[seen] < window]
            yield _reader(family, seen, np.array([row]), window)
        return
    for branch in dict.fromkeys(own.tolist()):
        seen = order[family.visible[branch, owners[order]]]
        yield _reader(family, seen, np.flatnonzero(own == branch), window)


def _reader(family: Family, seen: Ints, rows: Ints, window: int | None) -> Reader:
    """The reader of these rows (of the family), which read these computed tokens up to themselves."""
    if family.order is not None:
        number = np.empty(len(family.slots), dtype=np.int64)  # of each token in the list
        number[seen] = np.arange(len(seen))
        end = number[len(family.slots) - len(family.rows) + rows] + 1
        return Reader(family.slots[seen], family.rows[rows], np.zeros_like(end), end)
    positions, own = family.positions[seen], family.positions[len(family.slots) - len(family.rows) + rows]
    end = np.searchsorted(positions, own, side="right")
    begin = np.zeros_like(end) if window is None else np.searchsorted(positions, own - window, side="right")
    return Reader(family.slots[seen], family.rows[rows], begin, end)


def share(group: list[Reader], chunk: int) -> list[Reader]:
    """Readers of one request, with the chunks that they have in common with the first one's list read through that list."""
    if len(group) < 2:
        return group
    base, others = group[0], []
    merged = [base]
    for reader in group[1:]:
        length = min(len(base.slots), len(reader.slots))
        different = np.flatnonzero(base.slots[:length] != reader.slots[:length])
        chunks = (int(different[0]) if len(different) else length) // chunk
        common = chunks * chunk
        if chunks:
            merged.append(Reader(base.slots, reader.rows, reader.begin, np.minimum(reader.end, common)))
        begin, end = np.maximum(reader.begin - common, 0), reader.end - common
        others.append(Reader(reader.slots[common:], reader.rows, begin, end, chunks))
    rows, begin, end = (np.concatenate([reader[column] for reader in merged]) for column in (1, 2, 3))
    return [Reader(base.slots, rows, begin, end), *others]


class _Tiles:
    """Collects tiles."""

    def __init__(self, chunk: int, tile_rows: int) -> None:
        self.chunk, self.tile_rows = chunk, tile_rows
        self.slots: list[Ints] = []
        self.entries: list[Ints] = []  # row, begin, end, number of the chunk
        self.tiles: list[Ints] = []
        self.slot_count = self.entry_count = 0

    def add(self, reader: Reader) -> None:
        """Add the tiles of a reader. An empty interval gives no partial."""
        some = reader.end > reader.begin
        rows, begin, end = reader.rows[some], reader.begin[some], reader.end[some]
        if len(rows) == 1:
            self._add_row(reader, int(rows[0]), int(begin[0]), int(end[0]))
        else:
            for first in range(0, len(rows), self.tile_rows):
                part = slice(first, first + self.tile_rows)
                self._add_rows(reader, rows[part], begin[part], end[part])
        if len(rows):
            self.slots.append(reader.slots)
            self.slot_count += len(reader.slots)

    def _add_row(self, reader: Reader, row: int, begin: int, end: int) -> None:
        """All chunks of one row at once."""
        chunks = np.arange(begin // self.chunk, -(-end // self.chunk))
        low = chunks * self.chunk
        high = np.minimum(low + self.chunk, end)
        entries = np.empty((len(chunks), 4), dtype=np.int64)
        entries[:, 0], entries[:, 3] = row, chunks + reader.first_chunk
        entries[:, 1] = np.maximum(low, begin) + self.slot_count
        entries[:, 2] = high + self.slot_count
        tiles = np.empty((len(chunks), 4), dtype=np.int64)
        tiles[:, 0], tiles[:, 1] = np.arange(self.entry_count, self.entry_count + len(chunks)), 1
        tiles[:, 2], tiles[:, 3] = low + self.slot_count, high + self.slot_count
        self.entries.append(entries)
        self.tiles.append(tiles)
        self.entry_count += len(chunks)

    def _add_rows(self, reader: Reader, rows: Ints, begin: Ints, end: Ints) -> None:
        """The tiles of a few rows."""
        for chunk in range(int(begin.min()) // self.chunk, -(-int(end.max()) // self.chunk)):
            low = chunk * self.chunk
            high = low + self.chunk
            inside = (begin < high) & (end > low)
            if not inside.any():
                continue
            entries = np.empty((int(inside.sum()), 4), dtype=np.int64)
            entries[:, 0], entries[:, 3] = rows[inside], chunk + reader.first_chunk
            entries[:, 1] = np.maximum(begin[inside], low) + self.slot_count
            entries[:, 2] = np.minimum(end[inside], high) + self.slot_count
            last = int(entries[:, 2].max())
            self.tiles.append(np.array([[self.entry_count, len(entries), low + self.slot_count, last]]))
            self.entries.append(entries)
            self.entry_count += len(entries)

    def plan(self, rows: int) -> TilePlan:
        """The plan of all that was added."""
        entries = np.concatenate(self.entries) if self.entries else np.empty((0, 4), dtype=np.int64)
        tiles = np.concatenate(self.tiles) if self.tiles else np.empty((0, 4), dtype=np.int64)
        slots = np.concatenate(self.slots) if self.slots else np.empty(0, dtype=np.int64)
        offsets = np.zeros(rows + 1, dtype=np.int64)
        np.cumsum(np.bincount(entries[:, 0], minlength=rows), out=offsets[1:])
        partials = np.lexsort((entries[:, 3], entries[:, 0]))
        return TilePlan(_int32(slots), _int32(entries[:, :3]), _int32(tiles), _int32(partials), _int32(offsets))


def _int32(array: Ints) -> Ints32:
    return np.ascontiguousarray(array, dtype=np.int32)
