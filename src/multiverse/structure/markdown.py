"""A forked answer as ordinary Markdown, without tags and labels: what somebody reads who knows nothing of blocks.

Each path stands under its outline as a heading, and a block's conclusion behind its last path::

    Two questions.              Two questions.
    <Parallel>
    <Goal>                      ### Bread
    <Outline>
    1: Bread                    It is baked.
    </Outline>
    ...                         ### Magnets

Texts, headings and conclusions stand apart by an empty line, and a text loses the white space around it. A text without a
block is itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from .dialect import Dialect, Role, child_label
from .dialects import MULTIVERSE
from .tree import Body

_APART = "\n\n"
_HEADING = 3  # level of the headings of an outermost block
_DEEPEST = 6  # Markdown has no deeper heading


class MarkdownWriter:
    """Turns the tags and texts of an answer, in document order, into Markdown.

    What it returns is certain: white space is held back until a text goes on behind it. Texts come without labels. Tags may
    come in any order; what breaks the grammar is written as well as it can be.

    Attributes:
        begun: whether anything has been written.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._last = Role.CONCLUSION_CLOSE if dialect.conclusion is not None else Role.BLOCK_CLOSE
        self._blocks: list[list[str]] = []  # outlines of the open blocks whose paths have not begun
        self._outline: str | None = None
        self._held = ""  # white space at the end of the text so far
        self._apart = False  # whether the next text is a new one
        self.begun = False

    def tag(self, role: Role, branch: str | None = None) -> str:
        """What a tag adds: the heading of a path, or nothing.

        Args:
            branch: label path of the branch that writes it, if that is known: a path then also has its own heading behind one
                that was cut off, with blocks that are still open.
        """
        self._held, self._apart = "", True
        if role is Role.PATH_OPEN and branch is not None:
            _leave(self._blocks, branch)
            self._outline = None
        if self._outline is not None and role in (Role.OUTLINE_OPEN, Role.OUTLINE_CLOSE, Role.GOAL_CLOSE):
            if self._blocks:
                self._blocks[-1].append(" ".join(self._outline.split()))
            self._outline = None
        match role:
            case Role.GOAL_OPEN:
                self._blocks.append([])
            case Role.OUTLINE_OPEN:
                self._outline = ""
            case Role.PATH_OPEN if self._blocks and self._blocks[-1]:
                return self._heading(self._blocks[-1].pop(0))
            case self._last if self._blocks:
                self._blocks.pop()
        return ""

    def text(self, text: str) -> str:
        """What a text adds, with the white space before it that was held back."""
        if self._outline is not None:
            self._outline += text
            return ""
        if self._apart or not self.begun:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            self._held += text
            return ""
        before = self._separator() if self._apart else self._held
        self._held = text[len(body) :]
        self._apart, self.begun = False, True
        return before + body

    def _heading(self, outline: str) -> str:
        if not outline:
            return ""
        heading = f"{self._separator()}{'#' * min(_HEADING + len(self._blocks) - 1, _DEEPEST)} {outline}"
        self.begun = True
        return heading

    def _separator(self) -> str:
        return _APART if self.begun else ""


def markdown(body: Body) -> str:
    """A body as Markdown."""
    writer = MarkdownWriter(MULTIVERSE)
    return "".join(_written(body, writer))


def markdown_text(text: str, dialect: Dialect) -> str:
    """The text of an answer, with tags, as Markdown; a text that breaks the grammar or was cut off as well as it can be."""
    roles = dialect.roles
    pieces = re.split("(" + "|".join(re.escape(tag) for tag in sorted(roles, key=len, reverse=True)) + ")", text)
    return markdown_pieces(((None, roles.get(piece, piece)) for piece in pieces), dialect)


def markdown_pieces(pieces: Iterable[tuple[str | None, Role | str]], dialect: Dialect) -> str:
    """As `markdown_text`, for the tags and the texts between them, each with the label path of its branch if that is known."""
    writer, labels = MarkdownWriter(dialect), _Labels(dialect)
    out = []
    for branch, piece in pieces:
        if isinstance(piece, Role):
            labels.tag(piece, branch)
            out.append(writer.tag(piece, branch))
        else:
            out.append(writer.text(labels.strip(piece)))
    return "".join(out)


def _leave(open_: list[Any], branch: str) -> None:
    """Drop what earlier paths, cut off, have left open, where a path begins."""
    del open_[branch.count(".") + 1 :]


def _written(body: Body, writer: MarkdownWriter) -> Iterator[str]:
    for item in body:
        if isinstance(item, str):
            yield writer.text(item)
            continue
        yield writer.tag(Role.GOAL_OPEN)
        for outline in item.outlines:
            yield writer.tag(Role.OUTLINE_OPEN)
            yield writer.text(outline)
            yield writer.tag(Role.OUTLINE_CLOSE)
        for path in item.paths:
            yield writer.tag(Role.PATH_OPEN)
            yield from _written(path, writer)
            yield writer.tag(Role.PATH_CLOSE)
        yield writer.tag(Role.CONCLUSION_OPEN)
        yield writer.text(item.conclusion)
        yield writer.tag(Role.CONCLUSION_CLOSE)
        yield writer.tag(Role.BLOCK_CLOSE)


class _Labels:
    """Removes the labels of outlines and paths from a text that is read tag by tag."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._last = Role.CONCLUSION_CLOSE if dialect.conclusion is not None else Role.BLOCK_CLOSE
        self._blocks: list[tuple[str, int, int]] = []  # of each open block: its branch's label, outlines, paths
        self._path: list[str] = []  # labels of the open paths
        self._label: str | None = None

    def tag(self, role: Role, branch: str | None = None) -> None:
        self._label = None
        if branch is None:
            branch = self._path[-1] if self._path else ""
        elif role is Role.PATH_OPEN:
            _leave(self._blocks, branch)
        match role:
            case Role.GOAL_OPEN:
                self._blocks.append((branch, 0, 0))
            case Role.OUTLINE_OPEN if self._blocks:
                parent, outlines, paths = self._blocks[-1]
                self._label = child_label(parent, outlines)
                self._blocks[-1] = (parent, outlines + 1, paths)
            case Role.PATH_OPEN if self._blocks:
                parent, outlines, paths = self._blocks[-1]
                self._label = child_label(parent, paths)
                self._path.append(self._label)
                self._blocks[-1] = (parent, outlines, paths + 1)
            case Role.PATH_CLOSE if self._path:
                self._path.pop()
            case self._last if self._blocks:
                self._blocks.pop()

    def strip(self, text: str) -> str:
        """The text behind the newest tag, without its label."""
        if self._label is None:
            return text
        if self._dialect.begins_label(text.strip(), self._label):  # it was cut off
            return ""
        return self._dialect.without_label(text, self._label)
