"""Training data without a teacher: samples of a model that forks already, filtered (rejection sampling).

Each sample is a row. It is kept if it is well formed, correct, truly parallel and new for its question; otherwise it is
rejected with its reason. `job` works on the rows as on those of curation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..data import Fault, Row
from ..data.records import MESSAGES, REASONING, checked, row_of
from ..data.source import READERS, scan_source
from ..errors import StructureError
from ..structure import Block, Body, Dialect, Document, markdown, measure, parse, word_tokens
from .checks import body_texts, check_apart, distance
from .client import Client, read_completion
from .config import DistillConfig
from .errors import RefusedError, ValidationError
from .types import Ask, Completion, Curated, Outcome, Rejected, Request, Trace

STAGE = "sample"

_CACHED = 1024  # samples whose verdict is cached
_SHOWN = 20_000  # characters of a rejected sample that are kept with the reason

Check = Callable[[str, str, str], bool]
"""Whether an answer is correct, from question, reference answer and answer."""


class Question(NamedTuple):
    """A question with its reference answer."""

    id: str
    question: str
    answer: str


def rows(questions: Iterable[Question], samples: int) -> Iterator[Trace]:
    """A row without reasoning for each sample of each question; `line` is its number. Repeated questions are skipped."""
    seen: set[str] = set()
    for one in questions:
        if one.question not in seen:
            seen.add(one.question)
            for number in range(1, samples + 1):
                yield Trace(f"{one.id}/{number}", one.question, (), one.answer, one.id, number)


class Distiller:
    """Takes and judges samples: `distil` is the `curate` and `start` the `on_start` of `Job.start`."""

    def __init__(self, config: DistillConfig, check: Check | None = None) -> None:
        self.config, self.check = config, same_answer if check is None else check
        self._ask_uncounted: Ask | None = None
        self._tokens = word_tokens(config.tags)
        self._verdict = lru_cache(maxsize=_CACHED)(self._read)

    def start(self, client: Client, _outcomes: object) -> None:
        """Use this client for samples of other rows, so that they are not counted as those of the row in work."""
        self._ask_uncounted = client.ask

    async def distil(self, trace: Trace, ask: Ask) -> Outcome:
        """Take a row's sample and judge it, also against the earlier samples of the same question.

        Those are requested as well: they are in the store, or will be for their own rows. So the outcome depends neither on the
        order in which samples arrive nor on interruptions.
        """
        kept: list[str] = []
        for number in range(1, trace.line):
            try:
                earlier = await (self._ask_uncounted or ask)(self.request(trace, number))
            except RefusedError:
                continue
            if isinstance(self._judged(trace, earlier, kept), Document):
                kept.append(earlier.text)
        completion = await ask(self.request(trace, trace.line))
        found = self._judged(trace, completion, kept)
        if isinstance(found, Document):
            return Curated(trace, found, found, {}, attempts={STAGE: 1})
        return Rejected(trace, STAGE, found.reason, f"{found.detail}\n\n{completion.text[:_SHOWN]}", {STAGE: 1})

    def request(self, trace: Trace, number: int) -> Request:
        """The request for a sample; `attempt` distinguishes the samples."""
        content = " ".join(part for part in (trace.question.strip(), self.config.instruction) if part)
        return Request(trace.id, STAGE, number - 1, (("user", content),), self.config.max_tokens)

    def _judged(self, trace: Trace, completion: Completion, kept: Sequence[str]) -> Document | ValidationError:
        found = self._verdict(trace.question, trace.answer, completion.text, completion.finish_reason)
        if isinstance(found, Document):
            try:
                check_new(completion.text, kept, self.config.min_difference)
            except ValidationError as error:
                return error
        return found

    def _read(self, question: str, reference: str, text: str, finish_reason: str) -> Document | ValidationError:
        """The document of a sample, or why it is rejected regardless of other samples."""
        try:
            if finish_reason == "length":
                raise ValidationError("cut short", "the sample came to its longest before it came to its end")
            if len(text) > self.config.max_answer:
                detail = f"the sample has {len(text):,} characters, at most {self.config.max_answer:,} are read"
                raise ValidationError("too long", detail)
            document = parse(text, self.config.tags)
            # In a dialect whose trunk is the thinking, its last text is the answer.
            given = markdown(document.answer) or next((item for item in reversed(document.trunk) if isinstance(item, str)), "")
            if not self.check(question, reference, given):
                detail = f"the answer is {given.strip()[:200]!r}, and {reference[:200]!r} is right"
                raise ValidationError("wrong answer", detail)
            self._check_parallel(document)
            for body in (document.thinking or (), document.answer):
                check_independent(body, [question])
        except StructureError as error:
            return ValidationError("malformed", str(error))
        except ValidationError as error:
            return error
        return document

    def _check_parallel(self, document: Document) -> None:
        if not any(len(block.paths) > 1 for _, block in document.blocks()):
            raise ValidationError("not parallel", "no block has two paths")
        for _, block in document.blocks():
            check_different(block)
        found, least = measure(document, self._tokens).parallelism, self.config.min_parallelism
        if found < least:
            raise ValidationError("hardly parallel", f"the parallelism is {found:.3f}, and {least:g} is asked for")


def check_different(block: Block) -> None:
    """No two paths of a block are the same, letter case and white space apart."""
    seen: dict[str, int] = {}
    for number, path in enumerate(block.paths, 1):
        text = _folded(" ".join(body_texts(path, "", conclusions=True)))
        if text in seen:
            raise ValidationError("same paths", f"paths {seen[text]} and {number} of a block say the same: {text[:80]!r}")
        seen[text] = number


def check_independent(body: Body, known: Sequence[str]) -> None:
    """No path uses what only a sibling before it has established; `known` is the text before the body."""
    before = list(known)
    for item in body:
        if isinstance(item, str):
            before.append(item)
            continue
        paths = ["\n".join(body_texts(path, "", conclusions=True)) for path in item.paths]
        for number, path in enumerate(item.paths):
            check_apart(paths[number], paths[:number], [*before, *item.outlines])
            check_independent(path, [*before, *item.outlines])
        before += body_texts((item,), "", conclusions=True)


def check_new(text: str, kept: Sequence[str], min_difference: float) -> None:
    """A sample differs enough from all samples that were kept for the same question."""
    if text in kept:
        raise ValidationError("duplicate", "the same question has been given the same document before")
    for other in kept:
        found = distance(text, other)
        if found < min_difference:
            detail = (
                f"it is {found:.3f} away from a document that the question has been given before, at least {min_difference:g}"
            )
            raise ValidationError("near duplicate", f"{detail} is asked for")


_ANSWER = re.compile(r"^[*\s]*(?:the\s+)?(?:final\s+)?answer[*\s]*(?:is|:)[*:\s]*(.+)$", re.IGNORECASE | re.MULTILINE)
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def same_answer(question: str, reference: str, given: str) -> bool:  # noqa: ARG001
    """Whether two answers are the same after normalisation."""
    return bool(given.strip()) and normalised(reference) == normalised(given)


def normalised(answer: str) -> str:
    """The last box, else what follows ``Answer:``, without dollars, dots and letter case; numbers as fractions."""
    found = _BOXED.findall(answer) or _ANSWER.findall(answer)
    text = _folded(_THOUSANDS.sub("", found[-1] if found else answer)).strip("$*. ").removeprefix("\\(").removesuffix("\\)")
    try:
        return str(Fraction(text.replace(" ", ""))) if len(text) < 40 and "e" not in text else text
    except (ValueError, ZeroDivisionError):
        return text


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def read_sample(body: bytes, request: Request, dialect: Dialect) -> Completion:
    """The completion in the body of a response, with reasoning that the server sends separately put back before the answer."""
    completion = read_completion(body, request)
    message = json.loads(body)["choices"][0]["message"]
    return completion._replace(text=whole_text(message, completion.text, dialect))


def whole_text(message: dict[str, Any], content: str, dialect: Dialect) -> str:
    """Reasoning and content of a message as a document; concatenated if they make no document."""
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
    for item in scan_source(path, {path.suffix.lower(): READERS[".jsonl"]}):
        if isinstance(item, Fault):
            faults.append(item)
            continue
        try:
            questions.append(Question(f"{path.name}:{item.line}", *_fields(item.value)))
        except ValueError as error:
            faults.append(Fault(str(path), item.line, str(error)))
    return questions, faults


def _fields(record: Any) -> tuple[str, str]:
    if not isinstance(record, dict):
        raise ValueError("the line is not an object: it needs a question and an answer")
    found = []
    for name in ("question", "answer"):
        value = record.get(name)
        text = str(value) if type(value) in (int, float) else value
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the {name} is missing or not a text: add it, or remove the line")
        found.append(checked(text.strip(), f"the {name}"))
    return found[0], found[1]
