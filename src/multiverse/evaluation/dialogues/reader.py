"""Rows of data sets as dialogues: MultiVerse's schema, in the forms in which libraries hand it over, and others by adapters.

MultiVerse (KAIST, https://huggingface.co/datasets/passing2961/MultiVerse) has one row a dialogue. Its column `conversation` is
a sequence of speaker, utterance and checklist, and a checklist one of question, main_criteria and sub_criteria. The library
`datasets` and Parquet files return each sequence as an object of parallel lists; JSON lines may also hold lists of objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ...data import Fault
from ...data.source import Record, load_hub, looks_local, scan_source, scan_table, shorten_text
from ...errors import DataError, require
from .adapters import ADAPTERS
from .dialogue import CATEGORIES, PERSONA, Dialogue, Item, Turn
from .images import ImageLimits, read_picture
from .rules import rule_of

HUB = "passing2961/MultiVerse"
"""The data set on the hub: one split, 647 dialogues, CC-BY-NC-4.0."""
NAME = "multiverse"

_CONVERSATION = ("speaker", "utterance", "checklist")
_CHECKLIST = ("question", "main_criteria", "sub_criteria")
_RULE = "rule"  # of an item, in our own sets
_SUFFIXES = (".jsonl", ".json", ".parquet")


class Loaded(NamedTuple):
    """The dialogues of a source, and the rows that are none."""

    dialogues: list[Dialogue]
    faults: list[Fault]


def read_dialogues(
    source: str,
    limits: ImageLimits = ImageLimits(),  # noqa: B008 (frozen)
    limit: int | None = None,
    on_row: Callable[[], None] = lambda: None,
) -> Loaded:
    """Read a file, a folder of files, or a data set of the hub.

    Args:
        source: a path, a hub id, or ``multiverse``.
        limits: of images.
        limit: only so many first rows.
        on_row: called after each.

    Raises:
        DataError: there is nothing to read.
        ExtraError: a library that reads it is not installed.
    """
    dialogues: list[Dialogue] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for record in islice(_records(source), limit):
        place = f"{record.source}:{record.line}"
        try:
            if isinstance(record, Fault):
                raise ValueError(record.problem)
            folder = Path(record.source).parent if Path(record.source).is_file() else None
            dialogue = dialogue_of(record.value, folder, limits)
            if dialogue.id in seen:
                raise ValueError(f"the index {dialogue.id!r} is that of {seen[dialogue.id]}: each row needs one of its own")
            seen[dialogue.id] = place
            dialogues.append(dialogue)
        except ValueError as error:
            faults.append(Fault(record.source, record.line, str(error)))
        on_row()
    return Loaded(dialogues, faults)


def _records(source: str) -> Iterator[Record | Fault]:
    path = Path(source).expanduser()
    if source != NAME and (path.exists() or looks_local(source) or path.suffix.lower() in _SUFFIXES):
        yield from scan_source(path)
        return
    name = HUB if source == NAME else source
    try:
        tables = load_hub(name)
    except DataError as error:
        raise DataError(f"{error}. Or give a file: its rows as Parquet or JSON lines in the same columns") from None
    split = next((one for one in ("test", "train") if one in tables), next(iter(tables)))
    table = tables[split]
    datasets = require("datasets", "eval")
    images = [column for column, kind in (table.features or {}).items() if isinstance(kind, datasets.Image)]
    for column in images:  # as bytes: what is sent is the file, not what a library has decoded
        table = table.cast_column(column, datasets.Image(decode=False))
    yield from scan_table(table, f"{name}/{split}")


def dialogue_of(record: Any, folder: Path | None, limits: ImageLimits) -> Dialogue:
    """The dialogue of a row.

    Args:
        folder: what paths of images start from.

    Raises:
        ValueError: it is none; the message names the column.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"the record is {type(record).__name__}: it must be an object with named fields")
    if "conversation" not in record:
        adapter = next((own for own in ADAPTERS if own.fits(record)), None)
        if adapter is None:
            raise ValueError(
                f"it is no dialogue: it needs the columns of MultiVerse (index, conversation, ...) or of another set that is "
                f"known ({', '.join(own.title for own in ADAPTERS)}), and has {', '.join(map(str, record)) or 'none'}"
            )
        return adapter.read(record)
    missing = [name for name in ("index", "image", *PERSONA, *CATEGORIES) if name not in record]
    if missing:
        raise ValueError(f"the columns {', '.join(missing)} are missing")
    image = record["image"]
    return Dialogue(
        _index(record["index"]),
        _turns(_sequence(record["conversation"], _CONVERSATION, "conversation")),
        read_picture(image, folder, limits) if _is_there(image) else None,
        {name: _text(record[name], name) for name in PERSONA},
        {name: _text(record[name], name) for name in CATEGORIES},
    )


def _is_there(image: Any) -> bool:
    """Whether there is an image: text-only rows have none, as null or as an object of nulls."""
    return image is not None and not (isinstance(image, Mapping) and image and all(own is None for own in image.values()))


def _index(value: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value, "index").strip()
    if not text:
        raise ValueError("the index is empty: each row needs one of its own")
    return text


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {type(value).__name__}: it must be a text")
    if "\0" in value:
        raise ValueError(f"{name} holds a zero character (offset {value.index(chr(0))})")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character (offset {error.start})") from None
    return value.replace("\r\n", "\n").replace("\r", "\n")


def _sequence(value: Any, names: tuple[str, ...], what: str) -> list[dict[str, Any]]:
    """A sequence as a list of objects, from one, or from an object of parallel lists."""
    if isinstance(value, Mapping):
        missing = [name for name in names if name not in value]
        if missing:
            raise ValueError(f"{what} has no {', '.join(missing)}")
        columns = {name: value[name] for name in (*names, _RULE) if name in value}
        if wrong := [name for name, column in columns.items() if not isinstance(column, list | tuple)]:
            raise ValueError(f"{what}.{wrong[0]} is {type(columns[wrong[0]]).__name__}: it must be a list")
        sizes = {name: len(column) for name, column in columns.items()}
        if len({*sizes.values()}) > 1:
            listed = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise ValueError(f"{what} has lists of different lengths: {listed}")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is {type(value).__name__}: it must be a list of objects, or an object of lists")
    for number, one in enumerate(value, 1):
        if not isinstance(one, Mapping):
            raise ValueError(f"{what} {number} is {type(one).__name__}: it must be an object")
        if missing := [name for name in names if name not in one]:
            raise ValueError(f"{what} {number} has no {', '.join(missing)}")
    return [dict(one) for one in value]


def _turns(utterances: Iterable[dict[str, Any]]) -> tuple[Turn, ...]:
    """The user's turns with the answers that follow them."""
    turns: list[Turn] = []
    asked: str | None = None
    for number, one in enumerate(utterances, 1):
        where = f"utterance {number}"
        speaker = _text(one["speaker"], f"the speaker of {where}").strip().casefold()
        said = _text(one["utterance"], where)
        checklist = _items(one["checklist"], f"the checklist of {where}")
        expected = "user" if asked is None else "assistant"
        if speaker != expected:
            raise ValueError(
                f"{where} is {shorten_text(str(one['speaker']))!r}: user and assistant take turns, here {expected} was due"
            )
        if not said.strip():
            raise ValueError(f"{where} is empty")
        if asked is None:
            if checklist:
                raise ValueError(f"{where} is the user's and has a checklist: it stands at the assistant's answer")
            asked = said
        else:
            turns.append(Turn(asked, said, checklist))
            asked = None
    if asked is not None:
        raise ValueError("the last utterance is the user's: its answer, with the checklist, is missing")
    if not turns:
        raise ValueError("the conversation is empty")
    if not any(turn.checklist for turn in turns):
        raise ValueError("no answer has a checklist: there is nothing to judge")
    return tuple(turns)


def _items(value: Any, what: str) -> tuple[Item, ...]:
    if value is None:
        return ()
    items = []
    for number, one in enumerate(_sequence(value, _CHECKLIST, what), 1):
        question, main, part = (_text(one[name], f"{name} of {what}") for name in _CHECKLIST)
        if not question.strip():
            raise ValueError(f"question {number} of {what} is empty")
        rule = rule_of(one[_RULE]) if one.get(_RULE) is not None else None
        items.append(Item(question, main, part, rule))
    return tuple(items)
