"""What a data set consists of: rows, and faults where a row should have been."""

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
    """A structured document and what was asked.

    Attributes:
        prompt: the chat before the document; empty where the source holds documents alone.
        source: the file it was read from, or hub id and split.
        line: line of the file, or number of the row, from 1.
        sequential: the solution in a line, where the source has one of its own; elsewhere the document's twin serves.
    """

    prompt: tuple[Message, ...]
    document: Document
    source: str
    line: int
    sequential: Document | None = None

    @property
    def question(self) -> str:
        """What the user says in the prompt."""
        return "\n".join(message.content for message in self.prompt if message.role == "user").strip()

    def record(self, dialect: Dialect = MULTIVERSE) -> dict[str, Any]:
        """The row as files hold it."""
        record: dict[str, Any] = {"messages": self.messages(dialect)}
        if self.sequential is not None:
            record["sequential"] = render(self.sequential, dialect)
        return record

    def messages(self, dialect: Dialect = MULTIVERSE) -> list[dict[str, str]]:
        """The whole chat, its last message the rendered document."""
        answer = Message("assistant", render(self.document, dialect))
        return [message._asdict() for message in (*self.prompt, answer)]


class Fault(NamedTuple):
    """Why there is no row, and where.

    Attributes:
        source, line: as those of a row; for a document that is a file of its own, `line` is the line of the fault in it.
        problem: what is wrong, and the way out.
    """

    source: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.problem}"


class Loaded(NamedTuple):
    """Rows, and a fault for each one that is missing among them."""

    rows: list[Row]
    faults: list[Fault]
