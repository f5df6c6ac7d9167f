"""Rows of a data set, and faults in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..structure import MULTIVERSE, Dialect, Document, render


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """A structured document with its prompt.

    Attributes:
        prompt: the messages before the document; empty if the source has documents only.
        source: path of its file, or hub id and split.
        line: line of the file, or number of the row, from 1.
        sequential: a solution without forks, if the source has one; otherwise training derives it from the document.
    """

    prompt: tuple[Message, ...]
    document: Document
    source: str
    line: int
    sequential: Document | None = None

    @property
    def question(self) -> str:
        """The user's messages of the prompt."""
        return "\n".join(message.content for message in self.prompt if message.role == "user").strip()

    def record(self, dialect: Dialect = MULTIVERSE) -> dict[str, Any]:
        """The row as a record of a file."""
        record: dict[str, Any] = {"messages": self.messages(dialect)}
        if self.sequential is not None:
            record["sequential"] = render(self.sequential, dialect)
        return record

    def messages(self, dialect: Dialect = MULTIVERSE) -> list[dict[str, str]]:
        """The prompt, and the rendered document as the last message."""
        answer = Message("assistant", render(self.document, dialect))
        return [message._asdict() for message in (*self.prompt, answer)]


class Fault(NamedTuple):
    """A row that cannot be read, or cannot be used.

    Attributes:
        source, line: as of a row; for a document that is a file of its own, `line` is the line of the fault in it.
        problem: what is wrong, and the remedy.
    """

    source: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.problem}"


class Duplicate(NamedTuple):
    """A row that is the same as an earlier one: the same prompt, document and sequential solution.

    Attributes:
        source, line: of the row.
        first: source and line of the earlier one.
    """

    source: str
    line: int
    first: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: the same as {self.first}"


class Loaded(NamedTuple):
    """Rows, and faults in place of the others."""

    rows: list[Row]
    faults: list[Fault]
