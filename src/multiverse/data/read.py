"""Structured documents of files, folders and the hub. A faulty row becomes a fault, and the rest is read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..errors import StructureError
from ..structure import MULTIVERSE, Dialect
from .records import document, known_columns, row_of
from .row import Fault, Loaded, Message, Row
from .source import READERS, Columns, Reader, Record, decode, scan_source


def read(source: str | Path, dialect: Dialect = MULTIVERSE, *, split: str | None = None, prefer: str | None = None) -> Loaded:
    """Every row of a source, and a fault for each row that cannot be read.

    Args:
        source: an .xml file (one document; its question in a .txt file of the same name beside it), .jsonl, .json or
            .parquet, a folder of such files, or a hub id.
        split: only this split of a folder or a hub data set.
        prefer: only this split of a source that has it.

    Raises:
        ExtraError: the library that reads such a source is not installed.
    """
    loaded = Loaded([], [])
    for item in scan(source, dialect, split=split, prefer=prefer):
        if isinstance(item, Row):
            loaded.rows.append(item)
        else:
            loaded.faults.append(item)
    return loaded


def scan(
    source: str | Path, dialect: Dialect = MULTIVERSE, *, split: str | None = None, prefer: str | None = None
) -> Iterator[Row | Fault]:
    """As `read`, one row at a time."""
    readers: dict[str, Reader] = {".xml": partial(_read_xml, dialect), **READERS}
    for item in scan_source(source, readers, columns=known_columns, split=split, prefer=prefer):
        if isinstance(item, Fault):
            yield item
        elif isinstance(item.value, Row):
            yield item.value
        else:
            yield row_of(item.value, item.source, item.line, dialect)


def _read_xml(dialect: Dialect, path: Path, columns: Columns | None) -> Iterator[Record | Fault]:  # noqa: ARG001
    """A document that is a file of its own, as a record whose value is the finished row."""
    source, beside = str(path), path.with_suffix(".txt")
    try:
        # The newline at the end of a text file is not part of the document.
        found = document(decode(path.read_bytes()).replace("\r\n", "\n").removesuffix("\n"), dialect)
    except StructureError as error:
        line = 1 if error.line is None else error.line
        yield Fault(source, line, f"offset {error.offset}: {error.problem}, expected {error.expected}")
        return
    except ValueError as error:
        yield Fault(source, 1, str(error))
        return
    prompt: tuple[Message, ...] = ()
    if beside.is_file():
        try:
            prompt = (Message("user", decode(beside.read_bytes()).replace("\r\n", "\n").strip()),)
        except ValueError as error:
            yield Fault(str(beside), 1, str(error))
            return
    yield Record(source, 1, Row(prompt, found, source, 1))
