"""Questions of a file, a folder or a hub data set: read once and checked, kept on disk, and fetched one at a time."""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import IO, Any

from ....data import Fault
from ....data.source import Record, scan_source
from ....errors import DataError, ExtraError, writing
from ....progress import counting
from ..rewards.correct import check_for
from ..rollout import Question
from .config import QuestionSource
from .rows import Row, read_row

_SHOWN = 10
"""Faults that a message lists."""
_LARGE = 10_000_000
"""Bytes of a file that takes seconds to read."""


def digest(text: str) -> bytes:
    """A hash of a text, the same in every run."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def held_out(text: str, share: float) -> bool:
    """Whether a question belongs to the share that is held out, by its text: the same in every run, whatever else there is."""
    return int.from_bytes(digest(f"held out/{text}")[:8], "big") < share * 2**64


class FileQuestions:
    """The questions of one source.

    Args:
        source: what to read, and how.
        name: in logs.
        seed: of the order.

    Attributes:
        faults: rows that were skipped.
        duplicates: number of rows that were the same as an earlier one; one of them is kept.
        checks: number of questions by the check that judges them.

    Raises:
        DataError: the source has faults (unless they are to be skipped), or no questions.
        ExtraError: a library that reads it is not installed.
        DiskError: there is no room for the questions on the disk.
    """

    def __init__(self, source: QuestionSource, name: str, seed: int) -> None:
        assert source.file is not None
        self._source, self._name, self._seed = source, name, seed
        self.faults: list[Fault] = []
        self.duplicates = 0
        self.checks: Counter[str] = Counter()
        self._places: array[int] = array("q")
        self._held: array[int] = array("q")
        self._order: tuple[int, array[int]] | None = None
        with writing(tempfile.gettempdir()):
            self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            self._read()
            self._file.flush()
        if self.faults and source.on_error != "skip":
            listed = "\n".join(f"  {fault}" for fault in self.faults[:_SHOWN])
            more = f"\n  and {len(self.faults) - _SHOWN:,} more" if len(self.faults) > _SHOWN else ""
            raise DataError(f"{source.file} has {len(self.faults):,} faults (on_error: skip leaves them out):\n{listed}{more}")
        if self.checks["math"] and find_spec("math_verify") is None:
            raise ExtraError("math-verify", "rl")
        if not self._places:
            why = f": all {len(self._held):,} are held out" if self._held else ""
            raise DataError(f"{source.file} has no questions to train on{why}")

    def __len__(self) -> int:
        return len(self._places)

    @property
    def num_held_out(self) -> int:
        """Number of questions that are held out."""
        return len(self._held)

    def question(self, number: int) -> Question:
        """The question with this number, counted over all passes; each pass has each question once."""
        turn, place = divmod(number, len(self._places))
        if self._source.shuffle is False:
            return self._at(self._places[place])
        if self._order is None or self._order[0] != turn:
            order = array("q", range(len(self._places)))
            Random(f"{self._seed}/{self._name}/{turn}").shuffle(order)
            self._order = (turn, order)
        return self._at(self._places[self._order[1][place]])

    def any(self, draw: Random) -> Question:
        """A question at random."""
        return self._at(self._places[draw.randrange(len(self._places))])

    def held(self, number: int) -> Question | None:
        """A question that is held out; `None` if there are not so many."""
        return self._at(self._held[number]) if number < len(self._held) else None

    def _at(self, place: int) -> Question:
        self._file.seek(place)
        value = json.loads(self._file.readline())
        return Question(value["id"], tuple(value["messages"]), value["reference"], self._name, value["extra"])

    def _scan(self) -> Iterator[Record | Fault]:
        """The records, with a bar where they are many and someone watches."""
        assert self._source.file is not None
        with counting(f"reading {self._name}", _lines(self._source.file)) as done:
            for item in scan_source(self._source.file, split=self._source.split, prefer="train"):
                yield item
                done()

    def _read(self) -> None:
        """Write every question to the file, and remember where it begins."""
        seen: dict[bytes, tuple[bytes, str, int]] = {}
        number, place = 0, 0
        for item in self._scan():
            number += 1
            if isinstance(item, Fault):
                self.faults.append(item)
                continue
            try:
                row = read_row(item.value, self._source, number - 1)
            except DataError as error:
                self.faults.append(Fault(item.source, item.line, str(error)))
                continue
            text = json.dumps(row.messages, sort_keys=True)
            key, answer = digest(text), digest(json.dumps([row.reference, row.extra], sort_keys=True, default=str))
            if key in seen:
                other, where, line = seen[key]
                if other == answer:
                    self.duplicates += 1
                else:
                    problem = f"the same question stands at {where}:{line} with another answer: keep one of them"
                    self.faults.append(Fault(item.source, item.line, problem))
                continue
            seen[key] = (answer, item.source, item.line)
            if row.extra["check"] == "auto":
                row.extra["check"] = check_for(row.reference or "")
            self.checks[str(row.extra["check"])] += 1
            written = _line(row, key)
            places = self._held if self._source.validation and held_out(text, self._source.validation) else self._places
            places.append(place)
            self._file.write(written)
            place += len(written)


def _lines(file: str) -> int:
    """Lines of a local file that takes seconds to read; 0 of others."""
    path = Path(file).expanduser()
    if path.suffix.lower() != ".jsonl" or not path.is_file() or path.stat().st_size < _LARGE:
        return 0
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def _line(row: Row, key: bytes) -> bytes:
    value: dict[str, Any] = {
        # A name of the file's own need not be unique.
        "id": key.hex() if row.id is None else f"{row.id}/{key.hex()[:8]}",
        "messages": list(row.messages),
        "reference": row.reference,
        "extra": row.extra,
    }
    return json.dumps(value).encode() + b"\n"
