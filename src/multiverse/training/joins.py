"""Training features for text joins and message joins, which discard the keys and values of paths. No torch.

With a *text join* each path is decoded after the text before its block, and its parent then prefills the path's text as plain
linear text (as in ThreadWeaver). With a *message join* the parent prefills only a short message of each path (as in APR). In
both, a model only has plain causal contexts, one for the trunk and one for each path, with positions 0, 1, 2, ... Here all
contexts of a document are packed into one sequence, in which the prefix that a path shares with its parent is computed once:

    trunk up to the block | path 1 | path 2 | joined text, and the rest of the trunk

A path attends to itself and to what precedes it in its parent; the parent never attends to the path, only to the joined text in
its own context. Blocks inside a path are joined within the path's context in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..structure import Encoded, TokenDialect, merge


@dataclass
class Line:
    """The content of the trunk or of a path in order: stretches of its own tokens, and blocks."""

    items: list[Stretch | Block] = field(default_factory=list)


@dataclass
class Stretch:
    """Consecutive tokens, and whether each is forced."""

    token_ids: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)


@dataclass
class Block:
    """The paths of a block."""

    lines: list[Line] = field(default_factory=list)


def lines_of(encoded: Encoded) -> Line:
    """The document as a tree of lines and blocks."""
    where = encoded.layout
    lines = {0: Line()}
    blocks: dict[int, Block] = {}
    for token, forced, index in zip(encoded.token_ids, where.forced, where.writers, strict=True):
        if index not in lines:
            branch = where.table[index]
            if branch.block not in blocks:
                blocks[branch.block] = Block()
                lines[branch.parent].items.append(blocks[branch.block])
            lines[index] = Line()
            blocks[branch.block].lines.append(lines[index])
        items = lines[index].items
        if not items or isinstance(items[-1], Block):
            items.append(Stretch())
        last = items[-1]
        assert isinstance(last, Stretch)
        last.token_ids.append(token)
        last.forced.append(forced)
    return lines[0]


@dataclass
class Packed:
    """All contexts of a document as one sequence, as the module describes.

    Attributes:
        has_loss: whether a token has loss: it is neither forced nor part of the joined text.
        parents: for each segment, the segment to whose earlier tokens it attends as well; -1 for the trunk.
    """

    tokens: TokenDialect
    token_ids: list[int] = field(default_factory=list)
    has_loss: list[bool] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [-1])

    def put(self, token_ids: Sequence[int], has_loss: Sequence[bool], position: int, segment: int) -> int:
        """Append tokens to a context; returns the next position."""
        self.token_ids += token_ids
        self.has_loss += has_loss
        self.positions += range(position, position + len(token_ids))
        self.segments += [segment] * len(token_ids)
        return position + len(token_ids)

    def line(self, line: Line, position: int, segment: int) -> tuple[int, list[int]]:
        """Append a line and its paths; returns the next position, and the line's tokens as its parent prefills them."""
        text: list[int] = []
        for item in line.items:
            if isinstance(item, Stretch):
                position = self.put(item.token_ids, [not forced for forced in item.forced], position, segment)
                text += item.token_ids
                continue
            paths: list[list[int]] = []
            for path in item.lines:
                self.parents.append(segment)
                paths.append(self.line(path, position, len(self.parents) - 1)[1])
            joined = merge(paths, self.tokens)
            position = self.put(joined, [False] * len(joined), position, segment)
            text += joined
        return position, text

    @property
    def visibility(self) -> tuple[tuple[bool, ...], ...]:
        """For every pair of segments, whether tokens of the first may attend to earlier tokens of the second."""
        size = len(self.parents)
        rows = [[False] * size for _ in range(size)]
        for index, row in enumerate(rows):
            step = index
            while step >= 0:
                row[step] = True
                step = self.parents[step]
        return tuple(map(tuple, rows))


def pack_contexts(prompt: Sequence[int], encoded: Encoded, end: int, tokens: TokenDialect) -> Packed:
    """All contexts of a question with its solution as one sequence.

    Args:
        prompt: token ids of the question, without loss.
        end: the end-of-turn token.
        tokens: of a dialect that joins by text or by message.
    """
    packed = Packed(tokens)
    position = packed.put(prompt, [False] * len(prompt), 0, 0)
    position, _ = packed.line(lines_of(encoded), position, 0)
    packed.put([end], [True], position, 0)
    return packed
