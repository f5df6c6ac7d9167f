"""What both tests are made of: a question, a solution that forks where it can, and the same solution in a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...structure import Document
from ...tasks import generate


class Case(NamedTuple):
    """One question with its two solutions.

    Attributes:
        group: what reports sum up by: a task family, or the name of a data set.
        structured: the solution that forks where the question allows it; it does not fork where the question does not.
        sequential: the same reasoning in a line.
    """

    group: str
    question: str
    structured: Document
    sequential: Document

    @property
    def forks(self) -> bool:
        """Whether the structure is there to be used."""
        return self.structured.depth > 0


def from_tasks(families: Iterable[str], n: int, seed: int) -> list[Case]:
    """`n` different questions of each family, from the test split.

    Raises:
        ValueError: an unknown family, or `n` below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: take at least one question")
    cases: dict[str, Case] = {}
    for family in families:
        # A small family repeats itself; what it has is taken once.
        for problem in generate(family, n, seed=seed, split="test"):
            cases.setdefault(problem.question, Case(family, problem.question, problem.structured, problem.sequential))
    return list(cases.values())
