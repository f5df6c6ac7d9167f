"""Countdown: make a target from a few numbers. The search is a tree, and its first moves are the paths.

Each path walks through all its leaves in a fixed order and marks a hit with ``!``, so that no token needs look-ahead:
a model only has to compute the next leaf and compare it with the target.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import NamedTuple

from multiverse.structure.tree import Block

from .problem import Problem, forked, listing
from .rules import ExpressionRule
from .steps import LIMIT

WIDTHS = (3, 4)

_TALES = (
    "Use {numbers}, each once, with {operators} to make {target}.",
    "Make {target} from {numbers}, using each number once with {operators}.",
    "Combine {numbers}, each used once, with {operators} to get {target}.",
    "How can {numbers}, each used once, make {target} with {operators}?",
)


class Term(NamedTuple):
    """A value and the expression it comes from."""

    value: int
    text: str


class Move(NamedTuple):
    """Two terms put together."""

    left: Term
    operator: str
    right: Term

    @property
    def term(self) -> Term:
        (a, left), (b, right) = self.left, self.right
        value = {"+": a + b, "-": a - b, "*": a * b}[self.operator]
        return Term(value, f"{_inner(left)}{self.operator}{_inner(right)}")

    @property
    def working(self) -> str:
        """``21*5=105`` would need a third digit for something that can never be a target: ``21*5>99``."""
        value = self.term.value
        return f"{self.left.value}{self.operator}{self.right.value}" + (f"={value}" if value <= LIMIT else f">{LIMIT}")


class Row(NamedTuple):
    """The leaves below one move."""

    move: Move
    leaves: tuple[Move, ...]


class Path(NamedTuple):
    """One branch of the search. The head restates the numbers, so that the path can be written from what is near."""

    outline: str
    head: str
    rows: tuple[Row, ...]

    @property
    def leaves(self) -> list[Term]:
        return [leaf.term for row in self.rows for leaf in row.leaves]

    def hit(self, target: int) -> str | None:
        """The first expression that makes the target."""
        return next((leaf.text for leaf in self.leaves if leaf.value == target), None)

    def write(self, target: int) -> str:
        parts = [self.head.format(target=target)]
        for move, leaves in self.rows:
            parts.append(f"{move.working}:")
            for index, leaf in enumerate(leaves):
                mark = "!" if leaf.term.value == target else "." if index == len(leaves) - 1 else ","
                parts.append(leaf.working + mark)
        hit = self.hit(target)
        parts.append("No." if hit is None else f"Yes: {hit}.")
        return " ".join(parts)


def draw(rng: Random, width: int | None = None) -> Problem:
    """A countdown with `width` numbers."""
    count = rng.choice(WIDTHS) if width is None else width
    numbers = rng.sample(range(1, 10 if count == 3 else 21), count)
    return pose(rng, numbers, "+-*" if count == 3 else "+-", lambda: rng.choice(_TALES))


def pose(rng: Random, numbers: list[int], operators: str, tale: Callable[[], str]) -> Problem:
    """A countdown with these numbers, worded by the template that `tale` draws."""
    paths = _pairs(numbers, operators) if len(numbers) == 3 else _first_moves(numbers)
    target = rng.choice(sorted({leaf.value for path in paths for leaf in path.leaves if 1 <= leaf.value <= LIMIT}))
    answer = next(hit for path in paths if (hit := path.hit(target)) is not None)
    question = tale().format(numbers=listing(numbers), operators=listing(list(operators)), target=target)
    block = Block(
        outlines=tuple(path.outline for path in paths),
        paths=tuple((path.write(target),) for path in paths),
        conclusion=f"This works: {answer}.",
    )
    return forked("countdown", question, answer, block, ExpressionRule(tuple(numbers), operators, target))


def _pairs(numbers: list[int], operators: str) -> list[Path]:
    """Three numbers: the paths are the pairs that can go first."""
    paths = []
    for a, b in combinations(numbers, 2):
        c = next(number for number in numbers if number not in (a, b))
        rows = tuple(Row(move, _moves(move.term, _number(c), operators)) for move in _moves(_number(a), _number(b), operators))
        paths.append(Path(f"start with {a} and {b}", f"{a} and {b}, then {c}, for {{target}}.", rows))
    return paths


def _first_moves(numbers: list[int]) -> list[Path]:
    """Four numbers in their order: the paths are the first moves."""
    a, b, c, d = numbers
    paths = []
    for first in _moves(_number(a), _number(b), "+-"):
        rows = tuple(Row(move, _moves(move.term, _number(d), "+-")) for move in _moves(first.term, _number(c), "+-"))
        text = first.term.text
        paths.append(Path(f"start with {text}", f"{text}, then {c} and {d}, for {{target}}. {first.working}:", rows))
    return paths


def _moves(a: Term, b: Term, operators: str) -> tuple[Move, ...]:
    """Every move on two terms, in the order of the operators; the smaller is taken from the larger, never the reverse."""
    larger, smaller = (a, b) if a.value >= b.value else (b, a)
    return tuple(Move(larger, "-", smaller) if operator == "-" else Move(a, operator, b) for operator in operators)


def _number(value: int) -> Term:
    return Term(value, str(value))


def _inner(text: str) -> str:
    return text if text.isdigit() else f"({text})"
