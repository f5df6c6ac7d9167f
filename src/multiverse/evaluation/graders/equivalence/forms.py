"""Forms of an answer: a value, a list, a tuple, a set, a region of the real numbers, a matrix, a relation, words."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .expression import Expr


class Unreadable(Exception):  # noqa: N818 - the message is shown as it stands
    """The text cannot be read as mathematics."""


@dataclass(frozen=True)
class Value:
    """An expression, its units among its factors."""

    expr: Expr


@dataclass(frozen=True)
class Items:
    """Several answers.

    Attributes:
        kind: ``list`` (1, 2), ``tuple`` (in brackets; an open interval is written in the same way), ``set``, ``vector`` (in
            angle brackets), or ``row`` (numbers with nothing but blanks between them).
    """

    kind: Literal["list", "tuple", "set", "vector", "row"]
    items: tuple[Form, ...]


@dataclass(frozen=True)
class Span:
    """An interval of real numbers; an end may be infinite."""

    low: Expr
    high: Expr
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True)
class Sets:
    """A combination of sets.

    Attributes:
        name: ``cup``, ``cap`` or ``setminus``.
    """

    name: str
    items: tuple[Form, ...]


@dataclass(frozen=True)
class Builder:
    """A set described by a condition."""

    condition: Form


@dataclass(frozen=True)
class Matrix:
    """A matrix, by rows."""

    rows: tuple[tuple[Expr, ...], ...]


@dataclass(frozen=True)
class Relation:
    """A chain ``a = b < c``.

    Attributes:
        signs: one fewer than `sides`: ``= != < <= > >= in ~`` (``~``: about equal).
    """

    sides: tuple[Form, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Joined:
    """Relations that hold together, or one of which holds.

    Attributes:
        name: ``and`` or ``or``.
    """

    name: Literal["and", "or"]
    items: tuple[Form, ...]


@dataclass(frozen=True)
class Word:
    """Words, in small letters and without punctuation."""

    text: str


@dataclass(frozen=True)
class Based:
    """A numeral in a base that it names."""

    value: Fraction
    base: int


Form = Value | Items | Span | Sets | Builder | Matrix | Relation | Joined | Word | Based
