"""`outcomes.jsonl`: the outcome of each row, one line a row, in the order of the input.

The file grows only by whole lines. When a run is resumed, a line that was cut short by a kill is dropped with all behind it;
those rows are worked on again, with completions from the store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from ..data.records import checked
from ..errors import DataError, StructureError, writing
from ..structure import Dialect, Document, convert, parse, place, render
from .errors import RunError
from .types import Curated, Outcome, Rejected, Trace, Usage

OUTCOMES = "outcomes.jsonl"

CURATED, REJECTED = "curated", "set aside"
"""Values of `status`."""

REFUSED, INTERNAL_ERROR, UNWRITABLE = "refused by the endpoint", "internal error", "cannot be written"
_RETRIED = (REFUSED, INTERNAL_ERROR)
"""Reasons that do not concern the row itself: such rows are tried again when a run is resumed."""


def record(number: int, outcome: Outcome, usage: Usage, dialect: Dialect) -> dict[str, Any]:
    """The line of a row.

    Args:
        number: of the row, from 0.
        usage: of its completions, those from the store included.
    """
    trace = outcome.trace
    about = {
        "row": number,
        "id": trace.id,
        "status": CURATED if isinstance(outcome, Curated) else REJECTED,
        "question": trace.question,
        "reasoning": trace.reasoning,
        "answer": trace.answer,
        "source": trace.source,
        "line": trace.line,
    }
    if trace.history:
        about["history"] = [list(turn) for turn in trace.history]
    counts = {"attempts": outcome.attempts, "usage": usage._asdict()}
    if isinstance(outcome, Rejected):
        return {**about, "stage": outcome.stage, "reason": outcome.reason, "detail": outcome.detail, **counts}
    also: dict[str, Any] = {}
    if outcome.sequential is not None:
        also["sequential"] = render(outcome.sequential, dialect)
    if outcome.held_out is not None:
        also["held_out"] = outcome.held_out
    return {
        **about,
        "document": render(outcome.document, dialect),
        "refilled": render(outcome.refilled, dialect),
        "distances": outcome.distances,
        "fallbacks": list(outcome.fallbacks),
        "notes": list(outcome.notes),
        **also,
        **counts,
    }


def writable(outcome: Outcome, dialect: Dialect) -> Outcome:
    """The outcome, or a rejection if training could not read what would be written."""
    if isinstance(outcome, Rejected):
        return outcome
    try:
        document = convert(outcome.document, dialect, dialect)
        if parse(checked(render(document, dialect), "the document"), dialect) != document:
            raise ValueError("the document reads differently once it is written")
        trace = outcome.trace
        checked(trace.question, "the question")
        baseline = outcome.sequential or sequential(trace.reasoning, trace.answer, dialect)
        if baseline is not None:
            parse(checked(render(baseline, dialect), "the reasoning"), dialect)
    except (StructureError, ValueError) as error:
        return Rejected(outcome.trace, "output", UNWRITABLE, str(error), outcome.attempts)
    return outcome


def sequential(reasoning: str, answer: str, dialect: Dialect) -> Document | None:
    """The original reasoning as a document without blocks; `None` if there is none (distillation)."""
    text = reasoning.strip()
    return place((text,), answer, dialect) if text else None


def line(record: dict[str, Any]) -> bytes:
    """A record as a line of JSON; lone surrogates, which UTF-8 cannot hold, are escaped."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


class Outcomes:
    """The file, open for writing.

    Attributes:
        done: rows that need no more work.
        expected: rows that there will be, where that is not the number of rows of the input.
        statuses: number of rows by status, of those and of all counted since.

    Raises:
        RunError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.statuses: Counter[str] = Counter()
        self.expected: int | None = None
        self._digests: list[bytes] = []
        try:
            self._file: BinaryIO = path.open("ab+")
            self._file.truncate(self._valid_bytes())
            self._file.seek(0, 2)
        except OSError as error:
            raise RunError(f"{str(path)!r} cannot be written ({error.strerror}): check the folder") from error
        self.done = len(self._digests)

    def _valid_bytes(self) -> int:
        """Bytes before the first line that is not kept."""
        end = 0
        self._file.seek(0)
        for data in self._file:
            found = _read(data)
            if found is None or found["row"] != len(self._digests) or found.get("reason") in _RETRIED:
                break
            self._digests.append(_digest(found["id"], found["question"], found["reasoning"], found["answer"]))
            self.count(found)
            end += len(data)
        return end

    def check(self, number: int, trace: Trace) -> None:
        """Raise `RunError` if the row that is done under this number differs from the input."""
        if self._digests[number] != _digest(trace.id, trace.question, trace.reasoning, trace.answer):
            raise RunError(
                f"row {number + 1} of the input ({trace.id!r}) differs from the row that the run began with: give the same "
                "input, another folder, or restart with --fresh, which keeps the stored completions"
            )

    def count(self, found: dict[str, Any]) -> None:
        """Count a finished row; it may be written later, after those before it."""
        self.statuses[found["status"]] += 1

    def write(self, found: dict[str, Any]) -> None:
        """Write the next row."""
        with writing(self._file.name):
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
                raise DataError(f"{path}:{number}: not an outcome: run the command again, it rewrites the line")
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
