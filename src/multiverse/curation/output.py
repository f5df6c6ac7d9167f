"""What a run leaves behind, made from its outcomes: data to train on, what was set aside, the manifest, the report.

Each file is there whole or not at all, and the same outcomes make the same files.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from ..data import FAULTS, Message, Row, Split, Statistics, card, split
from ..data.library import library
from ..data.publish import CARD, DATA
from ..data.write import whole
from ..errors import DataError
from ..structure import Dialect, Shape, measure, parse, word_tokens
from . import manifest
from .budget import Prices
from .errors import RunError
from .outcomes import CURATED, OUTCOMES, line, records, sequential
from .report import REPORT, write_report
from .store import Usage

ANSWERS, RUNS, SET_ASIDE_ROWS, DOCUMENTS = "answers.sqlite", "runs.jsonl", "set_aside.jsonl", "documents"

_ANEW = (OUTCOMES, manifest.MANIFEST, SET_ASIDE_ROWS, REPORT, CARD, DATA, DOCUMENTS, FAULTS)
_OURS = {*_ANEW, RUNS, ANSWERS, f"{ANSWERS}-wal", f"{ANSWERS}-shm"}
_BATCH = 256


def prepare(out: Path) -> None:
    """Make the folder of a run, or see that it is one.

    Raises:
        RunError: it is a file, holds something else, or cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in out.iterdir() if path.name not in _OURS and not path.name.endswith(".part"))
    except OSError as error:
        raise RunError(f"{str(out)!r} cannot be used ({error.strerror}): give a folder that can be") from error
    if strange and not (out / manifest.MANIFEST).exists():
        raise RunError(f"{str(out)!r} holds {strange[0]!r}, which is no part of a run: give a new folder")
    library("pyarrow.parquet")  # rather now than when everything is paid for


def clear(out: Path) -> None:
    """Remove what an earlier run has made; its stored answers stay."""
    for name in _ANEW:
        _remove(out / name)


class Finishing(NamedTuple):
    """How outputs are made.

    Attributes:
        validation, seed: share of the questions that are kept for validation, and which.
        documents: whether to write each document to a file of its own, too.
    """

    dialect: Dialect
    prices: Prices
    validation: float
    seed: int
    documents: bool = False


def finish(out: Path, planned: Mapping[str, Any], how: Finishing) -> dict[str, Any]:
    """Make all outputs from the outcomes, and say in numbers what they are.

    Args:
        planned: the run's manifest.

    Raises:
        DataError: something cannot be written.
        ExtraError: a library is not installed.
    """
    for rest in out.glob(".*.part"):
        _remove(rest)
    totals = _Totals()
    with ExitStack() as stack:
        aside = stack.enter_context(stack.enter_context(whole(out / SET_ASIDE_ROWS)).open("wb"))
        data = stack.enter_context(_folder(out / DATA))
        texts = stack.enter_context(_folder(out / DOCUMENTS)) if how.documents else None
        writers = {name: stack.enter_context(_Parquet(data / f"{name}.parquet", how.dialect)) for name in Split._fields}
        curated = _watched(records(out / OUTCOMES), totals, aside, texts)
        rows = (_data_row(found, how.dialect) for found in curated)
        shapes = _write(rows, writers, how)
    sizes = {name: writer.rows for name, writer in writers.items()}
    # A card only counts rows.
    counted = {name: cast("Sequence[Row]", range(size)) for name, size in sizes.items()}
    text = card("Curated reasoning", counted, Statistics(tuple(shapes)), how.dialect, counted="words")
    with whole(out / CARD) as part:
        part.write_text(text, encoding="utf-8")
    ended = totals.ended(planned["input"]["rows"], sizes, how.prices)
    manifest.write(out, planned, ended._asdict())
    write_report(out)
    return ended.totals


class _Ended(NamedTuple):
    """What a manifest says of a run that has come to an end."""

    complete: bool
    totals: dict[str, Any]


class _Totals:
    """Counts, as outcomes go by."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.usage = Usage()

    def count(self, found: Mapping[str, Any]) -> None:
        self.statuses[found["status"]] += 1
        if found["status"] != CURATED:
            self.reasons[found["reason"]] += 1
        self.usage = Usage(*(a + found["usage"][name] for name, a in self.usage._asdict().items()))

    def ended(self, rows: int, sizes: Mapping[str, int], prices: Prices) -> _Ended:
        """What came of a run, for its manifest."""
        reached = sum(self.statuses.values())
        totals = {
            "rows": reached,
            "curated": self.statuses[CURATED],
            "set_aside": reached - self.statuses[CURATED],
            "reasons": dict(sorted(self.reasons.items())),
            "not_reached": rows - reached,
            **sizes,
            **self.usage._asdict(),
            "tokens": self.usage.tokens,
            "cost": prices.cost(self.usage) if any(prices) else None,
        }
        return _Ended(reached == rows, totals)


def _watched(found: Iterable[dict[str, Any]], totals: _Totals, aside: Any, texts: Path | None) -> Iterator[dict[str, Any]]:
    """The curated ones among the outcomes; what else is to be done with each is done as they go by."""
    for one in found:
        totals.count(one)
        if one["status"] != CURATED:
            aside.write(line(one))
            continue
        if texts is not None:
            (texts / file_name(one["id"])).write_text(one["document"] + "\n", encoding="utf-8")
        yield one


def _data_row(found: Mapping[str, Any], dialect: Dialect) -> Row:
    return Row(
        (Message("user", found["question"]),),
        parse(found["document"], dialect),
        found["source"],
        found["line"],
        # Without a reasoning of its own (distillation), the document's twin serves.
        sequential(found["reasoning"], found["answer"], dialect) if found["reasoning"] else None,
    )


def _write(rows: Iterator[Row], writers: Mapping[str, _Parquet], how: Finishing) -> list[Shape]:
    tokens, shapes = word_tokens(how.dialect), []
    # The side of a row depends on its question alone, so that batches are divided as the whole would be.
    while batch := list(islice(rows, _BATCH)):
        shapes += [measure(row.document, tokens) for row in batch]
        for name, side in split(batch, how.validation, how.seed)._asdict().items():
            writers[name].add(side)
    return shapes


class _Parquet:
    """Rows as `multiverse.data.write_parquet` writes them, a batch at a time; without rows there is no file."""

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self.path, self.dialect, self.rows = path, dialect, 0
        self._arrow, self._parquet = library("pyarrow"), library("pyarrow.parquet")
        self._writer: Any = None
        self._pending: list[dict[str, Any]] = []

    def __enter__(self) -> _Parquet:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Write these, too."""
        self._pending += [row.record(self.dialect) for row in rows]
        if len(self._pending) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        arrow = self._arrow
        message = arrow.struct([("role", arrow.string()), ("content", arrow.string())])
        schema = arrow.schema([("messages", arrow.list_(message)), ("sequential", arrow.string())])
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self.path, schema, compression="zstd")
        self._writer.write_table(arrow.Table.from_pylist(self._pending, schema=schema))
        self.rows += len(self._pending)
        self._pending = []


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` once it is full."""
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}.part") for kind in ("new", "old"))
    try:
        part.mkdir()
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written ({error.strerror or error}): give a folder that can be") from error
    finally:
        _remove(part)
        _remove(old)


def file_name(name: str) -> str:
    """A name that a file can have, for the id of a row; different ids have different ones."""
    safe = quote(name, safe=" ", errors="surrogatepass")
    if safe.startswith("."):
        safe = f"%2E{safe[1:]}"
    if len(safe) > 200:
        safe = f"{safe[:180]}-{blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"
    return f"{safe}.xml"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
