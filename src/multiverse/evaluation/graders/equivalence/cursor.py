"""A position among the tokens of an answer, and what every part of the reader needs."""

from __future__ import annotations

from collections.abc import Sequence

from .forms import Form, Unreadable
from .nodes import Node
from .tokens import Token

_DEEPEST = 60


class Cursor:
    """Tokens, a position among them, and what can be read from there."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.bars = 0  # absolute values that are open
        self.builders = 0  # set-builders that are open
        self.unit_ended = False  # whether the last product ended in a unit
        self.separator = ","
        self.depth = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.at]

    @property
    def ended(self) -> bool:
        """Whether no token is left."""
        return self.token.kind == "end"

    def after(self, count: int = 1) -> Token:
        """A later token."""
        return self.tokens[min(self.at + count, len(self.tokens) - 1)]

    def take(self) -> Token:
        """Take the next token."""
        token = self.token
        if token.kind == "end":
            raise Unreadable("the text ends too early")
        self.at += 1
        return token

    def expect(self, text: str) -> None:
        """Take a token, which has to be this one."""
        if self.token.text != text:
            raise Unreadable(f"expected {text!r}, not {self.token.text!r}")
        self.take()

    def count(self, kind: str) -> int:
        """Number of tokens of a kind."""
        return sum(token.kind == kind for token in self.tokens)

    def enter(self) -> None:
        """Go one level deeper.

        Raises:
            Unreadable: it is nested too deeply to be read.
        """
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("it is nested too deeply")

    def subscript(self) -> str:
        """The text of a subscript."""
        if self.token.text != "{":
            return self.take().text
        self.take()
        text = ""
        while self.token.text != "}":
            text += self.take().text
        self.take()
        return text

    # What the levels above define, and the ones below need.

    def sum(self) -> Node:
        """A sum."""
        raise NotImplementedError

    def factor(self) -> Node:
        """A factor."""
        raise NotImplementedError

    def primary(self) -> Node:
        """A factor without what stands behind it."""
        raise NotImplementedError

    def exponent(self) -> Node:
        """An exponent."""
        raise NotImplementedError

    def group(self) -> Node:
        """What stands in braces."""
        raise NotImplementedError

    def begins(self, token: Token) -> bool:
        """Whether a token begins a factor."""
        raise NotImplementedError

    def answer(self, closers: tuple[str, ...]) -> Form:
        """One answer, or several."""
        raise NotImplementedError

    def contents(self, closers: tuple[str, ...], items: list[Node] | None = None) -> list[Node]:
        """What stands between brackets."""
        raise NotImplementedError

    def part(self) -> Node:
        """One answer, or a part of one."""
        raise NotImplementedError
