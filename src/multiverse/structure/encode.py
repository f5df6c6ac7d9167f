"""Token ids and layout of a tree, segment by segment.

Training data is encoded here: each forced piece is tokenised by itself, as the engine does, so that no token spans two of them,
or forced and free text. Positions are computed from the tree, independently of `machine` and `layout`; they must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .dialect import Role
from .layout import TRUNK, BranchSpec, Layout
from .render import segments
from .tokens import TokenDialect
from .tree import Document


class Encoded(NamedTuple):
    """A document as token ids with their layout."""

    token_ids: tuple[int, ...]
    layout: Layout


Path = tuple[tuple[int, int], ...]
"""(block, path) indices from the trunk, as segments carry them."""


class _Placer:
    """Gives the tokens of segments, in document order, their positions and branches."""

    def __init__(self, tokens: TokenDialect) -> None:
        self._roles, self._released = tokens.roles, tokens.dialect.positions == "released"
        self._concludes = tokens.dialect.conclusion is not None
        self._line = 0  # position behind the newest token, whosever it is
        self._next: dict[Path, int] = {(): 0}  # position of each branch's next token
        self._end: dict[Path, int] = {}  # the same, but for separators behind a path that stand beside what follows
        self._blocks: dict[tuple[Path, int], int] = {}
        self._index: dict[Path, int] = {(): 0}
        self._goal_end: dict[Path, int] = {}  # position behind the newest goal of each branch
        self._newest: Path = ()  # the branch of the newest segment
        self._last: Role | None = None  # role of the newest tag
        self.positions: list[int] = []
        self.branches: list[int] = []
        self.writers: list[int] = []
        self.table: list[BranchSpec] = [TRUNK]

    def place(self, path: Path, token_ids: Sequence[int]) -> None:
        """Place the tokens of one segment, which belongs to this branch."""
        if not token_ids:  # white space, to a tokenizer that has no tokens for it
            return
        if path not in self._index:
            self._begin(path)
        elif len(path) < len(self._newest):
            # After a block: resume after the highest position of all descendants.
            below = (end for key, end in self._end.items() if key != path and key[: len(path)] == path)
            self._next[path] = self._line if self._in_line(path, self._roles.get(token_ids[0])) else max(below)
        self._newest = path
        at = self._next[path]
        for token in token_ids:
            role = self._roles.get(token)
            self._last = self._last if role is None else role
            beyond = self._released and role is None and self._last is Role.PATH_CLOSE
            self.positions.append(at)
            self.branches.append(self._index[path[:-1] if beyond else path])
            self.writers.append(self._index[path])
            at += 1
            if role is Role.BLOCK_OPEN:
                self._goal_end.pop(path, None)
            elif role is Role.GOAL_CLOSE:
                self._goal_end[path] = at
            if not beyond:
                self._end[path] = at
        self._next[path] = self._line = at

    def _in_line(self, path: Path, first: Role | None) -> bool:
        """Whether positions go on from the newest path, as in ``released`` behind a block without goal or conclusion."""
        return self._released and (path not in self._goal_end or (self._concludes and first is Role.BLOCK_CLOSE))

    def layout(self, forced: Sequence[bool]) -> Layout:
        """The layout of the tokens placed so far."""
        table, writers = tuple(self.table), tuple(self.writers)
        return Layout(tuple(self.positions), tuple(self.branches), tuple(forced), table, writers)

    def _begin(self, path: Path) -> None:
        parent, (number, _) = path[:-1], path[-1]
        block = self._blocks.setdefault((parent, number), len(self._blocks))
        label = ".".join(str(step + 1) for _, step in path)
        self._index[path] = len(self.table)
        self.table.append(BranchSpec(self._index[parent], block, label))
        self._next[path] = self._next[parent]
        if self._released:
            self._next[path] = self._goal_end.get(parent, self._line)


def encode(document: Document, tokens: TokenDialect, *, heads_only: bool = False) -> Encoded:
    """Token ids and layout of a document (`ValueError` as `render`).

    Args:
        heads_only: count as forced only the heads of forks and joins (`Segment.head`), for decoding without the guard.
    """
    placer = _Placer(tokens)
    ids: list[int] = []
    forced: list[bool] = []
    for segment in segments(document, tokens.dialect, tokens.label_gap):
        segment_ids = tokens.encode(segment.text)
        ids += segment_ids
        placer.place(segment.path, segment_ids)
        # Where the text may end instead, the first token is the model's to choose.
        written = segment.head if heads_only else segment.forced
        forced += [written and not (segment.optional and number == 0) for number in range(len(segment_ids))]
    return Encoded(tuple(ids), placer.layout(forced))
