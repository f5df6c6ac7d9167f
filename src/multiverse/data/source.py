"""Records of files, folders and hub data sets, one at a time; a record that cannot be read becomes a fault.

JSON is parsed line by line and Parquet is converted row by row, so that a fault costs one row and has its number. Hub data sets
are loaded by `datasets`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, require
from .row import Fault

FAULTS = "faults.jsonl"
"""Faults are written to this file beside a data set; it is never read as data."""

Columns = Callable[[Sequence[str]], list[str]]

_SEPARATORS = re.compile(r"[\s,]*")
_BOM = b"\xef\xbb\xbf"
_BATCH_ROWS = 64


class Record(NamedTuple):
    """One record.

    Attributes:
        source: path of its file, or hub id and split.
        line: line of the file, or number of the row, from 1.
        value: the parsed record.
    """

    source: str
    line: int
    value: Any


Reader = Callable[[Path, Columns | None], Iterator[Record | Fault]]


def scan_source(
    source: str | Path,
    readers: Mapping[str, Reader] | None = None,
    *,
    columns: Columns | None = None,
    split: str | None = None,
    prefer: str | None = None,
    config: str | None = None,
    streaming: bool = False,
) -> Iterator[Record | Fault]:
    """Every record of a source in order, and a fault for each one that cannot be read.

    Args:
        source: a file, a folder of files, or a hub id.
        readers: reader of each file suffix; `READERS` if `None`.
        columns: given the column names of a table, returns those to read, or raises `ValueError` if some are missing.
        split: only this split of a folder or a hub data set.
        prefer: only this split of a source that has it.
        config: name of a hub data set's configuration.
        streaming: read a hub data set while it is downloaded, without storing it.

    Raises:
        ExtraError: the library that reads such a source is not installed.
    """
    readers = READERS if readers is None else readers
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _scan_folder(path, readers, columns, split, prefer)
    elif path.exists() or looks_local(name) or path.suffix.lower() in readers:
        yield from _scan_file(path, readers, columns)
    else:
        yield from _scan_hub(name, columns, split, prefer, config, streaming)


def looks_local(name: str) -> bool:
    """Whether the name of a file or folder that does not exist is no hub id."""
    return Path(name).is_absolute() or name.startswith((".", "~")) or name.endswith("/") or name.count("/") > 1


def _scan_folder(
    folder: Path, readers: Mapping[str, Reader], columns: Columns | None, split: str | None, prefer: str | None
) -> Iterator[Record | Fault]:
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix.lower() in readers]
    files = [path for path in inside if path.name != FAULTS and not any(part.startswith(".") for part in path.parts)]
    if not files:
        yield Fault(str(folder), 1, f"the folder holds no data: it needs {_any_of(readers)} files")
        return
    if split is None and any(prefer in _splits(path) for path in files):
        split = prefer
    chosen = [path for path in files if split is None or split in _splits(path)]
    if not chosen:
        available = ", ".join(sorted({_splits(path)[-1] for path in files})[:10])
        yield Fault(str(folder), 1, f"the folder has no split {split!r}: choose one of {available}")
    for path in chosen:
        yield from _scan_file(folder / path, readers, columns)


def _splits(path: Path) -> list[str]:
    """Names of the splits that a file in a folder belongs to: its folders, and its stem up to the number of a part."""
    return [*path.parts[:-1], path.stem.partition("-")[0]]


def _scan_file(path: Path, readers: Mapping[str, Reader], columns: Columns | None) -> Iterator[Record | Fault]:
    reader = readers.get(path.suffix.lower())
    try:
        if not path.is_file():
            yield Fault(str(path), 1, "there is no such file: give the path of a file or folder, or a hub id")
        elif reader is None:
            yield Fault(str(path), 1, f"the file type is not supported: give {_any_of(readers)}")
        elif not path.stat().st_size:
            yield Fault(str(path), 1, "the file is empty")
        else:
            yield from reader(path, columns)
    except OSError as error:
        yield Fault(str(path), 1, f"the file cannot be read: {error.strerror or error}")


def _any_of(suffixes: Iterable[str]) -> str:
    *most, last = suffixes
    return f"{', '.join(most)} or {last}" if most else last


def decode(data: bytes) -> str:
    """Bytes of a file as text.

    Raises:
        ValueError: they are not UTF-8, or hold a zero byte.
    """
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"a zero byte (offset {text.index(chr(0))}): the file is binary or damaged")
    return text


def _read_json_lines(path: Path, columns: Columns | None) -> Iterator[Record | Fault]:  # noqa: ARG001
    with path.open("rb") as stream:
        yield from _parse_lines(stream, str(path))


def _parse_lines(stream: Iterable[bytes], source: str) -> Iterator[Record | Fault]:
    blank = True
    for line, data in enumerate(stream, 1):
        if not data.removeprefix(_BOM).strip():
            continue
        blank = False
        try:
            record = _parse_line(decode(data).rstrip())
        except ValueError as error:
            yield Fault(source, line, str(error))
        else:
            yield Record(source, line, record)
    if blank:
        yield Fault(source, 1, "the file holds only blank lines")


class _NotStrictError(ValueError):
    """Python reads this, but it is no JSON, or not what its writer meant."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NotStrictError(
            f"the key {shorten_text(twice)!r} stands {names.count(twice)} times in one object: keep one of them"
        )
    return record


def _no_number(name: str) -> Any:
    raise _NotStrictError(f"{name} is no JSON: write a number, a text or null")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


def _parse_line(line: str) -> Any:
    try:
        return _DECODER.decode(line)
    except json.JSONDecodeError as error:
        if error.pos >= len(line) or error.msg.startswith("Unterminated"):
            raise ValueError(f"the line breaks off in column {len(line)}: write one whole object per line") from None
        raise ValueError(f"not JSON (column {error.colno}: {error.msg}): write one whole object per line") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _read_json(path: Path, columns: Columns | None) -> Iterator[Record | Fault]:  # noqa: ARG001
    """The records of a list, a single record, or one record per line."""
    data, source = path.read_bytes().removeprefix(_BOM), str(path)
    if data.lstrip().startswith(b"["):
        yield from _parse_list(data, source)
        return
    try:
        record = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_number)
    except _NotStrictError as error:
        try:
            json.loads(data)
        except ValueError:  # one record a line, of which one is faulty
            yield from _parse_lines(io.BytesIO(data), source)
        else:
            yield Fault(source, 1, str(error))
    except (ValueError, RecursionError):
        yield from _parse_lines(io.BytesIO(data), source)
    else:
        yield Record(source, 1, record)


def _parse_list(data: bytes, source: str) -> Iterator[Record | Fault]:
    """The records of one list, each with the line on which it begins."""
    lenient = json.JSONDecoder()  # finds the end of a record that is not strict
    line, seen = 1, 0
    try:
        text = decode(data)
        at = text.index("[") + 1
        while True:
            at += len(_SEPARATORS.match(text, at)[0])  # type: ignore[index]
            if text.startswith("]", at):
                break
            _, end = lenient.raw_decode(text, at)
            line, seen = line + text.count("\n", seen, at), at
            try:
                yield Record(source, line, _DECODER.decode(text[at:end]))
            except _NotStrictError as error:
                yield Fault(source, line, str(error))
            at = end
    except json.JSONDecodeError as error:
        yield Fault(source, error.lineno, f"not JSON from here on (column {error.colno}: {error.msg})")
    except (ValueError, RecursionError) as error:
        yield Fault(source, line, f"the list cannot be read from here on ({error})")
    else:
        if not seen:
            yield Fault(source, 1, "the list is empty")


def _read_parquet(path: Path, columns: Columns | None) -> Iterator[Record | Fault]:
    arrow, parquet = require("pyarrow", "train"), require("pyarrow.parquet", "train")
    source, number = str(path), 0
    try:
        with parquet.ParquetFile(path) as file:
            chosen = columns(file.schema_arrow.names) if columns is not None else None
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=chosen):
                # One by one, so that a broken text costs one row.
                for index in range(batch.num_rows):
                    number += 1
                    try:
                        (record,) = batch.slice(index, 1).to_pylist()
                    except UnicodeDecodeError as error:
                        yield Fault(source, number, f"not UTF-8 text (byte {error.start})")
                    else:
                        yield Record(source, number, record)
    except arrow.ArrowException as error:
        yield Fault(source, number + 1, f"not Parquet from here on ({shorten(error)})")
    except ValueError as error:
        yield Fault(source, 1, str(error))
    else:
        if not number:
            yield Fault(source, 1, "the file has no rows")


def load_hub(
    name: str, *, config: str | None = None, split: str | None = None, files: str | None = None, streaming: bool = False
) -> dict[str, Any]:
    """Tables of a hub data set by split.

    Args:
        config: name of its configuration.
        split: only this split.
        files: read these JSON files of its repository, as split ``train``, in place of what it declares.
        streaming: read while it is downloaded, without storing it.

    Raises:
        DataError: it cannot be loaded.
        ExtraError: `datasets` is not installed.
    """
    datasets = require("datasets", "train")
    place = name if split is None else f"{name}/{split}"
    try:
        if files is not None:
            split = "train"
            found = datasets.load_dataset("json", data_files=f"hf://datasets/{name}/{files}", split=split, streaming=streaming)
        else:
            found = datasets.load_dataset(name, config, split=split, streaming=streaming)
    except Exception as error:  # of many classes, from the network to licence terms that were not accepted
        raise DataError(
            f"{place!r} is no local file, and cannot be loaded from the hub ({shorten(error)}): check the id, the split, the "
            f"network and, for a private or gated one, your login"
        ) from error
    return {split: found} if split is not None else dict(found)


def scan_table(table: Any, source: str, columns: Columns | None = None) -> Iterator[Record | Fault]:
    """Every row of a `datasets` table in order."""
    number = 0
    try:
        if table.column_names is not None and columns is not None:  # None: not known before the first row
            table = table.select_columns(columns(table.column_names))
        for number, record in enumerate(table, 1):  # the number is used after an error
            yield Record(source, number, record)
    except ValueError as error:
        yield Fault(source, number + 1, str(error))
    except Exception as error:  # while streaming, of many classes
        yield Fault(source, number + 1, f"the data set cannot be read from here on ({shorten(error)})")
    else:
        if not number:
            yield Fault(source, 1, "the split has no rows")


def _scan_hub(
    name: str, columns: Columns | None, split: str | None, prefer: str | None, config: str | None, streaming: bool
) -> Iterator[Record | Fault]:
    try:
        tables = load_hub(name, config=config, split=split, streaming=streaming)
    except DataError as error:
        yield Fault(name if split is None else f"{name}/{split}", 1, str(error))
        return
    for part, table in tables.items():
        if prefer not in tables or part == prefer:
            yield from scan_table(table, f"{name}/{part}", columns)


def shorten(error: Exception) -> str:
    """The message of an exception on one line of at most 200 characters, or the name of its class."""
    return shorten_text(" ".join(str(error).split())) or type(error).__name__


def shorten_text(text: str) -> str:
    """At most 200 characters of a text."""
    return text if len(text) <= 200 else f"{text[:200]}..."


READERS: Mapping[str, Reader] = {".jsonl": _read_json_lines, ".json": _read_json, ".parquet": _read_parquet}
"""Reader of each file suffix."""
