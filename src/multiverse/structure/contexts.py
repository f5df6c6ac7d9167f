"""The contexts of a document whose joins read again: the lines of text that a model reads, as one packed sequence.

With a *text join* each path is decoded after the text before its block, and its parent then reads the paths as plain linear
text (as in ThreadWeaver). With a *message join* the parent reads only a short message of each path (as in APR). In both, a
model only has plain causal contexts, one for the trunk and one for each path, with positions 0, 1, 2, ... Here all contexts of
a document are packed into one sequence, in which the prefix that a path shares with its parent stands once:

    trunk up to the block | path 1 | path 2 | merged text, and the rest of the trunk

A path sees itself and what precedes it in its parent; the parent never sees the path, only the merged text in its own context.
Blocks inside a path are merged within the path's context in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .joins import merge
from .layout import Layout
from .tokens import TokenDialect


@dataclass
class _Line:
    """The content of the trunk or of a path in order: stretches of its own tokens (indices into the document), and blocks."""

    items: list[list[int] | _Block] = field(default_factory=list)


@dataclass
class _Block:
    """The paths of a block."""

    lines: list[_Line] = field(default_factory=list)


class ContextToken(NamedTuple):
    """A token of the packed sequence.

    Attributes:
        branch: whose context it is in.
        position: its position there.
        own: whether it stands in the document at this place; otherwise the branch reads it again.
    """

    token: int
    branch: int
    position: int
    own: bool


@dataclass
class Contexts:
    """All contexts of a document as one sequence, as the module describes.

    Attributes:
        tokens: of a dialect that joins by text or by message.
        sequence: the tokens in a safe order: each comes after all that it sees.
        parents: for each branch, the branch to whose earlier tokens it attends as well; -1 for the trunk.
    """

    tokens: TokenDialect
    sequence: list[ContextToken] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [-1])

    @classmethod
    def of(cls, token_ids: Sequence[int], layout: Layout, tokens: TokenDialect, start: int = 0) -> Contexts:
        """The contexts of a document.

        Args:
            token_ids: the document, which may be unfinished.
            layout: of the document, for its branches.
            start: position of its first token.
        """
        found = cls(tokens)
        found._read(_lines(layout), token_ids, start, 0)
        return found

    def __iter__(self) -> Iterator[ContextToken]:
        """The tokens; those that are `own` come in the order of the document."""
        return iter(self.sequence)

    def _put(self, token_ids: Sequence[int], position: int, branch: int, *, own: bool) -> int:
        """Append tokens to a context; returns the next position."""
        self.sequence += [ContextToken(token, branch, position + at, own) for at, token in enumerate(token_ids)]
        return position + len(token_ids)

    def _read(self, line: _Line, token_ids: Sequence[int], position: int, branch: int) -> list[int]:
        """Append a line and its paths; returns the tokens that the line's own context has from its beginning."""
        text: list[int] = []
        for item in line.items:
            if isinstance(item, list):
                piece, own = [token_ids[at] for at in item], True
            else:
                paths: list[list[int]] = []
                for path in item.lines:
                    self.parents.append(branch)
                    paths.append(self._read(path, token_ids, position, len(self.parents) - 1))
                # Behind a block that is still open nobody has read anything.
                piece, own = merge(paths, self.tokens) if item is not line.items[-1] else [], False
            position = self._put(piece, position, branch, own=own)
            text += piece
        return text

    @property
    def visibility(self) -> tuple[tuple[bool, ...], ...]:
        """For every pair of branches, whether tokens of the first may attend to earlier tokens of the second."""
        size = len(self.parents)
        rows = [[False] * size for _ in range(size)]
        for index, row in enumerate(rows):
            step = index
            while step >= 0:
                row[step] = True
                step = self.parents[step]
        return tuple(map(tuple, rows))


def _lines(layout: Layout) -> _Line:
    """The branches of a document as a tree of lines and blocks."""
    lines = {0: _Line()}
    blocks: dict[int, _Block] = {}
    for at, index in enumerate(layout.writers):
        if index not in lines:
            spec = layout.table[index]
            if spec.block not in blocks:
                blocks[spec.block] = _Block()
                lines[spec.parent].items.append(blocks[spec.block])
            lines[index] = _Line()
            blocks[spec.block].lines.append(lines[index])
        items = lines[index].items
        if not items or isinstance(items[-1], _Block):
            items.append([])
        last = items[-1]
        assert isinstance(last, list)
        last.append(at)
    return lines[0]
