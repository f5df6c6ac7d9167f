"""Steps on one number in natural wording: what a person does with what they count, or what is ordered to be done.

A solution repeats the words of the question before it calculates, so that every step can be copied, then computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..problem import listing
from ..steps import LIMIT, Step, draw_steps
from ..wording import STARTS, TERMS, Draws

DEEDS: dict[str, tuple[str, ...]] = {
    "add": (
        "finds {n} more",
        "gets {n} from a friend",
        "buys {n} more",
        "wins another {n}",
        "is given {n}",
        "picks up {n} more",
        "collects {n} extra",
        "receives {n} as a present",
        "adds {n} more",
        "borrows {n} from a cousin",
        "is handed {n} by a neighbour",
        "comes across {n} more",
    ),
    "take": (
        "gives away {n}",
        "loses {n}",
        "sells {n}",
        "hands {n} to a neighbour",
        "drops {n}",
        "trades {n} away",
        "puts {n} aside for later",
        "throws out {n}",
        "lends {n} to a classmate",
        "leaves {n} behind",
        "breaks {n}",
        "returns {n}",
    ),
    "double": (
        "doubles that number",
        "ends up with twice as many",
        "doubles the pile",
        "gets as many again",
        "sees the number double",
        "multiplies the pile by two",
    ),
    "triple": (
        "triples that number",
        "ends up with three times as many",
        "triples the pile",
        "sees the number triple",
        "gets twice as many on top",
        "multiplies the pile by three",
    ),
    "halve": (
        "gives half of them away",
        "keeps only half",
        "sells half of them",
        "loses half of them",
        "shares them evenly with a sister",
        "has to hand over half",
    ),
}
"""In the third person, after "Mia has seven marbles"."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "add": (
        "add {n}",
        "increase it by {n}",
        "put {n} on top",
        "plus {n}",
        "add another {n}",
        "raise it by {n}",
        "make it {n} larger",
        "count {n} further up",
        "go up by {n}",
    ),
    "take": (
        "subtract {n}",
        "take away {n}",
        "decrease it by {n}",
        "minus {n}",
        "remove {n}",
        "lower it by {n}",
        "make it {n} smaller",
        "count {n} back down",
        "go down by {n}",
    ),
    "double": ("double it", "multiply it by two", "take twice that", "make it twice as large", "times two", "add it to itself"),
    "triple": (
        "triple it",
        "multiply it by three",
        "take three times that",
        "make it three times as large",
        "times three",
        "treble it",
    ),
    "halve": (
        "halve it",
        "divide it by two",
        "take half of that",
        "cut it in half",
        "take one half of it",
        "split it in two equal parts and keep one",
    ),
}
"""Orders, for a number without a story."""


@dataclass(frozen=True)
class Told:
    """A calculation in words: of one person, or of a number without a name.

    Attributes:
        name: who calculates; may be empty.
        start: the first number.
        steps: each step with its words.
    """

    name: str
    start: int
    steps: tuple[tuple[Step, str], ...]

    @property
    def result(self) -> int:
        value = self.start
        for step, _ in self.steps:
            value = step.apply(value)
        return value

    @property
    def deeds(self) -> str:
        """``finds 5 more, loses 3 and doubles the pile``."""
        return listing([words for _, words in self.steps])

    @property
    def working(self) -> str:
        """``Finds 5 more: 7+5=12. Doubles the pile: 12*2=24.``"""
        return work_out(self.start, self.steps)


def work_out(start: int, steps: Sequence[tuple[Step, str]]) -> str:
    """Each step in the words of the question, then its equation."""
    parts, value = [], start
    for step, words in steps:
        equation = step.working(value).rpartition(": ")[2]
        parts.append(f"{words[0].upper()}{words[1:]}: {equation}.")
        value = step.apply(value)
    return " ".join(parts)


def worded(draws: Draws, steps: Sequence[Step], table: Mapping[str, Sequence[str]]) -> tuple[tuple[Step, str], ...]:
    """Steps, each with words drawn for it."""
    return tuple((step, draws.phrase(table[step.kind]).format(n=step.term)) for step in steps)


def tell(draws: Draws, name: str, count: int, table: Mapping[str, Sequence[str]] = DEEDS) -> Told:
    """A calculation of `count` steps (or of as many as the wording asks for) whose values stay between 1 and `LIMIT`."""
    start = draws.rng.randint(*draws.span(STARTS))
    steps = draw_steps(draws.rng, (start,), count if draws.steps is None else draws.steps, LIMIT, draws.span(TERMS))
    return Told(name, start, worded(draws, steps, table))
