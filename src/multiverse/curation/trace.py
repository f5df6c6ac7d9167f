"""Read sequential reasoning from files, folders and the hub, one row at a time. An unreadable row becomes a fault.

A record is a question with its reasoning (and answer) under one of the column names below, or a chat under `messages` whose
last message is the assistant's, with its thinking between tags or under `reasoning_content`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data import Fault
from ..data.records import MESSAGES, ROLES, checked
from ..data.source import READERS as ALL_READERS
from ..data.source import scan_source
from ..structure import DIALECTS, Dialect, Tag
from .sentences import cut
from .types import Trace

QUESTIONS = ("question", "prompt", "problem")
REASONINGS = ("reasoning", "thinking", "trace", "reasoning_content", "deepseek_thinking_trajectory")
ANSWERS = ("answer", "deepseek_attempt")
READERS = {suffix: ALL_READERS[suffix] for suffix in (".jsonl", ".parquet")}


def read_traces(source: str | Path, *, split: str | None = None) -> Iterator[Trace | Fault]:
    """Every trace of a source in order, and a fault for each row that cannot be read.

    The source of a trace is the name of its file, relative to a folder that is read, or the hub id with the split.

    Args:
        source: a .jsonl or .parquet file, a folder of such files, or a hub id.
        split: only this split of a folder or a hub data set.

    Raises:
        ExtraError: the library that reads such a source is not installed.
    """
    path = Path(str(source)).expanduser()
    root = path if path.is_dir() else path.parent
    for item in scan_source(source, READERS, columns=_known_columns, split=split, streaming=True):
        place = Path(item.source).relative_to(root).as_posix() if path.exists() else item.source
        if isinstance(item, Fault):
            yield item._replace(source=place)
        else:
            yield trace_of(item.value, place, item.line)


def _known_columns(names: Sequence[str]) -> list[str]:
    known = {MESSAGES, *QUESTIONS, *REASONINGS, *ANSWERS}
    return [name for name in names if name in known]


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
