"""Training features for the other ways of joining, in which keys and values of paths are thrown away. No torch here.

Under a *text join* each path is decoded by itself behind the text that precedes the block, and its text is then read again,
as plain linear text, by whoever forked it (ThreadWeaver's way). Under a *message join* only a short message of each path comes
back to whoever forked it (APR's way). In both a model only ever sees plain causal contexts, one for the trunk and one for each
path, with positions counted through. Here all contexts of a document are packed into one sequence, in which what a path shares
with its parent is computed once:

    trunk up to the block | path 1 | path 2 | joined text, and the rest of the trunk

A path sees itself and what stands before it in its parent; the parent never sees the path, only the joined text in its own
line. Blocks inside a path are joined within the path's line in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..structure import Encoded, Role, TokenDialect

Join = Literal["kv", "text", "message"]
"""What comes back from a path: its keys and values as they are, its text to be read again, or its message alone."""

Write = Callable[[list[int]], str]

_CLAUSE_ENDS = re.compile(r"(?<=[,.;!?])\s+|\n")


def message(path: Sequence[int], tokens: TokenDialect, decode: Write) -> list[int]:
    """What a path tells whoever forked it: its head, the last clause that it wrote, and its closing.

    A clause ends at a comma, semicolon, sentence end or line end. The last one is looked for in the last stretch between tags
    that holds any text; a path without text sends an empty message.

    Args:
        path: the path's tokens in document order, from its tag on, with or without the closing tag.
        decode: token ids to text.
    """
    close = tokens.ids[Role.PATH_CLOSE]
    head = _head(path, tokens)
    stretches: list[list[int]] = [[]]
    for token in path[head:]:
        if token in tokens.roles:
            stretches.append([])
        else:
            stretches[-1].append(token)
    texts = [decode(stretch).strip() for stretch in stretches]
    text = next((text for text in reversed(texts) if text), "")
    clause = _CLAUSE_ENDS.split(text)[-1]
    return [*path[:head], *(tokens.encode(f" {clause}") if clause else ()), *tokens.sep, close, *tokens.sep]


def _head(path: Sequence[int], tokens: TokenDialect) -> int:
    """Length of a path's head. The label is the path's own; it ends where every path's head ends, behind the label's end."""
    end = tokens.path_head("1")[-1]
    return path.index(end) + 1


@dataclass
class Line:
    """What the trunk or a path writes, in order: stretches of its own tokens, and blocks."""

    items: list[Stretch | Block] = field(default_factory=list)


@dataclass
class Stretch:
    """Tokens in a row, and whether the engine, or here the client, writes them."""

    token_ids: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)


@dataclass
class Block:
    """The lines of a block's paths."""

    lines: list[Line] = field(default_factory=list)


def lines_of(encoded: Encoded) -> Line:
    """The document as lines within lines."""
    where = encoded.layout
    lines = {0: Line()}
    blocks: dict[int, Block] = {}
    for token, forced, index in zip(encoded.token_ids, where.forced, where.branches, strict=True):
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
    """All contexts of a document as one sequence; see the module's head.

    Attributes:
        learned: whether a token takes loss: it is the model's own, and not read a second time.
        parents: for each segment, the one whose earlier tokens it sees, too; -1 for the trunk.
    """

    join: Join
    tokens: TokenDialect
    decode: Write
    token_ids: list[int] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [-1])

    def put(self, token_ids: Sequence[int], learned: Sequence[bool], position: int, segment: int) -> int:
        """Append tokens to a context; returns its next position."""
        self.token_ids += token_ids
        self.learned += learned
        self.positions += range(position, position + len(token_ids))
        self.segments += [segment] * len(token_ids)
        return position + len(token_ids)

    def line(self, line: Line, position: int, segment: int) -> tuple[int, list[int]]:
        """Append a line with everything below it; returns its next position, and its text as its parent reads it again."""
        text: list[int] = []
        for item in line.items:
            if isinstance(item, Stretch):
                position = self.put(item.token_ids, [not forced for forced in item.forced], position, segment)
                text += item.token_ids
                continue
            joined: list[int] = []
            for path in item.lines:
                self.parents.append(segment)
                _, told = self.line(path, position, len(self.parents) - 1)
                joined += told if self.join == "text" else message(told, self.tokens, self.decode)
            position = self.put(joined, [False] * len(joined), position, segment)
            text += joined
        return position, text

    @property
    def visibility(self) -> tuple[tuple[bool, ...], ...]:
        """For every pair of segments, whether tokens of the one may attend to earlier tokens of the other."""
        size = len(self.parents)
        rows = [[False] * size for _ in range(size)]
        for index, row in enumerate(rows):
            step = index
            while step >= 0:
                row[step] = True
                step = self.parents[step]
        return tuple(map(tuple, rows))


def pack_contexts(prompt: Sequence[int], encoded: Encoded, end: int, join: Join, tokens: TokenDialect, decode: Write) -> Packed:
    """All contexts of one solved question as one sequence.

    Args:
        prompt: token ids of the question; no loss is taken on them.
        end: the token that ends the answer.
        join: ``text`` or ``message``.
    """
    packed = Packed(join, tokens, decode)
    position = packed.put(prompt, [False] * len(prompt), 0, 0)
    position, _ = packed.line(lines_of(encoded), position, 0)
    packed.put([end], [True], position, 0)
    return packed
