"""Rows of a benchmark: from a local file, or from the hub."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ...data import Fault
from ...data.source import Record, load_hub, scan_source, scan_table
from ...errors import DataError
from .base import Benchmark, Hub, Question, Row

FAMILY_SIZE = 200
"""Questions of a family of tasks, of which there is no end, unless somebody says otherwise."""


def questions(benchmark: Benchmark, *, path: str | None = None, limit: int | None = None, seed: int = 7) -> list[Question]:
    """The first questions of a benchmark.

    Args:
        path: a file with its rows, JSON lines or Parquet; `None` takes the hub.
        limit: how many; `None` takes all.
        seed: which questions, where they are made.

    Raises:
        DataError: the rows cannot be had, or are no rows of this benchmark.
        ExtraError: a library is missing.
    """
    if benchmark.make is not None:
        if path is not None:
            raise DataError(f"the questions of {benchmark.name} are made, not read: leave --data {benchmark.name} out")
        return benchmark.make(FAMILY_SIZE if limit is None else limit, seed)
    assert benchmark.read is not None
    assert benchmark.hub is not None
    source = path if path is not None else benchmark.hub.name
    rows = _file(Path(path).expanduser(), limit) if path is not None else _hub(benchmark.name, benchmark.hub, limit)
    if not rows:
        raise DataError(f"{source} has no rows: give a file that has some")
    try:
        found = [benchmark.read(row, number) for number, row in enumerate(rows)]
    except DataError as error:
        raise DataError(f"{source} is no {benchmark.title}: {error}") from None
    names = {question.id for question in found}
    if len(names) < len(found):
        raise DataError(f"{source} has {len(found)} rows but only {len(names)} ids: each row needs one of its own")
    return found


def _file(path: Path, limit: int | None) -> list[Row]:
    return _rows(scan_source(path), limit)


def _hub(name: str, hub: Hub, limit: int | None) -> list[Row]:
    try:
        ((split, table),) = load_hub(hub.name, config=hub.config, split=hub.split, files=hub.files).items()
    except DataError as error:
        raise DataError(f"the rows of {name} cannot be loaded: {error}. Or give a local file: --data {name}=FILE") from None
    return _rows(scan_table(table, f"{hub.name}/{split}"), limit)


def _rows(records: Iterable[Record | Fault], limit: int | None) -> list[Row]:
    """The first records, all of them if `limit` is `None`; a fault among them raises `DataError`."""
    rows: list[Row] = []
    for item in islice(records, limit):
        if isinstance(item, Fault):
            raise DataError(str(item))
        if not isinstance(item.value, dict):
            raise DataError(f"{item.source}:{item.line}: the record is no JSON object")
        rows.append(item.value)
    return rows
