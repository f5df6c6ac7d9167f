"""A composed request becomes a document: in a dialect, with outlines and conclusions of the model's if they are wanted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from ...structure import Block, Body, Dialect, Document, markdown, unnested
from ..errors import ValidationError
from ..types import Ask, Curated, Outcome, Request, Trace
from . import filters, phrases
from .answering import check_plain
from .composer import Composed
from .config import ComposeConfig

OUTLINE, CONCLUDE, TWIN = "outline", "conclude", "whole answer"

OUTLINE_PROMPT = """\
Shorten this question to a heading of at most eight words. Reply with the heading alone.

{question}"""

CONCLUDE_PROMPT = """\
{request}

{answer}

Write one short sentence that closes this answer. Reply with the sentence alone."""

RETRY = "This cannot be used ({problem}). Reply again, with nothing else."

_OUTLINE_WORDS, _CONCLUSION_WORDS = 12, 40
_TOKENS = 96


class Writing:
    """Makes the outcome of a composed request: `write`."""

    def __init__(self, config: ComposeConfig) -> None:
        self.config = config

    async def write(self, trace: Trace, composed: Composed, ask: Ask) -> Outcome:
        """The document and its sequential twin. What the model does not get right falls back to the code's, with a note."""
        attempts: Counter[str] = Counter()
        notes = [f"form: {composed.form}", f"wording: {composed.wording}"]
        body = composed.body
        if self.config.outline_writer == "model":
            body = await self._outlined(composed, ask, attempts, notes)
        if self.config.conclusion_writer == "model":
            body = await self._concluded(trace, body, ask, attempts, notes)
        twin = await self._twin(trace, body, ask, attempts, notes)
        dialect = self.config.tags
        document = as_document(body, twin, dialect)
        return Curated(
            trace,
            document,
            document,
            {},
            attempts=dict(attempts),
            notes=tuple(notes),
            sequential=plain_document(twin, dialect),
            held_out=composed.held_out,
        )

    async def _outlined(self, composed: Composed, ask: Ask, attempts: Counter[str], notes: list[str]) -> Body:
        """The body with headings of the model's for outlines that are questions."""
        headings: dict[str, str] = {}
        for part in composed.parts if len(composed.parts) > 1 else ():
            prompt = OUTLINE_PROMPT.format(question=part.question.text)
            found = await self._said(part.question.id, OUTLINE, prompt, _OUTLINE_WORDS, ask, attempts)
            if found is None:
                notes.append(f"outline of the code's: {part.question.text}")
            else:
                headings[phrases.outline(part.question.text)] = found.rstrip(".")
        return tuple(_with_outlines(composed.body, headings))

    async def _concluded(self, trace: Trace, body: Body, ask: Ask, attempts: Counter[str], notes: list[str]) -> Body:
        first = body[0]
        if not isinstance(first, Block):
            return body
        prompt = CONCLUDE_PROMPT.format(request=trace.question, answer=markdown((replace(first, conclusion=""),)))
        found = await self._said(trace.id, CONCLUDE, prompt, _CONCLUSION_WORDS, ask, attempts)
        if found is None:
            notes.append("conclusion of the code's")
            return body
        return (replace(first, conclusion=found), *body[1:])

    async def _said(self, row: str, stage: str, prompt: str, words: int, ask: Ask, attempts: Counter[str]) -> str | None:
        """One line of the model's of at most so many words; `None` if no attempt gives one."""
        messages: tuple[tuple[str, str], ...] = (("user", prompt),)
        for attempt in range(self.config.attempts):
            attempts[stage] += 1
            completion = await ask(Request(row, stage, attempt, messages, _TOKENS))
            try:
                return _line(completion.text, completion.finish_reason, words, self.config.tags)
            except ValidationError as error:
                retry = RETRY.format(problem=error.detail)
                messages = (("user", prompt), ("assistant", completion.text[: self.config.quoted]), ("user", retry))
        return None

    async def _twin(self, trace: Trace, body: Body, ask: Ask, attempts: Counter[str], notes: list[str]) -> str:
        """The answer in a line."""
        if self.config.twins == "parts" or not any(isinstance(item, Block) for item in body):
            return markdown(body)
        attempts[TWIN] += 1
        messages = (
            *((("system", self.config.system),) if self.config.system else ()),
            *trace.history,
            ("user", trace.question),
        )
        paths = sum(isinstance(item, Block) and len(item.paths) for item in body)
        longest = max(self.config.max_tokens, paths * self.config.max_part_tokens)
        completion = await ask(Request(trace.id, TWIN, 0, messages, longest))
        try:
            if completion.finish_reason != "stop" or not completion.text.strip():
                raise ValidationError("cut short", "the answer did not end by itself")
            check_plain(completion.text, self.config.tags)
            filters.check_repetition(completion.text, 2 * self.config.max_repetition)
        except ValidationError as error:
            notes.append(f"twin of the parts: the model's own answer cannot be used ({error.reason})")
            return markdown(body)
        return completion.text.strip()


def _line(text: str, finish_reason: str, words: int, dialect: Dialect) -> str:
    if finish_reason != "stop":
        raise ValidationError("cut short", "it is too long")
    line = re.sub(r"^(?:#+|[-*]|\d+[.):])\s+", "", text.strip()).strip("*\"'“” ")
    if not line or "\n" in line:
        raise ValidationError("not one line", "it is not one line of text")
    if len(line.split()) > words:
        raise ValidationError("too long", f"it has more than {words} words")
    check_plain(line, dialect)
    filters.check_refusal(line)
    return line


def _with_outlines(body: Body, headings: dict[str, str]) -> Iterator[str | Block]:
    for item in body:
        if isinstance(item, str):
            yield item
        else:
            outlines = tuple(headings.get(outline, outline) for outline in item.outlines)
            yield Block(outlines, tuple(tuple(_with_outlines(path, headings)) for path in item.paths), item.conclusion)


def as_document(body: Body, twin: str, dialect: Dialect) -> Document:
    """The document of an answer in a dialect.

    Where blocks stand in answers, the body is the answer. Elsewhere it is the thinking, and what a reader gets, the answer in a
    line, stands behind it if the dialect sets the two apart.
    """
    if not any(isinstance(item, Block) for item in body):
        return plain_document(twin, dialect)
    fitted = _fitted(body, dialect)
    if dialect.forks_answer:
        return Document(None, fitted)
    return Document(fitted) if dialect.think is None else Document(fitted, twin)


def plain_document(text: str, dialect: Dialect) -> Document:
    """A document without thinking and blocks."""
    return Document(None, text) if dialect.forks_answer or dialect.think is not None else Document((text,))


def _fitted(body: Body, dialect: Dialect) -> Body:
    """The body; in a dialect without conclusions each one follows its block as a text."""
    items: list[str | Block] = []
    for item in body:
        if isinstance(item, str):
            items.append(item)
            continue
        paths = tuple(_fitted(path if dialect.nests else unnested(path), dialect) for path in item.paths)
        items.append(Block(item.outlines, paths, item.conclusion if dialect.conclusion is not None else ""))
        if dialect.conclusion is None and item.conclusion:
            items.append(item.conclusion)
    return tuple(items)
