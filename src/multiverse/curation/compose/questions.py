"""The questions that documents are composed of: reading them, and which of them are held out."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ...data import Fault
from ...data.records import checked
from ...data.source import READERS, Columns, Record, decode, scan_source

History = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Question:
    """A single question.

    Attributes:
        id: name of the row, unique in a run.
        text: the question.
        topic: what it is about; questions of one topic are held out together.
        item, template: the question is `template` with `item` for ``{x}``; empty if it has no such form.
        aspect: what items are compared by, in words such as ``what they eat``; empty if nothing is known.
        group: a name of what can be compared with each other, such as ``animals``.
        single: whether it never becomes a part of a block.
        history: the turns before it, as (role, content).
        new_topic, new_wording: whether topic and wording are held out; `None` if the file does not say.
        source, line: where it was read.
    """

    id: str
    text: str
    topic: str
    item: str = ""
    template: str = ""
    aspect: str = ""
    group: str = ""
    single: bool = False
    history: History = ()
    new_topic: bool | None = None
    new_wording: bool | None = None
    source: str = ""
    line: int = 0


@dataclass(frozen=True)
class Answered:
    """A question with an answer that passed the filters.

    Attributes:
        text: the answer.
        hint: the sentence behind the question that it was asked with; empty if there was none.
        tokens: its length, as the model counts.
    """

    question: Question
    text: str
    hint: str = ""
    tokens: int = 0


_TEXT = ("question", "prompt", "instruction", "text")
_SPLITS = {"train": (False, False), "heldout_topic": (True, False), "heldout_wording": (False, True), "heldout": (True, True)}
_LONGEST = 2000  # characters of a question


def read_questions(sources: Sequence[str], limit: int | None = None) -> tuple[list[Question], list[Fault]]:
    """The questions of files, and a fault for each row that holds none or repeats one.

    Args:
        sources: .txt files with a question on each line (lines that begin with ``#`` are left out), .jsonl, .json or .parquet
            files or folders of them, or hub ids. A record has a `question` (or `prompt`, `instruction`, `text`, or `messages`
            whose last one is the user's) and may have the other fields of `Question`, and `split`: ``train``,
            ``heldout_topic``, ``heldout_wording``, or ``heldout`` for both.
        limit: take only so many first rows of each source.
    """
    questions: list[Question] = []
    faults: list[Fault] = []
    seen: dict[tuple[History, str], str] = {}
    readers = {**READERS, ".txt": _read_lines}
    for item in (item for source in sources for item in islice(scan_source(source, readers), limit)):
        if isinstance(item, Fault):
            faults.append(item)
            continue
        try:
            found = _question(item)
        except ValueError as error:
            faults.append(Fault(item.source, item.line, str(error)))
            continue
        key = (found.history, " ".join(found.text.split()).casefold())
        if key in seen:
            faults.append(Fault(item.source, item.line, f"the question was asked before, at {seen[key]}: remove one of them"))
        else:
            seen[key] = found.id
            questions.append(found)
    return questions, faults


def _read_lines(path: Path, columns: Columns | None) -> Iterator[Record | Fault]:  # noqa: ARG001
    with path.open("rb") as stream:
        for number, data in enumerate(stream, 1):
            try:
                text = decode(data).strip()
            except ValueError as error:
                yield Fault(str(path), number, str(error))
                continue
            if text and not text.startswith("#"):
                yield Record(str(path), number, {"question": text})


def _question(record: Record) -> Question:
    """The question of a record (`ValueError` if it has none)."""
    value = record.value
    if not isinstance(value, Mapping):
        raise ValueError("the row is not an object: it needs a question")
    history, text = _asked(value)
    if len(text) > _LONGEST:
        raise ValueError(f"the question has {len(text):,} characters: at most {_LONGEST:,} will do")
    template, item = (_text(value, name) for name in ("template", "item"))
    if template and ("{x}" not in template or not item):
        raise ValueError(f"the template {template!r} needs an item, and {{x}} where it stands")
    if not template:
        item, template = read_form(text)
    new_topic, new_wording = _split(value)
    return Question(
        id=f"{Path(record.source).name}:{record.line}",
        text=text,
        topic=_text(value, "topic") or item or text,
        item=item,
        template=template,
        aspect=_text(value, "aspect"),
        group=_text(value, "group") or _text(value, "category"),
        single=bool(value.get("single")),
        history=history,
        new_topic=new_topic,
        new_wording=new_wording,
        source=record.source,
        line=record.line,
    )


def _asked(value: Mapping[str, Any]) -> tuple[History, str]:
    """The turns before a question, and the question."""
    turns = value.get("messages")
    if turns is None:
        text = next((value[name] for name in _TEXT if value.get(name) is not None), None)
        turns = [*(value.get("history") or ()), {"role": "user", "content": text}]
    if not isinstance(turns, Sequence) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError("the messages are not a list of objects with role and content")
    found = []
    for turn in turns:
        role, content = turn.get("role"), turn.get("content")
        if role not in ("system", "user", "assistant") or not isinstance(content, str) or not content.strip():
            raise ValueError("the question is missing or not a text: add it, or remove the row")
        found.append((str(role), checked(content.strip(), "the question")))
    if found[-1][0] != "user":
        raise ValueError("the last message is not the user's: it has to be the question")
    return tuple(found[:-1]), found[-1][1]


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"the {name} is not a text")
    return checked((found or "").strip(), f"the {name}")


def _split(value: Mapping[str, Any]) -> tuple[bool | None, bool | None]:
    found = value.get("split")
    if found is None:
        return None, None
    if found not in _SPLITS:
        raise ValueError(f"the split {found!r} is not known: it is one of {', '.join(_SPLITS)}")
    return _SPLITS[found]


_TEMPLATES = (
    "What is the capital of {x}?", "What is {x} used for?", "What are {x} used for?", "What is {x} known for?", "What is {x}?",
    "What are {x}?", "What was {x}?", "What were {x}?", "Who is {x}?", "Who was {x}?", "Where is {x}?", "Where are {x}?",
    "Why is {x} important?", "Why are {x} important?", "Why is {x} useful?", "Why is {x} famous?", "How does {x} work?",
    "How do {x} work?", "How is {x} made?", "How are {x} made?", "What does {x} do?", "What do {x} eat?", "What does {x} mean?",
    "Explain {x} in simple words.", "Tell me about {x}.", "Describe {x}.", "Explain {x}.", "Give me a tip on how to {x}.",
    "Give me a tip for {x}.", "Give me a tip on {x}.", "Give an example of {x}.", "Give me an example of {x}.",
    "How can I {x}?", "How do I {x}?", "What should I know about {x}?", "How would you explain {x} to a child?",
)  # fmt: skip
_ITEM = r"([^,;:?.!]{1,60}?)"
_PATTERNS = tuple(
    (one, re.compile(re.escape(one[:-1]).replace(r"\{x\}", _ITEM) + "[?.!]?", re.IGNORECASE)) for one in _TEMPLATES
)
_ITEM_WORDS = 6


def read_form(text: str) -> tuple[str, str]:
    """Item and template of a question of a common form; two empty texts for another one."""
    for template, pattern in _PATTERNS:
        found = pattern.fullmatch(" ".join(text.split()))
        if found and " and " not in found[1] and " between " not in found[1] and len(found[1].split()) <= _ITEM_WORDS:
            return found[1], template
    return "", ""


def hold_out(questions: Sequence[Question], share: float, seed: int) -> list[Question]:
    """The questions, each with its split: topics and wordings that the file says nothing about are drawn.

    A share of the topics is held out, and templates of about that share of the questions. A template of more than the share
    alone stays in training, as do questions without one.
    """
    rng = random.Random(f"held out {seed}")
    topics = list(dict.fromkeys(one.topic for one in questions if one.new_topic is None and not one.single))
    new_topics = set(rng.sample(topics, round(share * len(topics))))
    counts = Counter(one.template for one in questions if one.template and one.new_wording is None and not one.single)
    new_templates: set[str] = set()
    most, taken = share * counts.total(), 0
    for template in rng.sample(sorted(counts), len(counts)):
        if len(counts) > 2 and taken + counts[template] <= most:
            new_templates.add(template)
            taken += counts[template]
    return [
        replace(
            one,
            new_topic=one.topic in new_topics if one.new_topic is None else one.new_topic,
            new_wording=one.template in new_templates if one.new_wording is None else one.new_wording,
        )
        for one in questions
    ]
