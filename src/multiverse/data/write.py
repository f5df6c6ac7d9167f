"""Split rows, and write them to files atomically."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, require
from ..structure import MULTIVERSE, Dialect, render
from .row import Fault, Row


class Split(NamedTuple):
    """Rows for training and for validation."""

    train: list[Row]
    validation: list[Row]


def split(rows: Iterable[Row], validation: float, seed: int = 0) -> Split:
    """Split rows by a hash of their questions, so that one question is never on both sides.

    The side depends only on the question (for a row without one, the document) and the seed, so it stays the same when other
    rows are added or removed. The fraction is met only approximately.

    Args:
        validation: fraction of the validation side, at least 0 and below 1.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation={validation} is not valid: it must be at least 0 and below 1")
    sides = Split([], [])
    for row in rows:
        key = " ".join((row.question or render(row.document)).split())
        drawn = int.from_bytes(blake2b(f"{seed}/{key}".encode(), digest_size=8).digest())
        (sides.validation if drawn < validation * 2**64 else sides.train).append(row)
    return sides


def write_rows(rows: Sequence[Row], path: Path, dialect: Dialect = MULTIVERSE) -> None:
    """Write rows as JSON lines or Parquet, as the file's name says (errors as `write_parquet`)."""
    check_rows_format(path)
    _WRITERS[path.suffix.lower()](rows, path, dialect)


def check_rows_format(path: Path) -> None:
    """Raise `DataError` unless the file's suffix is supported."""
    if path.suffix.lower() not in _WRITERS:
        raise DataError(f"{str(path)!r} is not a supported file type: use {' or '.join(_WRITERS)}")


def write_parquet(rows: Iterable[Row], path: Path, dialect: Dialect = MULTIVERSE) -> None:
    """Write rows as a column `messages`, whose last message is the rendered document.

    Where rows have a sequential solution of their own, it is a second column.

    Raises:
        DataError: the file cannot be written.
        ExtraError: pyarrow is not installed.
    """
    arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    records = [row.record(dialect) for row in rows]
    schema = parquet_schema(arrow, sequential=any("sequential" in record for record in records))
    table = arrow.Table.from_pylist(records, schema=schema)
    with whole(path) as part:
        parquet.write_table(table, part, compression="zstd")


def write_jsonl(rows: Iterable[Row], path: Path, dialect: Dialect = MULTIVERSE) -> None:
    """Write rows as JSON lines, with the columns of `write_parquet` (`DataError` if the file cannot be written)."""
    _write_lines((row.record(dialect) for row in rows), path)


def write_faults(faults: Iterable[Fault], path: Path) -> None:
    """Write faults as JSON lines (`DataError` if the file cannot be written)."""
    _write_lines((fault._asdict() for fault in faults), path)


def _write_lines(objects: Iterable[dict[str, Any]], path: Path) -> None:
    with whole(path) as part, part.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in objects)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which replaces it at the end.

    Raises:
        DataError: one of the two cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written ({error.strerror or error}): give a path that can be") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, which replaces it at the end; after an error, `path` is what it was.

    Raises:
        DataError: one of the two cannot be written.
    """
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}.part") for kind in ("new", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written ({error.strerror or error}): give a folder that can be") from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)


def parquet_schema(arrow: Any, *, sequential: bool) -> Any:
    """The schema of rows: a column `messages` of chats, and a column `sequential` of texts if asked for."""
    message = arrow.struct([("role", arrow.string()), ("content", arrow.string())])
    columns = [("messages", arrow.list_(message)), ("sequential", arrow.string())]
    return arrow.schema(columns if sequential else columns[:1])


_WRITERS: dict[str, Callable[[Sequence[Row], Path, Dialect], None]] = {".jsonl": write_jsonl, ".parquet": write_parquet}
