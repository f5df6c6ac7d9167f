"""Token ids and layout of a tree, segment by segment.

Training data is encoded here: each forced piece is tokenised by itself, as the engine does, so that no token spans two of them,
or forced and free text. Positions are computed from the tree, independently of `machine` and `layout`; they must agree.
"""

from __future__ import annotations

from typing import NamedTuple

from .layout import TRUNK, BranchSpec, Layout
from .render import segments
from .tokens import TokenDialect
from .tree import Document


class Encoded(NamedTuple):
    """A document as token ids with their layout."""

    token_ids: tuple[int, ...]
    layout: Layout


def encode(document: Document, tokens: TokenDialect, *, heads_only: bool = False) -> Encoded:
    """Token ids and layout of a document (`ValueError` as `render`).

    Args:
        heads_only: count as forced only the heads of forks and joins (`Segment.head`), for decoding without the guard.
    """
    ids: list[int] = []
    positions: list[int] = []
    branches: list[int] = []
    forced: list[bool] = []
    table: list[BranchSpec] = [TRUNK]
    # Keyed by the path of (block, path) indices from the trunk, as segments carry it.
    index: dict[tuple[tuple[int, int], ...], int] = {(): 0}
    next_position: dict[tuple[tuple[int, int], ...], int] = {(): 0}
    blocks: dict[tuple[tuple[tuple[int, int], ...], int], int] = {}
    for segment in segments(document, tokens.dialect, tokens.label_gap):
        path = segment.path
        if path not in index:
            parent, (number, _) = path[:-1], path[-1]
            block = blocks.setdefault((parent, number), len(blocks))
            label = ".".join(str(step + 1) for _, step in path)
            index[path] = len(table)
            table.append(BranchSpec(index[parent], block, label))
            next_position[path] = next_position[parent]
        else:
            # After a block: resume after the highest position of all descendants.
            below = (position for key, position in next_position.items() if key[: len(path)] == path)
            next_position[path] = max(below)
        segment_ids = tokens.encode(segment.text)
        start = next_position[path]
        ids += segment_ids
        positions += range(start, start + len(segment_ids))
        branches += [index[path]] * len(segment_ids)
        # Where the text may end instead, the first token is the model's to choose.
        written = segment.head if heads_only else segment.forced
        forced += [written and not (segment.optional and number == 0) for number in range(len(segment_ids))]
        next_position[path] = start + len(segment_ids)
    return Encoded(tuple(ids), Layout(tuple(positions), tuple(branches), tuple(forced), tuple(table)))
