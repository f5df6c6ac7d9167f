"""What a benchmark is: where its rows come from, how a row becomes a question, and who grades the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import DataError
from ..graders.verdict import Verdict

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique within its benchmark.
        text: what is asked, without the sentence that asks for a way of thinking.
        expected: the right answer, as people read it.
        data: whatever else its grader needs.
    """

    id: str
    text: str
    expected: str
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub.

    Attributes:
        name: its id.
        config: its configuration; `None` if there is but one.
        split: which part of it.
        files: read these files of it, instead of what the data set makes of them.
    """

    name: str
    split: str
    config: str | None = None
    files: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A set of questions and how they are graded.

    Attributes:
        name: what it is called on the command line and in tables.
        title: what it is, in a few words.
        epochs: how often each question is asked unless somebody says otherwise.
        hub: where its rows are; `None` if they are made, by `make`.
        read: makes a question of a row; the number is the row's, from 0. Raises `DataError` for a row that is none.
        grade: judges the answer to a question. It may take its time: it is called on a thread of its own.
        make: makes so many questions from a seed.
    """

    name: str
    title: str
    grade: Callable[[Question, str], Verdict]
    epochs: int = 1
    hub: Hub | None = None
    read: Callable[[Row, int], Question] | None = None
    make: Callable[[int, int], list[Question]] | None = None


def cell(row: Row, number: int, *names: str) -> Any:
    """The first of these columns that the row has; upper and lower case are one.

    Raises:
        DataError: it has none of them.
    """
    columns = {name.lower(): value for name, value in row.items()}
    for name in names:
        if columns.get(name.lower()) is not None:
            return columns[name.lower()]
    raise DataError(f"row {number + 1} has no {' or '.join(names)}: its columns are {', '.join(row) or 'none'}")
