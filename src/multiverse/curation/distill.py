"""Training data without a teacher: answers sampled from a model that forks already, of which the good ones stay.

Each sample is a row. It stays if it is well formed, right, truly parallel, and not what the same question has been given
before; else it is set aside with its reason. `job` works through the rows as it does through those of curation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..data import Fault, Row
from ..data.records import MESSAGES, REASONING, checked, row_of
from ..errors import StructureError
from ..structure import Block, Body, Dialect, Document, measure, parse, word_tokens
from .budget import Budget
from .checks import check_apart, distance, told
from .client import Client, EndpointConfig, read_answer
from .completions import ValidationError
from .config import CurationConfig
from .errors import RefusedError
from .store import Store
from .types import Ask, Completion, Curated, Outcome, Rejected, Request, Trace

STAGE = "sample"

_JUDGED = 1024  # samples whose judgement is remembered
_SHOWN = 20_000  # characters of a sample that are kept with the reason why it was set aside

Check = Callable[[str, str, str], bool]
"""Whether, to a question with this right answer, this one is right."""

Sample = Callable[[Request], Awaitable[Completion]]
"""Puts a question to a model that is no endpoint; the attempt is the number of the sample."""


@dataclass(frozen=True)
class DistillConfig(CurationConfig):
    """Which samples stay. What belongs to the stages of curation is not used.

    Attributes:
        n: samples of each question.
        instruction: what is put behind every question.
        parallelism: least parallelism of a document, counted in words.
        difference: least normalised edit distance to any document that the same question has been given before.
    """

    n: int = 4
    instruction: str = ""
    parallelism: float = 1.05
    difference: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise ValueError(f"n={self.n} is not valid: it must be at least 1")
        if self.parallelism < 1:
            raise ValueError(f"parallelism={self.parallelism} is not valid: it must be at least 1")
        if not 0 <= self.difference <= 1:
            raise ValueError(f"difference={self.difference} is not valid: it must lie between 0 and 1")


class Question(NamedTuple):
    """A question, its right answer, and what to call it."""

    id: str
    question: str
    answer: str


def rows(questions: Iterable[Question], n: int) -> Iterator[Trace]:
    """A row for each sample of each question, without a reasoning. A question that comes again is left out."""
    seen: set[str] = set()
    for one in questions:
        if one.question not in seen:
            seen.add(one.question)
            yield from (Trace(f"{one.id}/{number}", one.question, (), one.answer, one.id, number) for number in range(1, n + 1))


class Distiller:
    """Samples and judges: `distil` is what is done to a row.

    Attributes:
        beside: the way to samples that belong to other rows; what they take counts there.
    """

    def __init__(self, rules: DistillConfig, check: Check | None = None) -> None:
        self.rules, self.check = rules, same_answer if check is None else check
        self.beside: Ask | None = None
        self._tokens = word_tokens(rules.tags)
        self._alone = lru_cache(maxsize=_JUDGED)(self._read)

    async def distil(self, trace: Trace, ask: Ask) -> Outcome:
        """Take a row's sample, and judge it by itself and beside those that the same question was given before.

        Those are asked for as well: they come from the store, or will be there for their own rows. So the judgement does not
        depend on which sample comes first, nor on whether the run was interrupted.
        """
        kept: list[str] = []
        for number in range(1, trace.line):
            try:
                earlier = await (self.beside or ask)(self.request(trace, number))
            except RefusedError:
                continue
            if isinstance(self._judged(trace, earlier, kept), Document):
                kept.append(earlier.text)
        answer = await ask(self.request(trace, trace.line))
        found = self._judged(trace, answer, kept)
        if isinstance(found, Document):
            return Curated(trace, found, found, {}, attempts={STAGE: 1})
        return Rejected(trace, STAGE, found.reason, f"{found.detail}\n\n{answer.text[:_SHOWN]}", {STAGE: 1})

    def request(self, trace: Trace, number: int) -> Request:
        """What is asked for a sample; its number makes it another request."""
        content = " ".join(part for part in (trace.question.strip(), self.rules.instruction) if part)
        return Request(trace.id, STAGE, number - 1, (("user", content),), self.rules.max_tokens)

    def _judged(self, trace: Trace, answer: Completion, kept: Sequence[str]) -> Document | ValidationError:
        found = self._alone(trace.question, trace.answer, answer.text, answer.finish_reason)
        if isinstance(found, Document):
            try:
                check_new(answer.text, kept, self.rules.difference)
            except ValidationError as complaint:
                return complaint
        return found

    def _read(self, question: str, right: str, text: str, finish_reason: str) -> Document | ValidationError:
        """The document of a sample, or why it does not stay, whatever others there are."""
        try:
            if finish_reason == "length":
                raise ValidationError("cut short", "the sample came to its longest before it came to its end")
            if len(text) > self.rules.max_answer:
                raise ValidationError(
                    "too long", f"the sample has {len(text):,} characters, at most {self.rules.max_answer:,} are read"
                )
            document = _parsed(text, self.rules.tags)
            given = document.answer or next((item for item in reversed(document.thinking or ()) if isinstance(item, str)), "")
            if not self.check(question, right, given):
                raise ValidationError("wrong answer", f"the answer is {given.strip()[:200]!r}, and {right[:200]!r} is right")
            self._check_parallel(document)
            check_independent(document.thinking or (), [question])
        except ValidationError as complaint:
            return complaint
        return document

    def _check_parallel(self, document: Document) -> None:
        if not any(len(block.paths) > 1 for _, block in document.blocks()):
            raise ValidationError("not parallel", "no block has two paths")
        for _, block in document.blocks():
            check_different(block)
        found = measure(document, self._tokens).parallelism
        if found < self.rules.parallelism:
            raise ValidationError(
                "hardly parallel", f"the parallelism is {found:.3f}, and {self.rules.parallelism:g} is asked for"
            )


def _parsed(text: str, dialect: Dialect) -> Document:
    try:
        return parse(text, dialect)
    except StructureError as error:
        raise ValidationError("malformed", str(error)) from None


def check_different(block: Block) -> None:
    """No two paths of a block say the same, letter case and white space apart."""
    said: dict[str, int] = {}
    for number, path in enumerate(block.paths, 1):
        text = _folded(" ".join(told(path, "", conclusions=True)))
        if text in said:
            raise ValidationError("same paths", f"paths {said[text]} and {number} of a block say the same: {text[:80]!r}")
        said[text] = number


def check_independent(body: Body, known: Sequence[str]) -> None:
    """No path uses what only a sibling before it has established; `known` is what was said before the body."""
    before = list(known)
    for item in body:
        if isinstance(item, str):
            before.append(item)
            continue
        paths = ["\n".join(told(path, "", conclusions=True)) for path in item.paths]
        for number, path in enumerate(item.paths):
            check_apart(paths[number], paths[:number], [*before, *item.outlines])
            check_independent(path, [*before, *item.outlines])
        before += told((item,), "", conclusions=True)


def check_new(text: str, kept: Sequence[str], difference: float) -> None:
    """A sample is not what has been kept of the same question before, nor close to it."""
    if text in kept:
        raise ValidationError("duplicate", "the same question has been given the same document before")
    for other in kept:
        found = distance(text, other)
        if found < difference:
            detail = f"it is {found:.3f} away from a document that the question has been given before, at least {difference:g}"
            raise ValidationError("near duplicate", f"{detail} is asked for")


_ANSWER = re.compile(r"^[*\s]*(?:the\s+)?(?:final\s+)?answer[*\s]*(?:is|:)[*:\s]*(.+)$", re.IGNORECASE | re.MULTILINE)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def same_answer(question: str, right: str, given: str) -> bool:  # noqa: ARG001
    """Whether two answers are the same once they are written alike."""
    return bool(given.strip()) and written_alike(right) == written_alike(given)


def written_alike(answer: str) -> str:
    """What an answer comes to: the last box, else what follows ``Answer:``; no dollars, dots or case; numbers as fractions."""
    found = _BOXED.findall(answer) or _ANSWER.findall(answer)
    text = _folded(_THOUSANDS.sub("", found[-1] if found else answer)).strip("$*. ").removeprefix("\\(").removesuffix("\\)")
    try:
        return str(Fraction(text.replace(" ", ""))) if len(text) < 40 and "e" not in text else text
    except (ValueError, ZeroDivisionError):
        return text


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


class Sampler(Client):
    """A client that puts reasoning, which servers give apart, back before the answer; or asks a model of this process.

    Args:
        sample: the model of this process, asked in place of the endpoint.
    """

    def __init__(
        self, endpoint: EndpointConfig, store: Store, budget: Budget, *, dialect: Dialect, sample: Sample | None = None
    ) -> None:
        super().__init__(endpoint, store, budget)
        self._dialect, self._sample = dialect, sample

    def read(self, body: bytes, request: Request) -> Completion:
        answer = read_answer(body, request)
        message = json.loads(body)["choices"][0]["message"]
        return answer._replace(text=whole_text(message, answer.text, self._dialect))

    async def _call(self, request: Request) -> Completion:
        if self._sample is None:
            return await super()._call(request)
        answer = await self._sample(request)
        self.paid = self.paid.plus(answer)
        return answer


def whole_text(message: dict[str, Any], content: str, dialect: Dialect) -> str:
    """The whole of a sample. Where it is no document either way, its parts one after the other: what is wrong shows later."""
    parts = [text for name in REASONING if isinstance(text := message.get(name), str) and text.strip()]
    if not parts:
        return content
    turns = [{"role": "user", "content": ""}, {**message, "role": "assistant", "content": content}]
    row = row_of({MESSAGES: turns}, "", 1, dialect)
    return row.messages(dialect)[-1]["content"] if isinstance(row, Row) else f"{parts[0]}\n{content}"


def read_questions(path: Path) -> tuple[list[Question], list[Fault]]:
    """The questions of a file of JSON lines with `question` and `answer`, and a fault for each line that holds none."""
    questions: list[Question] = []
    faults: list[Fault] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return [], [Fault(str(path), 1, f"the file cannot be read ({error.strerror or error}): give one that can be")]
    for number, data in enumerate(lines, 1):
        if not data.strip():
            continue
        try:
            question, answer = _fields(json.loads(data))
        except ValueError as error:
            faults.append(Fault(str(path), number, str(error)))
        else:
            questions.append(Question(f"{path.name}:{number}", question, answer))
    return questions, faults


def _fields(record: Any) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise ValueError("the line is no object: it needs a question and an answer")
    found = []
    for name in ("question", "answer"):
        value = record.get(name)
        text = str(value) if type(value) in (int, float) else value
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the {name} is missing or no text: give it one, or take the line out")
        found.append(checked(text.strip(), f"the {name}"))
    return found[0], found[1]
