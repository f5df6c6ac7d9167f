"""Read sequential reasoning from files, folders and the hub, one row at a time. An unreadable row becomes a fault.

A record is a question with its reasoning (and answer) under one of the column names below, or a chat under `messages` whose
last message is the assistant's, with its thinking between tags or under `reasoning_content`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..data import FAULTS, Fault
from ..data.library import library
from ..data.read import decode, looks_local, parse_line, reason_of
from ..data.records import MESSAGES, ROLES, checked
from ..structure import DIALECTS, Dialect, Tag
from .sentences import cut
from .types import Trace

QUESTIONS = ("question", "prompt", "problem")
REASONINGS = ("reasoning", "thinking", "trace", "reasoning_content", "deepseek_thinking_trajectory")
ANSWERS = ("answer", "deepseek_attempt")
SUFFIXES = (".jsonl", ".parquet")

_MARK = b"\xef\xbb\xbf"
_BATCH = 64  # rows of a Parquet file in memory at a time


def read_traces(source: str | Path, *, split: str | None = None) -> Iterator[Trace | Fault]:
    """Every trace of a source, and a fault for each row that cannot be read.

    Args:
        source: a .jsonl or .parquet file, a folder of such files, or a hub id.
        split: only this split of a hub data set.

    Raises:
        ExtraError: the library that reads such a source is not installed.
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        yield from _folder(path)
    elif path.exists() or path.suffix.lower() in SUFFIXES or looks_local(name, path):
        yield from _file(path, path.name)
    else:
        yield from _hub(name, split)


def trace_of(record: Any, source: str, line: int) -> Trace | Fault:
    """The trace of a record, or a fault."""
    try:
        question, reasoning, answer = _parts(record)
        for text, what in ((question, "the question"), (reasoning, "the reasoning"), (answer, "the answer")):
            checked(text, what)
        if not reasoning.strip():
            raise ValueError("the reasoning is empty: give it a text, or take the row out")
    except ValueError as error:
        return Fault(source, line, str(error))
    return Trace(f"{source}:{line}", question.strip(), cut(reasoning), answer.strip(), source, line)


def _parts(record: Any) -> tuple[str, str, str]:
    """Question, reasoning and answer."""
    if not isinstance(record, dict):
        raise ValueError(f"the record is {type(record).__name__}: it must be an object with named fields")
    question = _field(record, QUESTIONS)
    reasoning = _field(record, REASONINGS)
    if question is not None and reasoning is not None:
        thinking, behind = _split_thinking(reasoning)
        answer = _field(record, ANSWERS)
        return question, thinking, behind if answer is None else answer
    if record.get(MESSAGES) is None:
        has = ", ".join(map(repr, record)) or "none at all"
        wanted = f"{MESSAGES!r}, or one of {_any(QUESTIONS)} with one of {_any(REASONINGS)}"
        raise ValueError(f"it needs the columns {wanted}, and has {has}: rename or fill them")
    return _chat(record[MESSAGES])


def _chat(turns: Any) -> tuple[str, str, str]:
    if not isinstance(turns, list | tuple) or not turns:
        raise ValueError(f"{MESSAGES!r} holds no messages: it needs the question and, last, the assistant's reasoning")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise ValueError(f"message {number} of {MESSAGES!r} is none: it needs a 'role' ({', '.join(ROLES)}) and 'content'")
    *prompt, last = turns
    if last["role"] != "assistant":
        raise ValueError(f"the last message is the {last['role']}'s: it must be the assistant's, with the reasoning")
    question = "\n".join(_field(turn, ("content",)) or "" for turn in prompt if turn["role"] == "user")
    if not question.strip():
        raise ValueError("no message before the last is the user's: it needs the question")
    content = _field(last, ("content",)) or ""
    reasoning = _field(last, REASONINGS)
    if reasoning is not None and reasoning.strip():
        return question, _split_thinking(reasoning)[0], content
    thinking, answer = _split_thinking(content)
    if not any(tag.close in content for tag in _thinks()):
        raise ValueError("the last message holds no reasoning: put it between thinking tags, or under 'reasoning_content'")
    return question, thinking, answer


def _split_thinking(text: str) -> tuple[str, str]:
    """The thinking of a text and what follows it; a text without thinking tags is thinking as a whole."""
    for tag in _thinks():
        # Where a chat template writes the opening tag, only the closing one is in the text.
        before, closing, behind = text.partition(tag.close)
        if closing:
            return before.partition(tag.open)[2] if tag.open in before else before, behind
    return text, ""


def _thinks() -> Iterator[Tag]:
    dialects: Iterable[Dialect] = DIALECTS.values()
    return (dialect.think for dialect in dialects if dialect.think is not None)


def _field(record: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of these fields that is filled."""
    for name in names:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and name in ANSWERS:
            return str(value)
        if not isinstance(value, str):
            raise ValueError(f"{name!r} is {type(value).__name__}: it must be a text")
        return value
    return None


def _any(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))


def _folder(folder: Path) -> Iterator[Trace | Fault]:
    inside = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    files = [path for path in inside if path.name != FAULTS and not any(part.startswith(".") for part in path.parts)]
    if not files:
        yield Fault(str(folder), 1, f"the folder holds no file of traces: it needs some {' or '.join(SUFFIXES)}")
    for path in files:
        yield from _file(folder / path, path.as_posix())


def _file(path: Path, name: str) -> Iterator[Trace | Fault]:
    try:
        if not path.is_file():
            yield Fault(str(path), 1, "there is no such file: give the path of one, a folder, or a hub id")
        elif path.suffix.lower() not in SUFFIXES:
            yield Fault(str(path), 1, f"the kind of file is not known: give {' or '.join(SUFFIXES)}")
        elif not path.stat().st_size:
            yield Fault(name, 1, "the file is empty: fill it, or take it out")
        else:
            yield from (_json_lines if path.suffix.lower() == ".jsonl" else _parquet)(path, name)
    except OSError as error:
        yield Fault(str(path), 1, f"the file cannot be read ({error.strerror or error}): give one that can be")


def _json_lines(path: Path, name: str) -> Iterator[Trace | Fault]:
    nothing = True
    with path.open("rb") as stream:
        for line, data in enumerate(stream, 1):
            row = data.removeprefix(_MARK) if line == 1 else data
            if not row.strip():
                continue
            nothing = False
            try:
                record = parse_line(decode(row).rstrip())
            except ValueError as error:
                yield Fault(name, line, str(error))
            else:
                yield trace_of(record, name, line)
    if nothing:
        yield Fault(name, 1, "the file holds only blank lines: fill it, or take it out")


def _parquet(path: Path, name: str) -> Iterator[Trace | Fault]:
    arrow, parquet = library("pyarrow"), library("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            known = {MESSAGES, *QUESTIONS, *REASONINGS, *ANSWERS}
            columns = [column for column in file.schema_arrow.names if column in known]
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                # Row by row, so that one invalid text costs one row.
                for index in range(batch.num_rows):
                    number += 1
                    try:
                        (record,) = batch.slice(index, 1).to_pylist()
                    except UnicodeDecodeError as error:
                        yield Fault(name, number, f"not UTF-8 text (byte {error.start}): write the row anew")
                    else:
                        yield trace_of(record, name, number)
    except arrow.ArrowException as error:
        yield Fault(name, number + 1, f"no Parquet from here on ({reason_of(error)}): write the file anew")
    else:
        if not number:
            yield Fault(name, 1, "the file has no rows: fill it, or take it out")


def _hub(name: str, split: str | None) -> Iterator[Trace | Fault]:
    datasets = library("datasets")
    number, place = 0, name if split is None else f"{name}/{split}"
    try:
        found = datasets.load_dataset(name, split=split, streaming=True)
        for part, table in ({split: found} if split is not None else dict(found)).items():
            place = f"{name}/{part}"
            for number, record in enumerate(table, 1):
                yield trace_of(record, place, number)
    except Exception as error:  # whatever the libraries below raise is about this data set, or the way to it
        remedy = "check the id, the split, the network and, for a private one, your login"
        yield Fault(place, number + 1, f"it could not be had from the hub ({reason_of(error)}): {remedy}")
