"""Rows of a benchmark: from a local file, or from the hub."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

from ...errors import DataError, first_line, require
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
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{path} is neither .jsonl nor .parquet: convert it to one of them")
    try:
        return _parquet(path, limit) if path.suffix == ".parquet" else _lines(path, limit)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _lines(path: Path, limit: int | None) -> list[Row]:
    rows: list[Row] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if len(rows) == limit:
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is no JSON object: write one object a line")
            rows.append(row)
    return rows


def _parquet(path: Path, limit: int | None) -> list[Row]:
    parquet, arrow = require("pyarrow.parquet", "eval"), require("pyarrow", "eval")
    try:
        table = parquet.read_table(path)
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet file: {error}") from None
    return list(table.slice(0, limit).to_pylist())


def _hub(name: str, hub: Hub, limit: int | None) -> list[Row]:
    datasets = require("datasets", "eval")
    try:
        if hub.files is not None:
            found = datasets.load_dataset("json", data_files=f"hf://datasets/{hub.name}/{hub.files}", split="train")
        else:
            found = datasets.load_dataset(hub.name, hub.config, split=hub.split)
    except Exception as error:  # of many kinds, from the network to a licence that was not accepted
        raise DataError(
            f"the rows of {name} cannot be had from the hub ({hub.name}: {first_line(error)}); some data sets "
            f"want their terms accepted and a token. Or give a local file: --data {name}=FILE"
        ) from None
    return list(islice(found, limit))
