"""Cases of both tests: a question, a solution that forks where it can, and the same solution written sequentially."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from ...data import read
from ...errors import DataError
from ...structure import Document, sequential_baseline
from ...tasks import CALCULATIONS, generate
from .options import CaseOptions


class Case(NamedTuple):
    """One question with its two solutions.

    Attributes:
        group: a task family, or the name of a data set; reports have figures for each.
        structured: the solution that forks where the question allows it.
        sequential: the same reasoning without blocks.
    """

    group: str
    question: str
    structured: Document
    sequential: Document

    @property
    def forks(self) -> bool:
        """Whether the question can be answered with a fork."""
        return self.structured.depth > 0


def load_cases(options: CaseOptions) -> list[Case]:
    """The cases of the task families, or of a data set if one is given.

    Raises:
        DataError: the data set cannot be read, or has no questions.
    """
    if options.documents is not None:
        return _from_data(options.documents, options.limit, options.seed)
    return from_tasks(CALCULATIONS if options.family == "all" else (options.family,), options.limit, options.seed)


def _from_data(source: str, limit: int, seed: int) -> list[Case]:
    loaded = read(source)
    if loaded.faults:
        raise DataError(f"{len(loaded.faults)} rows of {source!r} cannot be read, the first: {loaded.faults[0]}")
    rows = {row.question: row for row in loaded.rows if row.question}
    if not rows:
        raise DataError(f"{source!r} holds no document with a question: give a source that has questions")
    drawn = Random(seed).sample(list(rows.values()), min(limit, len(rows)))
    name = Path(source).name
    return [
        Case(name, row.question, row.document, row.sequential or sequential_baseline(row.document, conclusions=True))
        for row in drawn
    ]


def from_tasks(families: Iterable[str], n: int, seed: int) -> list[Case]:
    """`n` different questions of each family, from the test split.

    Raises:
        ValueError: an unknown family, or `n` below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: take at least one question")
    cases: dict[str, Case] = {}
    for family in families:
        # Small families repeat questions.
        for problem in generate(family, n, seed=seed, split="test"):
            cases.setdefault(problem.question, Case(family, problem.question, problem.structured, problem.sequential))
    return list(cases.values())
