"""`outcomes.jsonl`: what became of each row, one line a row, in the order of the input.

The file only ever grows by whole lines. One that was cut short by a kill is dropped when the run goes on, and all behind it;
the rows are gone through again, with answers from the store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from ..data.records import checked
from ..errors import DataError, StructureError
from ..structure import Dialect, Document, parse, render
from .errors import RunError
from .store import Usage
from .types import Curated, Outcome, Rejected, Trace

OUTCOMES = "outcomes.jsonl"

CURATED, SET_ASIDE = "curated", "set aside"
REFUSED, OURS, UNWRITABLE = "refused by the endpoint", "internal error", "cannot be written"
AGAIN = (REFUSED, OURS)
"""Reasons that say nothing about the row: when a run goes on, such rows are tried again."""


def record(number: int, outcome: Outcome, usage: Usage, dialect: Dialect) -> dict[str, Any]:
    """What the file holds of a row.

    Args:
        number: of the row, from 0.
        usage: what its answers took, whoever paid for them and when.
    """
    trace = outcome.trace
    about = {
        "row": number,
        "id": trace.id,
        "status": CURATED if isinstance(outcome, Curated) else SET_ASIDE,
        "question": trace.question,
        "reasoning": trace.reasoning,
        "answer": trace.answer,
        "source": trace.source,
        "line": trace.line,
    }
    took = {"attempts": outcome.attempts, "usage": usage._asdict()}
    if isinstance(outcome, Rejected):
        return {**about, "stage": outcome.stage, "reason": outcome.reason, "detail": outcome.detail, **took}
    return {
        **about,
        "document": render(outcome.document, dialect),
        "refilled": render(outcome.refilled, dialect),
        "distances": outcome.distances,
        "fallbacks": list(outcome.fallbacks),
        "notes": list(outcome.notes),
        **took,
    }


def writable(outcome: Outcome, dialect: Dialect) -> Outcome:
    """The outcome, set aside if training could not read what would be written of it."""
    if isinstance(outcome, Rejected):
        return outcome
    try:
        if parse(checked(render(outcome.document, dialect), "the document"), dialect) != outcome.document:
            raise ValueError("the document reads differently once it is written")
        trace = outcome.trace
        checked(trace.question, "the question")
        told = sequential(trace.reasoning, trace.answer, dialect)
        if told is not None:
            parse(checked(render(told, dialect), "the reasoning"), dialect)
    except (StructureError, ValueError) as error:
        return Rejected(outcome.trace, "output", UNWRITABLE, str(error), outcome.attempts)
    return outcome


def sequential(reasoning: str, answer: str, dialect: Dialect) -> Document | None:
    """The original reasoning as a document in a line; `None` where there is none, and the document's twin will serve."""
    text = reasoning.strip()
    if not text:
        return None
    if dialect.think is not None:
        return Document((text,), answer)
    return Document((dialect.answer_sep.join(part for part in (text, answer) if part),))


def line(record: dict[str, Any]) -> bytes:
    """A record as the file holds it. Half a character, which no file of text can hold, is written as JSON escapes it."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


class Outcomes:
    """The file, open to go on writing.

    Attributes:
        done: rows that need not be gone through again.
        statuses: of these and of all rows counted since, how many of which status.
        reasons: of those set aside, how many for which reason.

    Raises:
        RunError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._digests: list[bytes] = []
        try:
            self._file: BinaryIO = path.open("ab+")
            self._file.truncate(self._good())
            self._file.seek(0, 2)
        except OSError as error:
            raise RunError(f"{str(path)!r} cannot be written ({error.strerror}): give a folder that can be") from error
        self.done = len(self._digests)

    def _good(self) -> int:
        """Bytes up to the first line that cannot stay."""
        end = 0
        self._file.seek(0)
        for data in self._file:
            found = _read(data)
            if found is None or found["row"] != len(self._digests) or found.get("reason") in AGAIN:
                break
            self._digests.append(_digest(found["id"], found["question"], found["reasoning"], found["answer"]))
            self.count(found)
            end += len(data)
        return end

    def check(self, number: int, trace: Trace) -> None:
        """Raise `RunError` if the row that is done under this number was another."""
        if self._digests[number] != _digest(trace.id, trace.question, trace.reasoning, trace.answer):
            raise RunError(
                f"row {number + 1} of the input ({trace.id!r}) is not what it was when the run began: give the same input, "
                "another folder, or begin anew with --fresh, which keeps the stored answers"
            )

    def count(self, found: dict[str, Any]) -> None:
        """Count a row that has come to its end; it may have to wait for those before it."""
        self.statuses[found["status"]] += 1
        if found["status"] == SET_ASIDE:
            self.reasons[found["reason"]] += 1

    def write(self, found: dict[str, Any]) -> None:
        """Write the next row."""
        self._file.write(line(found))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Every row of a file of outcomes, in order."""
    with path.open("rb") as stream:
        for number, data in enumerate(stream, 1):
            found = _read(data)
            if found is None:
                raise DataError(f"{path}:{number}: the line is no outcome: run the command again, it writes it anew")
            yield found


def _read(data: bytes) -> dict[str, Any] | None:
    if not data.endswith(b"\n"):
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    needed = {"row", "id", "status", "question", "reasoning", "answer"}
    return found if isinstance(found, dict) and needed <= found.keys() else None


def _digest(*texts: str) -> bytes:
    return blake2b(json.dumps(texts).encode(), digest_size=12).digest()
