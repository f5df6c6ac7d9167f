"""From a record of a file or a hub data set to a row.

A record is a chat under `messages`, or a question and a document under one of the names below, and optionally a solution
without forks under `sequential`. Functions here raise `ValueError`, which `row_of` turns into a fault with its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import StructureError
from ..structure import DIALECTS, Dialect, Document, parse
from .row import Fault, Message, Row

MESSAGES = "messages"
QUESTIONS = ("question", "prompt")
DOCUMENTS = ("structured", "solution", "completion", "text")
SEQUENTIAL = "sequential"
REASONING = ("reasoning_content", "reasoning")
ROLES = ("system", "developer", "user", "assistant", "tool")


def known_columns(names: Iterable[str]) -> list[str]:
    """The columns that records are read from.

    Raises:
        ValueError: required columns are missing.
    """
    columns = list(names)
    known = [name for name in columns if name in (MESSAGES, *QUESTIONS, *DOCUMENTS, SEQUENTIAL)]
    if MESSAGES not in known and not ({*QUESTIONS} & {*known} and {*DOCUMENTS} & {*known}):
        raise ValueError(_no_record(columns))
    return known


def row_of(record: Any, source: str, line: int, dialect: Dialect) -> Row | Fault:
    """The row of a record, or its fault."""
    try:
        *prompt, last = _chat(record)
        if last["role"] != "assistant":
            raise ValueError(f"the last message is the {last['role']}'s: it must be the assistant's, with the document")
        found = document(_answer(last, dialect), dialect)
        return Row(tuple(_message(turn) for turn in prompt), found, source, line, _sequential(record, dialect))
    except StructureError as error:
        where = f"line {error.line} of the document, offset {error.offset}"
        return Fault(source, line, f"{where}: {error.problem}, expected {error.expected}")
    except ValueError as error:
        return Fault(source, line, str(error))


def document(text: str, dialect: Dialect) -> Document:
    """Parse a document. Lines that end in CRLF, as on Windows, are read as if they ended in LF.

    Raises:
        ValueError: the text is empty, holds invalid characters, or is written in another dialect.
        StructureError: it breaks the grammar.
    """
    text = checked(text, "the document").replace("\r\n", "\n")
    if not text.strip():
        raise ValueError("the document is empty")
    try:
        found = parse(text, dialect)
    except StructureError as error:
        raise StructureError(
            error.problem, expected=f"{error.expected}{_elsewhere(text, dialect)}", offset=error.offset, line=error.line
        ) from None
    if not found.branches and (hint := _elsewhere(text, dialect)):
        raise ValueError(f"the document forks nowhere in dialect {dialect.name!r}{hint}")
    return found


def checked(text: str, what: str) -> str:
    """The text, if a tokenizer can encode it.

    Raises:
        ValueError: it holds a zero character or an unpaired surrogate.
    """
    if "\0" in text:
        raise ValueError(f"{what} holds a zero character (offset {text.index(chr(0))})")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"{text[error.start]!a}, offset {error.start}"
        raise ValueError(f"{what} holds an unpaired surrogate ({half})") from None
    return text


def _elsewhere(text: str, dialect: Dialect) -> str:
    """A hint, if the text is a document with forks in another dialect."""
    for other in DIALECTS.values():
        if other.name == dialect.name or other.path.open not in text:
            continue
        try:
            if parse(text, other).branches:
                return f" (it is written in dialect {other.name!r}: use that dialect)"
        except StructureError:
            continue
    return ""


def _chat(record: Any) -> list[dict[str, Any]]:
    """The messages of a record; at least one."""
    if not isinstance(record, dict):
        raise ValueError(f"the record is {_kind(record)}: it must be an object with named fields")
    if record.get(MESSAGES) is not None:
        return _turns(record[MESSAGES], "assistant", MESSAGES)
    question = next((name for name in QUESTIONS if record.get(name) is not None), None)
    answer = next((name for name in DOCUMENTS if record.get(name) is not None), None)
    if question is None or answer is None:
        raise ValueError(_no_record(record))
    return [*_turns(record[question], "user", question), *_turns(record[answer], "assistant", answer)]


def _no_record(columns: Iterable[str]) -> str:
    has = ", ".join(repr(name) for name in columns) or "none at all"
    wanted = f"{MESSAGES!r}, or {' or '.join(map(repr, QUESTIONS))} with {' or '.join(map(repr, DOCUMENTS))}"
    return f"it needs the columns {wanted}, and has {has}: rename or fill them"


def _sequential(record: dict[str, Any], dialect: Dialect) -> Document | None:
    text = record.get(SEQUENTIAL)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{SEQUENTIAL!r} is {_kind(text)}: it must be a text")
    try:
        found = document(text, dialect)
    except ValueError as error:
        raise ValueError(f"{SEQUENTIAL!r} is not a document: {error}") from None
    if found.branches:
        raise ValueError(f"{SEQUENTIAL!r} forks: give a solution without forks, or leave it out")
    return found


def _turns(value: Any, role: str, name: str) -> list[dict[str, Any]]:
    """A field as messages: a text is one message of this role, a list is a chat already."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name!r} is {_kind(value)}: it must be a text or a list of messages")
    if not value:
        raise ValueError(f"{name!r} is empty: it needs the question and, last, the assistant's document")
    return [_turn(turn, f"message {number} of {name!r}") for number, turn in enumerate(value, 1)]


def _turn(turn: Any, name: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise ValueError(f"{name} is {_kind(turn)}: it must be an object with 'role' and 'content'")
    if turn.get("role") not in ROLES:
        raise ValueError(f"{name} has the role {turn.get('role')!r}: it must be one of {', '.join(ROLES)}")
    for field in ("content", *REASONING):
        value = turn.get(field)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"the {field!r} of {name} is {_kind(value)}: it must be a text")
    return turn


def _message(turn: dict[str, Any]) -> Message:
    return Message(turn["role"], checked(turn.get("content") or "", "the prompt"))


def _answer(turn: dict[str, Any], dialect: Dialect) -> str:
    """The text of the last message, after its reasoning, which some servers return as a separate field."""
    content: str = turn.get("content") or ""
    reasoning: str = next((turn[field] for field in REASONING if turn.get(field)), "")
    if not reasoning.strip():
        return content
    think = dialect.think
    if think is None:
        raise ValueError(f"dialect {dialect.name!r} has no think tag for separate reasoning: put it in 'content'")
    if think.open in content:
        raise ValueError(f"{think.open} is in 'content', and there is separate reasoning as well: keep one of the two")
    if not reasoning.startswith(think.open):
        # Some servers keep the separators next to the tags, others strip them.
        inner = reasoning.removeprefix(dialect.sep).removesuffix(dialect.sep)
        reasoning = f"{think.open}{dialect.sep}{inner}{dialect.sep}{think.close}"
    content = content.removeprefix(dialect.answer_sep)
    return f"{reasoning}{dialect.answer_sep}{content}" if content else reasoning


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
