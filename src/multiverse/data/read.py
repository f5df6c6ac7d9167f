"""Read structured documents from files, folders and the hub. A bad row becomes a fault, and the rest is read."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import StructureError
from ..structure import MULTIVERSE, Dialect
from .library import library
from .records import document, known_columns, row_of
from .row import Fault, Loaded, Message, Row

FAULTS = "faults.jsonl"
"""Where faults are written beside a data set; never read as data."""

_BETWEEN = re.compile(r"[\s,]*")
_MARK = b"\xef\xbb\xbf"  # some editors begin a UTF-8 file with it


def read(source: str | Path, dialect: Dialect = MULTIVERSE, *, split: str | None = None, prefer: str | None = None) -> Loaded:
    """Every row of a source, and a fault for each one that could not be had.

    Args:
        source: an .xml file (one document; its question in a .txt file of the same name beside it), .jsonl, .json or
            .parquet, a folder of such files, or a hub id.
        split: only this split of a folder or a hub data set.
        prefer: only this split where the source has it, and all of the source where it has not.

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
    """As `read`, one after the other."""
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _folder(path, dialect, split, prefer)
    elif path.exists() or looks_local(name, path):
        yield from _file(path, dialect)
    else:
        yield from _hub(name, dialect, split, prefer)


def looks_local(name: str, path: Path) -> bool:
    """Whether a name that is nothing here was meant as a file or a folder, not as a hub id."""
    pathlike = path.is_absolute() or name.startswith((".", "~")) or name.endswith("/") or name.count("/") > 1
    return pathlike or path.suffix.lower() in _READERS


def _folder(folder: Path, dialect: Dialect, split: str | None, prefer: str | None) -> Iterator[Row | Fault]:
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix.lower() in _READERS]
    files = [path for path in inside if path.name != FAULTS and not any(part.startswith(".") for part in path.parts)]
    if not files:
        yield Fault(str(folder), 1, f"the folder holds no file of documents: it needs some {_any_suffix()}")
        return
    if split is None and any(prefer in _splits(path) for path in files):
        split = prefer
    chosen = [path for path in files if split is None or split in _splits(path)]
    if not chosen:
        have = ", ".join(sorted({_splits(path)[-1] for path in files})[:10])
        yield Fault(str(folder), 1, f"the folder has no split {split!r}: choose one of {have}")
    for path in chosen:
        yield from _file(folder / path, dialect)


def _splits(path: Path) -> list[str]:
    """What a file in a folder may be called as a split: its folders, and its name up to the number of a part."""
    return [*path.parts[:-1], path.stem.partition("-")[0]]


def _file(path: Path, dialect: Dialect) -> Iterator[Row | Fault]:
    reader = _READERS.get(path.suffix.lower())
    try:
        if not path.is_file():
            yield Fault(str(path), 1, "there is no such file: give the path of one, a folder, or a hub id")
        elif reader is None:
            yield Fault(str(path), 1, f"the kind of file is not known: give {_any_suffix()}")
        elif not path.stat().st_size:
            yield Fault(str(path), 1, "the file is empty: fill it, or take it out")
        else:
            yield from reader(path, dialect)
    except OSError as error:
        yield Fault(str(path), 1, f"the file cannot be read ({error.strerror or error}): give one that can be")


def _any_suffix() -> str:
    *most, last = _READERS
    return f"{', '.join(most)} or {last}"


def decode(data: bytes) -> str:
    """Bytes of a file as text (`ValueError` where they are none)."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}): save the file as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"a zero byte (offset {text.index(chr(0))}): the file is binary or damaged, write it anew as text")
    return text


def _xml(path: Path, dialect: Dialect) -> Iterator[Row | Fault]:
    source, beside = str(path), path.with_suffix(".txt")
    data = path.read_bytes().removeprefix(_MARK)
    try:
        # A text file's last line ends too; that end is not the document's.
        found = document(decode(data).removesuffix("\n"), dialect)
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
            prompt = (Message("user", decode(beside.read_bytes().removeprefix(_MARK)).strip()),)
        except ValueError as error:
            yield Fault(str(beside), 1, str(error))
            return
    yield Row(prompt, found, source, 1)


def _json_lines(path: Path, dialect: Dialect) -> Iterator[Row | Fault]:
    with path.open("rb") as stream:
        yield from _lines(stream, str(path), dialect)


def _json(path: Path, dialect: Dialect) -> Iterator[Row | Fault]:
    """A list of records, a record, or lines of them."""
    data = path.read_bytes().removeprefix(_MARK)
    if data.lstrip().startswith(b"["):
        yield from _list(data, str(path), dialect)
        return
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        yield from _lines(io.BytesIO(data), str(path), dialect)
    else:
        yield row_of(record, str(path), 1, dialect)


def _lines(stream: Iterable[bytes], source: str, dialect: Dialect) -> Iterator[Row | Fault]:
    nothing = True
    for line, data in enumerate(stream, 1):
        data = data.removeprefix(_MARK) if line == 1 else data
        if not data.strip():
            continue
        nothing = False
        try:
            record = parse_line(decode(data).rstrip())
        except ValueError as error:
            yield Fault(source, line, str(error))
        else:
            yield row_of(record, source, line, dialect)
    if nothing:
        yield Fault(source, 1, "the file holds only blank lines: fill it, or take it out")


def parse_line(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        if error.pos >= len(line) or error.msg.startswith("Unterminated"):
            raise ValueError(f"the line breaks off in column {len(line)}: write one whole object a line") from None
        raise ValueError(f"not JSON (column {error.colno}: {error.msg}): write one whole object a line") from None
    except RecursionError:
        raise ValueError("the JSON nests too deep to be read: write a flat object") from None


def _list(data: bytes, source: str, dialect: Dialect) -> Iterator[Row | Fault]:
    """The records of one list, each with the line that it begins on."""
    decoder = json.JSONDecoder()
    line, seen = 1, 0
    try:
        text = decode(data)
        at = text.index("[") + 1
        while True:
            at += len(_BETWEEN.match(text, at)[0])  # type: ignore[index]
            if text.startswith("]", at):
                break
            record, end = decoder.raw_decode(text, at)
            line, seen = line + text.count("\n", seen, at), at
            yield row_of(record, source, line, dialect)
            at = end
    except json.JSONDecodeError as error:
        yield Fault(source, error.lineno, f"not JSON from here on (column {error.colno}: {error.msg}): mend the list")
    except (ValueError, RecursionError) as error:
        yield Fault(source, line, f"the list cannot be read from here on ({error})")
    else:
        if not seen:
            yield Fault(source, 1, "the list is empty: fill it, or take the file out")


def _parquet(path: Path, dialect: Dialect) -> Iterator[Row | Fault]:
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    source, number = str(path), 0
    try:
        with parquet.ParquetFile(path) as file:
            columns = known_columns(file.schema_arrow.names)
            for batch in file.iter_batches(columns=columns):
                # One by one, so that one torn text costs one row.
                for index in range(batch.num_rows):
                    number += 1
                    yield _cell(batch, index, source, number, dialect)
    except arrow.ArrowException as error:
        yield Fault(source, number + 1, f"no Parquet from here on ({reason_of(error)}): write the file anew")
    except ValueError as error:
        yield Fault(source, 1, str(error))
    else:
        if not number:
            yield Fault(source, 1, "the file has no rows: fill it, or take it out")


def _cell(batch: Any, index: int, source: str, number: int, dialect: Dialect) -> Row | Fault:
    try:
        (record,) = batch.slice(index, 1).to_pylist()
    except UnicodeDecodeError as error:
        return Fault(source, number, f"not UTF-8 text (byte {error.start}): write the row anew")
    return row_of(record, source, number, dialect)


def _hub(name: str, dialect: Dialect, split: str | None, prefer: str | None) -> Iterator[Row | Fault]:
    datasets = library("datasets")
    try:
        found = datasets.load_dataset(name, split=split)
    except Exception as error:  # whatever the libraries below raise is about this data set, or the way to it
        place = name if split is None else f"{name}/{split}"
        remedy = "check the id, the split, the network and, for a private one, your login"
        yield Fault(place, 1, f"it is no file here, and could not be had from the hub ({reason_of(error)}): {remedy}")
        return
    parts = {split: found} if split is not None else dict(found)
    if prefer in parts:
        parts = {prefer: parts[prefer]}
    for part, table in parts.items():
        yield from _table(table, f"{name}/{part}", dialect)


def _table(table: Any, source: str, dialect: Dialect) -> Iterator[Row | Fault]:
    try:
        columns = known_columns(table.column_names)
    except ValueError as error:
        yield Fault(source, 1, str(error))
        return
    if not len(table):
        yield Fault(source, 1, "the split has no rows: choose another")
    for number, record in enumerate(table.select_columns(columns), 1):
        yield row_of(record, source, number, dialect)


def reason_of(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text if len(text) <= 200 else f"{text[:200]}...") or type(error).__name__


_READERS: dict[str, Callable[[Path, Dialect], Iterator[Row | Fault]]] = {
    ".xml": _xml,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}
