"""Outputs of a run, made from its outcomes: training data, rejected rows, manifest, report.

Each file is replaced as a whole, and the same outcomes make the same files.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from ..data import FAULTS, Message, Row, Split, Statistics, card, split
from ..data.publish import CARD, DATA
from ..data.write import parquet_schema, whole, whole_folder
from ..errors import require
from ..structure import Dialect, Shape, content_parallelism, measure, parse, word_tokens
from . import manifest
from .config import BudgetConfig, CurationConfig
from .errors import RunError
from .outcomes import CURATED, OUTCOMES, line, records, sequential
from .report import REPORT, write_report
from .types import Usage

STORE, RUNS, REJECTED_ROWS, DOCUMENTS = "answers.sqlite", "runs.jsonl", "set_aside.jsonl", "documents"

_REMADE = (OUTCOMES, manifest.MANIFEST, REJECTED_ROWS, REPORT, CARD, DATA, DOCUMENTS, FAULTS)
_KNOWN = {*_REMADE, RUNS, STORE, f"{STORE}-wal", f"{STORE}-shm"}
_BATCH = 256


def prepare(out: Path) -> None:
    """Create the folder of a run, or check an existing one.

    Raises:
        RunError: it is a file, holds something else, or cannot be created.
        ExtraError: pyarrow, which is needed at the end, is not installed.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in out.iterdir() if path.name not in _KNOWN and not path.name.endswith(".part"))
    except OSError as error:
        raise RunError(f"{str(out)!r} cannot be used ({error.strerror}): give another folder") from error
    if foreign and not (out / manifest.MANIFEST).exists():
        raise RunError(f"{str(out)!r} holds {foreign[0]!r}, which does not belong to a run: give a new folder")
    require("pyarrow.parquet", "curate")


def clear(out: Path) -> None:
    """Remove the results of an earlier run; its stored completions are kept."""
    for name in _REMADE:
        _remove(out / name)


class Expected(NamedTuple):
    """What the outputs say besides what is in the outcomes.

    Attributes:
        rows: how many outcomes there are once the run is complete; `None` if that is not known yet.
        usage: of completions that belong to no row.
        totals: further totals.
        title: of the card.
    """

    rows: int | None
    usage: Usage = Usage()
    totals: Mapping[str, Any] = MappingProxyType({})
    title: str = "Curated reasoning"


def finish(
    out: Path,
    description: Mapping[str, Any],
    config: CurationConfig,
    budget: BudgetConfig,
    expected: Expected,
    *,
    documents: bool = False,
) -> dict[str, Any]:
    """Make all outputs from the outcomes.

    Args:
        description: the run's manifest.
        budget: its prices give the cost.
        expected: what a complete run has.
        documents: also write each document to a file of its own.

    Returns:
        The totals.

    Raises:
        DataError: something cannot be written.
        ExtraError: a library is not installed.
    """
    for leftover in out.glob(".*.part"):
        _remove(leftover)
    dialect, seed = config.tags, description["settings"]["seed"] or 0
    counts = _Counts(expected.usage)
    shapes: list[Shape] = []
    content: list[float] = []
    with ExitStack() as stack:
        rejected = stack.enter_context(stack.enter_context(whole(out / REJECTED_ROWS)).open("wb"))
        data = stack.enter_context(whole_folder(out / DATA))
        texts = stack.enter_context(whole_folder(out / DOCUMENTS)) if documents else None
        writers = {name: stack.enter_context(_ParquetWriter(data / f"{name}.parquet", dialect)) for name in Split._fields}
        curated = _curated(records(out / OUTCOMES), counts, rejected, texts)
        rows = ((_data_row(found, dialect), found.get("held_out")) for found in curated)
        tokens = word_tokens(dialect)
        # The split of a row depends on its question alone, so batches are split as the whole would be.
        while batch := list(islice(rows, _BATCH)):
            shapes += [measure(row.document, tokens) for row, _ in batch]
            content += [content_parallelism(row.document) for row, _ in batch]
            sides = split((row for row, held_out in batch if held_out is None), config.validation, seed)
            sides.train.extend(row for row, held_out in batch if held_out is False)
            sides.validation.extend(row for row, held_out in batch if held_out)
            for name, side in sides._asdict().items():
                writers[name].add(side)
    sizes = {name: writer.rows for name, writer in writers.items()}
    # A card only counts rows.
    counted = {name: cast("Sequence[Row]", range(size)) for name, size in sizes.items()}
    text = card(expected.title, counted, Statistics(tuple(shapes)), dialect, counted="words")
    with whole(out / CARD) as part:
        part.write_text(text, encoding="utf-8")
    due = counts.rows if expected.rows is None else expected.rows
    totals = {**counts.totals(due, sizes, budget), **_parallelism(shapes, content), **expected.totals}
    manifest.write(out, description, totals, complete=expected.rows is not None and totals["not_reached"] == 0)
    write_report(out)
    return totals


def _parallelism(shapes: Sequence[Shape], content: Sequence[float]) -> dict[str, Any]:
    """How many documents fork, and means over all; `None` without documents."""
    return {
        "forked": sum(shape.blocks > 0 for shape in shapes),
        "parallelism": round(fmean(shape.parallelism for shape in shapes), 4) if shapes else None,
        "content_parallelism": round(fmean(content), 4) if content else None,
        "content_above_1.5": sum(value > 1.5 for value in content),
    }


class _Counts:
    """Counts of the outcomes, from `usage` on."""

    def __init__(self, usage: Usage) -> None:
        self.rows = self.curated = 0
        self.reasons: Counter[str] = Counter()
        self.usage = usage

    def add(self, found: Mapping[str, Any]) -> None:
        self.rows += 1
        if found["status"] == CURATED:
            self.curated += 1
        else:
            self.reasons[found["reason"]] += 1
        self.usage = self.usage.add(Usage(**found["usage"]))

    def totals(self, rows: int, sizes: Mapping[str, int], budget: BudgetConfig) -> dict[str, Any]:
        """The totals of a manifest."""
        return {
            "rows": self.rows,
            "curated": self.curated,
            "set_aside": self.rows - self.curated,
            "reasons": dict(sorted(self.reasons.items())),
            "not_reached": rows - self.rows,
            **sizes,
            **self.usage._asdict(),
            "tokens": self.usage.tokens,
            "cost": budget.cost(self.usage) if budget.priced else None,
        }


def _curated(found: Iterable[dict[str, Any]], counts: _Counts, rejected: Any, texts: Path | None) -> Iterator[dict[str, Any]]:
    """The curated outcomes; counts all, and writes rejected rows and single documents on the way."""
    for one in found:
        counts.add(one)
        if one["status"] != CURATED:
            rejected.write(line(one))
            continue
        if texts is not None:
            (texts / file_name(one["id"])).write_text(one["document"] + "\n", encoding="utf-8")
        yield one


def _data_row(found: Mapping[str, Any], dialect: Dialect) -> Row:
    given = found.get("sequential")
    history = (Message(role, content) for role, content in found.get("history", ()))
    return Row(
        (*history, Message("user", found["question"])),
        parse(found["document"], dialect),
        found["source"],
        found["line"],
        sequential(found["reasoning"], found["answer"], dialect) if given is None else parse(given, dialect),
    )


class _ParquetWriter:
    """Writes rows as `multiverse.data.write_parquet` does, in batches; without rows there is no file."""

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self.path, self.dialect, self.rows = path, dialect, 0
        self._arrow, self._parquet = require("pyarrow", "curate"), require("pyarrow.parquet", "curate")
        self._writer: Any = None
        self._pending: list[dict[str, Any]] = []

    def __enter__(self) -> _ParquetWriter:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Write these rows."""
        self._pending += [row.record(self.dialect) for row in rows]
        if len(self._pending) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        schema = parquet_schema(self._arrow, sequential=True)
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self.path, schema, compression="zstd")
        self._writer.write_table(self._arrow.Table.from_pylist(self._pending, schema=schema))
        self.rows += len(self._pending)
        self._pending = []


def file_name(name: str) -> str:
    """A valid file name for the id of a row; different ids give different names."""
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
