"""Parser from text to tree.

Where a dialect's white space is exact a parsed document renders back to the same text, character for character. Where it is
free texts lose the white space around them, and the tree renders with that of the dialect. What becomes of a block that breaks
the rules is said by `Dialect.malformed`: an error; a block as it was written; or a text, tags included.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import StructureError
from .dialect import CLOSES, Dialect, Role, child_label
from .dialects import MULTIVERSE
from .render import render
from .tree import AsWritten, Block, Body, Document


def parse(text: str, dialect: Dialect = MULTIVERSE) -> Document:
    """Parse a whole document.

    Raises:
        StructureError: with `offset`, `line` and `expected`, at the first place where the text breaks the grammar or is
            not canonical (labels, and separators where white space is exact).
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
        self.at = self.used = 0  # the next piece, and how many characters of it are read
        self.cut = False  # whether the text ends within the thinking

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
        mark = self.at
        try:
            document = self.whole()
        except StructureError:
            if self.dialect.malformed != "sequential":
                raise
            self.at = mark
            text = (self.text,) if self.text else ()
            trunk = self.dialect.think is None and self.dialect.forks_thinking
            document = Document(text) if trunk else Document(None, text)
        if self.dialect.exact:
            self.check_canonical(document, self.dialect.sep)
        return document

    def whole(self) -> Document:
        dialect, thinking = self.dialect, None
        if dialect.think is None and dialect.forks_thinking:
            thinking = self.body(closing=None, label="")
        elif self.think_follows():
            self.take(Role.THINK_OPEN)
            thinking = self.body(Role.THINK_CLOSE, "", forks=dialect.forks_thinking)
            if not self.cut:
                self.take(Role.THINK_CLOSE)
        document = Document(thinking, self.answer(left="" if thinking is None else dialect.answer_sep), cut=self.cut)
        if self.peek().offset < len(self.text):
            raise self.error(self.peek(), "the end of the document" if document.thinking is not None else "text")
        return document

    def think_follows(self) -> bool:
        """Whether the text begins with a thinking; free white space before it is skipped."""
        if not self.dialect.exact and len(self.pieces) > 1 and self.pieces[1].role is Role.THINK_OPEN:
            self.blank()
        return self.peek().role is Role.THINK_OPEN

    def answer(self, left: str) -> Body | str:
        """What follows the thinking, behind this separator."""
        if self.dialect.forks_answer:
            return self.body(closing=None, label="", left=left)
        start = self.peek().offset
        while self.peek().text and (self.peek().role is None or self.dialect.malformed == "sequential"):
            self.next()
        return self.trimmed(start, self.peek().offset, left, "")

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
        dialect = self.dialect
        forks = forks and (dialect.nests or not label)
        plain = bool(label) and not forks and dialect.outcome("nesting") == "text"  # all tags but the closing one are text
        items: list[str | Block] = []
        lead = left if closing is None else " " if label else dialect.after[Role.THINK_OPEN]
        start = self.peek().offset
        while True:
            piece = self.peek()
            ends = piece.role is closing and (closing is not None or not piece.text)
            if ends or (not piece.text and closing is Role.THINK_CLOSE and dialect.outcome("thinking") == "kept"):
                self.cut = not ends
                text = self.trimmed(start, piece.offset, lead, "" if closing is None else dialect.before[closing])
                return (*items, text) if text else tuple(items)
            if piece.text and (piece.role is None or plain):
                self.next()
            elif piece.role is dialect.begin and forks and (block := self.block_or_line(label)) is not None:
                if text := self.trimmed(start, piece.offset, lead, dialect.before[dialect.begin]):
                    items.append(text)
                items.append(block)
                lead, start = dialect.after[dialect.end], self.peek().offset
            elif piece.text and dialect.malformed == "sequential":
                self.skip_line()
            else:
                names = [self.tag(role) for role in (dialect.begin if forks else None, closing) if role is not None]
                nested = label and piece.role is dialect.begin
                flat = f" (blocks of dialect {dialect.name!r} do not nest)" if nested else ""
                raise self.error(piece, " or ".join(["text", *names]) + flat)

    def trimmed(self, start: int, end: int, left: str, right: str) -> str:
        """This part of the text without the white space of the tags around it."""
        text = self.text[start:end]
        if not self.dialect.exact:
            return text.strip()
        text = text.removeprefix(left)
        return "" if text == right else text.removesuffix(right)

    def block_or_line(self, label: str) -> Block | None:
        """A block; `None`, and nothing read, if it breaks the rules and is text."""
        at = self.at
        try:
            return self.block(label)
        except StructureError:
            if self.dialect.malformed != "sequential":
                raise
            self.at, self.used = at, 0
            return None

    def skip_line(self) -> None:
        """A tag that is text, and all up to its closing tag."""
        still_open: list[Role] = []
        while self.peek().text:
            role = self.peek().role
            if role in CLOSES and CLOSES[role] in still_open:
                del still_open[still_open.index(CLOSES[role]) :]
            elif role in CLOSES and still_open and role in (Role.THINK_CLOSE, Role.PATH_CLOSE):
                return  # of the branch around it
            elif role is not None and role in CLOSES.values() and role is not Role.THINK_OPEN:
                still_open.append(role)
            self.next()
            if not still_open:
                return

    def block(self, label: str) -> Block:
        dialect = self.dialect
        if dialect.block is not None:
            self.take(Role.BLOCK_OPEN)
            self.blank()
        outlines: list[str] = []
        numbers: list[str] = []
        if self.peek().role is not Role.PATH_OPEN or dialect.outcome("goal") != "kept":
            outlines, numbers = self.goal(label)
            self.blank()
        counted = [dialect.number(child_label(label, index)) for index in range(len(outlines))]
        if dialect.outcome("width") == "end" and not 1 <= len(outlines) <= (dialect.max_paths or len(outlines)):
            if self.peek().text:
                raise self.error(self.peek(), f"the end of the text, which {len(outlines)} outlines are")
            return Block(tuple(outlines), (), "", AsWritten(tuple(numbers), (), conclusion=False))
        paths, path_numbers = self.paths(label, numbers)
        conclusion, concludes = self.conclusion()
        if dialect.block is not None:
            self.take(Role.BLOCK_CLOSE)
        as_written = None
        if numbers != counted or path_numbers != counted or not concludes:
            as_written = AsWritten(tuple(numbers), tuple(path_numbers), concludes)
        return Block(tuple(outlines), tuple(paths), conclusion, as_written)

    def goal(self, label: str) -> tuple[list[str], list[str]]:
        """Outlines and their numbers."""
        self.take(Role.GOAL_OPEN)
        self.blank()
        outlines: list[str] = []
        numbers: list[str] = []
        most = self.dialect.max_paths
        while self.peek().role is Role.OUTLINE_OPEN or not outlines:
            if len(outlines) == most and self.dialect.outcome("width") is None:
                raise self.error(self.peek(), f"{self.tag(Role.GOAL_CLOSE)}, since a block has at most {most} paths")
            self.take(Role.OUTLINE_OPEN)
            number = self.dialect.number(child_label(label, len(outlines)))
            numbers.append(self.label(number, Role.OUTLINE_OPEN))
            start = self.peek().offset
            self.free_text()
            text = self.trimmed(start, self.peek().offset, "", self.dialect.before[Role.OUTLINE_CLOSE])
            outlines.append(text.removeprefix(" "))
            if self.dialect.outline.close:
                self.take(Role.OUTLINE_CLOSE)
                self.blank()
        if self.peek().role is not Role.GOAL_CLOSE:
            raise self.error(self.peek(), f"{self.tag(Role.OUTLINE_OPEN)} or {self.tag(Role.GOAL_CLOSE)}")
        self.take(Role.GOAL_CLOSE)
        return outlines, numbers

    def paths(self, label: str, outlines: list[str]) -> tuple[list[Body], list[str]]:
        """Paths and their numbers, for outlines of these numbers."""
        dialect = self.dialect
        expected = list(dict.fromkeys(outlines)) if dialect.outcome("labels") == "once" else outlines
        any_count = dialect.outcome("counts") == "kept" or not outlines
        paths: list[Body] = []
        numbers: list[str] = []
        while len(paths) < len(expected) or any_count:
            if self.peek().role is not Role.PATH_OPEN:
                if any_count:
                    break
                raise self.error(self.peek(), f"{self.tag(Role.PATH_OPEN)} number {len(paths) + 1} of {len(expected)}")
            self.take(Role.PATH_OPEN)
            child = child_label(label, len(paths))
            wanted = expected[len(paths)] if len(paths) < len(expected) else dialect.number(child)
            numbers.append(self.label(wanted, Role.PATH_OPEN, as_written=any_count))
            paths.append(self.body(Role.PATH_CLOSE, child))
            self.take(Role.PATH_CLOSE)
            self.between_paths()
        return paths, numbers

    def between_paths(self) -> None:
        """The white space behind a path."""
        piece = self.peek()
        self.blank()
        absent = self.dialect.after_path == "absent" and self.dialect.outcome("space") is None
        if absent and self.peek() is not piece and self.peek().role is Role.PATH_OPEN:
            raise self.error_at(piece.offset, f"found {piece.text!r}", f"{self.peek().text}, with nothing between two paths")

    def conclusion(self) -> tuple[str, bool]:
        """The conclusion of a block, and whether it has one."""
        dialect = self.dialect
        if dialect.conclusion is None:
            return "", True
        if self.peek().role is not Role.CONCLUSION_OPEN and dialect.block is not None:
            if dialect.optional_conclusion:
                return "", True
            if dialect.outcome("conclusion") == "kept":
                return "", False
        self.take(Role.CONCLUSION_OPEN)
        start = self.peek().offset
        self.free_text()
        space = dialect.before[Role.CONCLUSION_CLOSE]
        text = self.trimmed(start, self.peek().offset, dialect.after[Role.CONCLUSION_OPEN], space)
        self.take(Role.CONCLUSION_CLOSE)
        if dialect.block is not None:
            self.blank()
        return text, True

    def label(self, number: str, tag: Role, *, as_written: bool = False) -> str:
        """Read a label at the beginning of the next text; returns its number as it is written.

        Args:
            as_written: it may be any number.
        """
        piece, dialect = self.peek(), self.dialect
        found = dialect.read_number(piece.text) if piece.role is None else None
        exact = dialect.exact and dialect.malformed != "as-released"
        length = 0
        if exact:
            head = f"{dialect.after[tag]}{number}{dialect.label_end}"
            length = len(head) if piece.role is None and piece.text.startswith(head) else 0
        elif found is not None and (found[1] == number or as_written or dialect.outcome("labels") is not None):
            number, length = found[1], found.end()
        if not length:
            raise self.error(piece, f"the label {number}{dialect.label_end}")
        self.used += length
        if not self.peek().text:
            self.next()
        return number

    def peek(self) -> _Piece:
        piece = self.pieces[self.at]
        return _Piece(piece.text[self.used :], piece.role, piece.offset + self.used) if self.used else piece

    def next(self) -> None:
        self.at, self.used = self.at + 1, 0

    def take(self, role: Role) -> None:
        if self.peek().role is not role:
            raise self.error(self.peek(), self.tag(role))
        self.next()

    def free_text(self) -> None:
        """Skip the text before the next tag."""
        if self.peek().role is None and self.peek().text:
            self.next()

    def blank(self) -> None:
        """Skip white space between two tags; `check_canonical` checks that it is the exact separator."""
        piece = self.peek()
        if piece.role is None and piece.text and not piece.text.strip():
            self.next()

    def tag(self, role: Role) -> str:
        return next(tag for tag, r in self.dialect.roles.items() if r is role)

    def error(self, piece: _Piece, expected: str) -> StructureError:
        shown = piece.text.strip() or piece.text
        found = f"found {shown if piece.role is not None else repr(shown[:30])}" if piece.text else "the text ends here"
        return self.error_at(piece.offset + (len(piece.text) - len(piece.text.lstrip())), found, expected)

    def error_at(self, offset: int, problem: str, expected: str) -> StructureError:
        return StructureError(problem, expected=expected, offset=offset, line=self.text.count("\n", 0, offset) + 1)
