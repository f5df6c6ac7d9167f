"""Questions of a benchmark: generated, or made of the rows of a local file or a data set of the hub."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ...data import Fault
from ...data.source import Record, load_hub, scan_source, scan_table
from ...errors import DataError
from ..config import SHAPE, EvaluationConfig
from .base import Benchmark, Hub, Question, Row


def questions(benchmark: Benchmark, config: EvaluationConfig) -> list[Question]:
    """The questions of one benchmark: the first `config.limit`, or all.

    Raises:
        DataError: the rows cannot be read, or are not this benchmark's.
        ExtraError: a library that reads them is not installed.
    """
    path = config.data.get(benchmark.name)
    if benchmark.make is not None:
        if path is not None:
            raise DataError(f"the questions of {benchmark.name} are generated: leave --data {benchmark.name} out")
        return benchmark.make(config)
    if (given := next((name for name in SHAPE if getattr(config, name) is not None), None)) is not None:
        raise DataError(f"{benchmark.name} has no {given}: leave it out, it is for our own problems")
    assert benchmark.read is not None
    assert benchmark.hub is not None
    source = path if path is not None else benchmark.hub.name
    if path is not None:
        rows = _rows(scan_source(Path(path).expanduser()), config.limit)
    else:
        rows = _hub(benchmark.name, benchmark.hub, config.limit)
    if not rows:
        raise DataError(f"{source} has no rows: give a file that has some")
    try:
        found = [benchmark.read(row, number) for number, row in enumerate(rows)]
    except DataError as error:
        raise DataError(f"{source} is not {benchmark.title}: {error}") from None
    names = {question.id for question in found}
    if len(names) < len(found):
        raise DataError(f"{source} has {len(found)} rows but only {len(names)} ids: each row needs one of its own")
    return found


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
