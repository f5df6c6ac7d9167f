"""A structured document replayed: the events in which an engine would have generated it, siblings at the same time.

Tokens are words here, since a document may be of another dialect than the model's.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..engine.events import BranchEndEvent, Counts, ForkEvent, JoinEvent, TokenEvent
from ..engine.generation import Usage
from ..errors import StructureError
from ..families import reader_of
from ..streaming import WireEvent, wire_events
from ..structure import (
    DIALECTS,
    Dialect,
    Document,
    Encoded,
    Machine,
    RoleTracker,
    TokenDialect,
    encode,
    markdown,
    plain_answer,
    resolve,
)
from ..structure import parse as parse_document
from .errors import ApiError, invalid

_Event = TokenEvent | ForkEvent | BranchEndEvent | JoinEvent
MOST_WORDS = 50_000
MOST_DEPTH = 64


def replay(text: str, dialect: Dialect) -> dict[str, Any]:
    """A document's events in the wire form, and its tree.

    Raises:
        ApiError: 400, with line and offset, if it breaks the grammar; or if it is too long.
    """
    try:
        words = _Words(dialect)
        count = len(words.encode(text))
        if count > MOST_WORDS:
            raise invalid(f"the document has {count} words: at most {MOST_WORDS} can be replayed", "text")
        document = parse_document(text, dialect)
        if document.depth > MOST_DEPTH:
            raise invalid(f"the document's blocks nest {document.depth} deep: at most {MOST_DEPTH} can be replayed", "text")
        tokens = resolve(words, dialect)
        encoded = encode(document, tokens)
        return {
            "events": [event.to_json() for event in _wire_events(document, encoded, tokens, words)],
            "tree": document.to_json(),
        }
    except StructureError as error:
        details = {"line": error.line, "offset": error.offset}
        raise ApiError(
            400, f"{error} (dialect {dialect.name})", param="text", code="structure_error", details=details
        ) from None
    except RecursionError:
        raise invalid("blocks nest too deep to be replayed", "text") from None


def dialect_of(name: str | None, own: Dialect | None) -> Dialect:
    """The dialect of this name; without one the model's own, or the default.

    Raises:
        ApiError: 400 if it is not known.
    """
    if name is None:
        return own if own is not None else DIALECTS["multiverse"]
    known = {**DIALECTS, **({own.name: own} if own is not None else {})}
    if name not in known:
        raise invalid(f"the dialect {name!r} is not known: use one of {', '.join(known)}", "dialect")
    return known[name]


class _Words:
    """A tokenizer whose tokens are tags, and words with the white space before them."""

    def __init__(self, dialect: Dialect) -> None:
        tags = "|".join(re.escape(tag) for tag in sorted(dialect.tags, key=len, reverse=True))
        # A separator stands alone, as it does for the engine.
        self._pattern = re.compile(rf"{tags}|\n|(?:(?!{tags})[^\S\n])*(?:(?!{tags})\S)+|[^\S\n]+")
        self._ids: dict[str, int] = {}
        self.texts: list[str] = []

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002
        return [self._id(piece) for piece in self._pattern.findall(text)]

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return "".join(self.texts[token] for token in token_ids)

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self.texts)
            self.texts.append(piece)
        return self._ids[piece]


@dataclass
class _Line:
    """One branch: its words, and where it forks."""

    label: str
    parent: _Line | None
    machine: Machine
    roles: RoleTracker
    words: list[TokenEvent] = field(default_factory=list)
    blocks: list[tuple[int, list[_Line]]] = field(default_factory=list)
    at: int = 0
    children: list[_Line] = field(default_factory=list)
    open: int = 0  # how many of the children have not ended


def _lines(encoded: Encoded, tokens: TokenDialect, texts: list[str]) -> _Line:
    """The trunk, and with it everything else."""
    layout = encoded.layout

    def line_of(label: str, parent: _Line | None) -> _Line:
        machine = Machine(tokens, label)
        return _Line(label, parent, machine, RoleTracker(machine))

    lines = [line_of("", None)]
    blocks: dict[int, list[_Line]] = {}
    for number, branch in enumerate(layout.table[1:], 1):
        lines.append(line_of(branch.label, lines[branch.parent]))
        blocks.setdefault(branch.block, []).append(lines[number])
    begun: set[int] = set()
    columns = zip(encoded.token_ids, layout.positions, layout.writers, layout.forced, strict=True)
    for token, position, number, forced in columns:
        line, block = lines[number], layout.table[number].block
        if block >= 0 and block not in begun:
            begun.add(block)
            assert line.parent is not None
            line.parent.blocks.append((len(line.parent.words), blocks[block]))
        if line.machine.waiting:  # its children stand before this word
            line.machine.resume()
        line.machine.feed(token)
        role = line.roles.classify(token, texts[token], forced=forced)
        line.words.append(TokenEvent(line.label, token, texts[token], position, forced, None, None, *role))
    return lines[0]


def _events(trunk: _Line) -> Iterator[_Event]:
    """As an engine writes: every open branch a word a step, and what is forced at once."""
    rows = [trunk]
    while rows:
        going: list[_Line] = []
        for line in rows:
            yield from _write(line)
            going += yield from _settle(line)
        rows = going


def _write(line: _Line) -> Iterator[_Event]:
    """The next word, and the forced ones behind it, up to the next fork."""
    end = line.blocks[0][0] if line.blocks else len(line.words)
    first = line.at
    while line.at < end and (line.at == first or line.words[line.at].forced):
        yield line.words[line.at]
        line.at += 1


def _forced(line: _Line) -> Iterator[_Event]:
    while line.at < len(line.words) and line.words[line.at].forced and not (line.blocks and line.blocks[0][0] == line.at):
        yield line.words[line.at]
        line.at += 1


def _settle(line: _Line) -> Generator[_Event, None, list[_Line]]:
    """Fork, end or join where a branch has come to it; returns the branches that go on."""
    if line.blocks and line.blocks[0][0] == line.at:
        _, line.children = line.blocks.pop(0)
        line.open = len(line.children)
        yield ForkEvent(line.label, tuple(child.label for child in line.children))
        for child in line.children:
            yield from _forced(child)
        return line.children
    if line.at < len(line.words):
        return [line]
    parent = line.parent
    if parent is None:
        return []
    yield BranchEndEvent(line.label)
    parent.open -= 1
    if parent.open:
        return []
    yield JoinEvent(parent.label, tuple(child.label for child in parent.children))
    yield from _forced(parent)
    return (yield from _settle(parent))


def _wire_events(document: Document, encoded: Encoded, tokens: TokenDialect, words: _Words) -> Iterator[WireEvent]:
    yield WireEvent("start", id="document", prompt_tokens=0)
    counts, own, steps = Counts(), {"": 0}, {"": 0}
    for event in _events(_lines(encoded, tokens, words.texts)):
        if isinstance(event, TokenEvent):
            own[event.branch] += 1
            steps[event.branch] += not event.forced
            longest = max(counts.critical_path, event.position + 1)
            counts = Counts(counts.total + 1, longest, steps=max(counts.steps, steps[event.branch]))
        elif isinstance(event, ForkEvent):
            own.update(dict.fromkeys(event.labels, 0))
            steps.update(dict.fromkeys(event.labels, steps[event.branch]))
        elif isinstance(event, JoinEvent):
            steps[event.branch] = max(steps[label] for label in event.labels)
        yield from wire_events(replace(event, counts=counts._replace(branch=own[event.branch])))
    layout = encoded.layout
    written = document.answer if tokens.dialect.think is not None else (*(document.thinking or ()), *document.answer)
    text, read = markdown(written), reader_of(tokens.dialect)
    found = read(text) if read is not None else None
    answer = found if found is not None else plain_answer(markdown(document.answer), tokens.dialect.answer_form)
    yield WireEvent(
        "finish",
        tokens=counts._replace(branch=own[""]),
        finish_reason="stop",
        usage=Usage(0, len(layout), layout.critical_path(), layout.critical_path_steps(), seconds=0.0).to_json(),
        answer=answer,
    )
