"""A benchmark: the data set with its rows, how a row becomes a question, and the grader of the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...errors import DataError
from ...structure import last_box
from ..config import EvaluationConfig
from ..graders.verdict import Verdict

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique within its benchmark.
        text: the question, without the instruction of the mode.
        expected: the right answer, in readable form.
        data: what else the grader needs.
        bare: the question without a sentence that asks for a final answer within a box; `None` if it has none.
    """

    id: str
    text: str
    expected: str
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    bare: str | None = field(default=None, repr=False)

    def asked(self, boxed: bool) -> str:
        """The question for a model whose instructions ask for a box already, or do not."""
        return self.bare if boxed and self.bare is not None else self.text


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub.

    Attributes:
        name: its id.
        split: its split.
        config: its configuration; `None` if there is only one.
        files: JSON lines of the repository to read instead of the data set's own loading.
    """

    name: str
    split: str
    config: str | None = None
    files: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A set of questions and how they are graded.

    Attributes:
        name: on the command line and in tables.
        title: in messages.
        epochs: how often each question is asked by default.
        hub: data set with its rows; `None` if the questions are generated, by `make`.
        read: makes a question of a row and its number, from 0. Raises `DataError` for an invalid row.
        grade: grades the answer to a question. Called on worker threads, so it may block.
        grades: what `grade` gets: the ``answer`` that is read from what follows the thinking; all of that (``content``); or
            all of that if it holds a ``box``, which the grader reads itself, else the answer.
        make: generates the questions (`limit`, `seed`, shape and wording of the configuration).
    """

    name: str
    title: str
    grade: Callable[[Question, str], Verdict]
    epochs: int = 1
    hub: Hub | None = None
    read: Callable[[Row, int], Question] | None = None
    make: Callable[[EvaluationConfig], list[Question]] | None = None
    grades: Literal["answer", "box", "content"] = "answer"

    def given(self, answer: str, content: str) -> str:
        """What `grade` gets of a response."""
        return content if self.grades == "content" or (self.grades == "box" and last_box(content) is not None) else answer


def optional(row: Row, *names: str) -> Any:
    """The value of the first of these columns that the row has, upper or lower case; `None` if it has none."""
    columns = {name.lower(): value for name, value in row.items()}
    return next((value for name in names if (value := columns.get(name.lower())) is not None), None)


def cell(row: Row, number: int, *names: str) -> Any:
    """As `optional`, for a column that is needed.

    Raises:
        DataError: the row has none of them.
    """
    if (value := optional(row, *names)) is not None:
        return value
    raise DataError(f"row {number + 1} has no {' or '.join(names)}: its columns are {', '.join(row) or 'none'}")
