"""Strict parser from text to tree: a parsed document renders back to the same text, character for character."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import StructureError
from .dialect import MULTIVERSE, Dialect, Role, child_label
from .render import render
from .tree import Block, Body, Document


def parse(text: str, dialect: Dialect = MULTIVERSE) -> Document:
    """Parse a whole document.

    Raises:
        StructureError: with `offset`, `line` and `expected`, at the first place where the text breaks the grammar or is
            not canonical (separators, labels).
    """
    try:
        return _Parser(text, dialect).document()
    except StructureError:
        if (crlf := text.find("\r\n")) < 0 or not _reads(text.replace("\r\n", "\n"), dialect):
            raise
        line = text.count("\n", 0, crlf) + 1
        problem = "the lines end in CRLF, as on Windows"
        raise StructureError(problem, expected="lines that end in LF: convert them", offset=crlf, line=line) from None
    except RecursionError:
        raise StructureError(
            "blocks are nested too deeply", expected="a document with fewer nested blocks", offset=0, line=1
        ) from None


def _reads(text: str, dialect: Dialect) -> bool:
    try:
        _Parser(text, dialect).document()
    except StructureError:
        return False
    return True


class _Piece(NamedTuple):
    """A tag (role set) or the text between two tags (role `None`)."""

    text: str
    role: Role | None
    offset: int


class _Parser:
    def __init__(self, text: str, dialect: Dialect) -> None:
        self.text, self.dialect = text, dialect
        self.pieces = self._pieces()
        self.at = 0

    def _pieces(self) -> list[_Piece]:
        roles = self.dialect.roles
        pattern = "|".join(re.escape(tag) for tag in sorted(roles, key=len, reverse=True))
        pieces, start = [], 0
        for match in re.finditer(pattern, self.text):
            if match.start() > start:
                pieces.append(_Piece(self.text[start : match.start()], None, start))
            pieces.append(_Piece(match.group(), roles[match.group()], match.start()))
            start = match.end()
        if start < len(self.text):
            pieces.append(_Piece(self.text[start:], None, start))
        pieces.append(_Piece("", None, len(self.text)))  # end of text
        return pieces

    def document(self) -> Document:
        dialect, thinking = self.dialect, None
        if dialect.think is None and dialect.forks_thinking:
            thinking = self.body(closing=None, label="")
        elif self.peek().role is Role.THINK_OPEN:
            self.take(Role.THINK_OPEN)
            thinking = self.body(Role.THINK_CLOSE, "", forks=dialect.forks_thinking)
            self.take(Role.THINK_CLOSE)
        document = Document(thinking, self.answer(left="" if thinking is None else dialect.answer_sep))
        if self.peek().offset < len(self.text):
            raise self.error(self.peek(), "the end of the document" if document.thinking is not None else "text")
        self.check_canonical(document, dialect.sep)
        return document

    def answer(self, left: str) -> Body | str:
        """What follows the thinking, behind this separator."""
        if self.dialect.forks_answer:
            return self.body(closing=None, label="", left=left)
        return self.free_text().removeprefix(left)

    def check_canonical(self, document: Document, sep: str) -> None:
        canonical = render(document, self.dialect)
        if canonical == self.text:
            return
        pairs = zip(canonical, self.text, strict=False)
        offset = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(canonical), len(self.text)))
        there = repr(canonical[offset : offset + 12]) if offset < len(canonical) else "the end of the document"
        found = repr(self.text[offset : offset + 12]) if offset < len(self.text) else "the end of the document"
        apart = f"stand apart by one {sep!r}" if sep else "and texts stand next to each other"
        raise self.error_at(offset, f"found {found}", f"{there} (tags {apart})")

    def body(self, closing: Role | None, label: str, *, forks: bool = True, left: str = "") -> Body:
        """Texts and, with `forks`, blocks up to, not including, the closing tag (or the end of the text).

        Args:
            left: with no closing tag, the separator before the body.
        """
        begin = Role.BLOCK_OPEN if self.dialect.block is not None else Role.GOAL_OPEN
        sep = self.dialect.sep
        items: list[str | Block] = []
        while True:
            piece = self.peek()
            if piece.role is None and piece.text:
                self.at += 1
                # At the edges of the document there is no tag, and so no separator to remove.
                edge = left if closing is None else " " if label else sep
                right = sep if self.peek().role is not None else ""
                text = piece.text.removeprefix(sep if items else edge)
                text = "" if text == right else text.removesuffix(right)
                if text:
                    items.append(text)
            elif piece.role is begin and forks:
                items.append(self.block(label))
            elif piece.role is closing and (closing is not None or not piece.text):
                return tuple(items)
            else:
                names = [self.tag(role) for role in (begin if forks else None, closing) if role is not None]
                raise self.error(piece, " or ".join(["text", *names]))

    def block(self, label: str) -> Block:
        if self.dialect.block is not None:
            self.take(Role.BLOCK_OPEN)
            self.blank()
        outlines = self.goal(label)
        self.blank()
        paths = []
        for index in range(len(outlines)):
            if self.peek().role is not Role.PATH_OPEN:
                raise self.error(self.peek(), f"{self.tag(Role.PATH_OPEN)} number {index + 1} of {len(outlines)}")
            self.take(Role.PATH_OPEN)
            child = child_label(label, index)
            self.label(child)
            paths.append(self.body(Role.PATH_CLOSE, child))
            self.take(Role.PATH_CLOSE)
            self.blank()
        conclusion = ""
        if self.dialect.conclusion is not None:
            self.take(Role.CONCLUSION_OPEN)
            conclusion = self.inner(self.free_text())
            self.take(Role.CONCLUSION_CLOSE)
        if self.dialect.block is not None:
            if self.dialect.conclusion is not None:
                self.blank()
            self.take(Role.BLOCK_CLOSE)
        return Block(tuple(outlines), tuple(paths), conclusion)

    def goal(self, label: str) -> list[str]:
        self.take(Role.GOAL_OPEN)
        self.blank()
        outlines: list[str] = []
        while self.peek().role is Role.OUTLINE_OPEN or not outlines:
            self.take(Role.OUTLINE_OPEN)
            self.label(child_label(label, len(outlines)))
            outlines.append(self.inner(self.free_text()).removeprefix(" "))
            if self.dialect.outline.close:
                self.take(Role.OUTLINE_CLOSE)
                self.blank()
        if self.peek().role is not Role.GOAL_CLOSE:
            raise self.error(self.peek(), f"{self.tag(Role.OUTLINE_OPEN)} or {self.tag(Role.GOAL_CLOSE)}")
        self.take(Role.GOAL_CLOSE)
        return outlines

    def inner(self, text: str) -> str:
        return text.removeprefix(self.dialect.sep).removesuffix(self.dialect.sep)

    def label(self, label: str) -> None:
        """Remove a label from the beginning of the next text."""
        piece = self.peek()
        head = self.dialect.outline_head(label)
        if piece.role is not None or not piece.text.startswith(head):
            raise self.error(piece, f"the label {self.dialect.label_text(label)}")
        self.pieces[self.at] = _Piece(piece.text[len(head) :], None, piece.offset + len(head))
        if not self.pieces[self.at].text:
            self.at += 1

    def peek(self) -> _Piece:
        return self.pieces[self.at]

    def take(self, role: Role) -> None:
        if self.peek().role is not role:
            raise self.error(self.peek(), self.tag(role))
        self.at += 1

    def free_text(self) -> str:
        piece = self.peek()
        if piece.role is not None or not piece.text:
            return ""
        self.at += 1
        return piece.text

    def blank(self) -> None:
        """Skip white space between two tags; `check_canonical` checks that it is the exact separator."""
        piece = self.peek()
        if piece.role is None and piece.text and not piece.text.strip():
            self.at += 1

    def tag(self, role: Role) -> str:
        return next(tag for tag, r in self.dialect.roles.items() if r is role)

    def error(self, piece: _Piece, expected: str) -> StructureError:
        shown = piece.text.strip() or piece.text
        found = f"found {shown if piece.role is not None else repr(shown[:30])}" if piece.text else "the text ends here"
        return self.error_at(piece.offset + (len(piece.text) - len(piece.text.lstrip())), found, expected)

    def error_at(self, offset: int, problem: str, expected: str) -> StructureError:
        return StructureError(problem, expected=expected, offset=offset, line=self.text.count("\n", 0, offset) + 1)
