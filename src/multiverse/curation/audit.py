"""How much of a sequential trace could have been done in parallel: a model lists the instances, for a person to judge.

An instance is *collective* (sub-tasks or cases, all of them needed) or *selective* (alternatives, of which one is needed), and
may lie inside a part of another: then it is *nested*. What was listed is a file of JSON lines, one a trace; what a person makes
of it is in `review`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from .completions import ValidationError, fields, items, sentence_text, span
from .config import CurationConfig
from .errors import RefusedError
from .outline import SentenceSpan
from .prompting import numbered
from .stages import Failure, Stage
from .stages.groups import KINDS
from .types import Ask, Trace

CANDIDATES = "candidates.jsonl"

Parts = tuple[SentenceSpan, ...]


class Instance(NamedTuple):
    """What could have been done in parallel, as the model says.

    Attributes:
        kind: one of `KINDS`.
        nested: whether it lies inside a part of another.
        parts: the sentences of each part.
        reason: why no part needs another.
    """

    kind: str
    nested: bool
    parts: Parts
    reason: str


@dataclass(frozen=True)
class Listed:
    """A trace and the instances in it.

    Attributes:
        problem: the last complaint, where no answer of the model could be used; empty elsewhere.
    """

    id: str
    question: str
    sentences: tuple[str, ...]
    instances: tuple[Instance, ...]
    problem: str = ""


@dataclass(frozen=True)
class Audit(Stage[tuple[Instance, ...]]):
    """The instances of a trace, in the order of the text, an outer one before those inside it."""

    name = "audit"
    field = "instances"

    def inputs(self) -> dict[str, Any]:
        return {"sentences": numbered(self.trace.sentences)}

    def read(self, value: Any) -> tuple[Instance, ...]:
        found = [self._instance(one, f"instance {number}") for number, one in enumerate(items(value, "'instances'"), 1)]
        for (first, a), (second, b) in combinations(enumerate(found, 1), 2):
            if _share(a.parts, b.parts) and not _inside(a.parts, b.parts) and not _inside(b.parts, a.parts):
                detail = f"instances {first} and {second} share sentences, and neither lies in one part of the other"
                raise ValidationError("crossing instances", detail)
        found.sort(key=lambda one: (one.parts[0].first, -one.parts[-1].last))
        return tuple(one._replace(nested=any(_inside(one.parts, other.parts) for other in found)) for one in found)

    def _instance(self, value: Any, what: str) -> Instance:
        kind, parts, reason = fields(value, what, "kind", "parts", "reason")
        if kind not in KINDS:
            raise ValidationError("wrong shape", f"the kind of {what} is {str(kind)[:40]!r}: it must be {' or '.join(KINDS)}")
        last = len(self.trace.sentences)
        spans = [span(part, f"part {number} of {what}", last) for number, part in enumerate(items(parts, what), 1)]
        if len(spans) < 2:
            raise ValidationError("too few parts", f"{what} has {len(spans)} part(s): it needs at least two")
        for before, after in pairwise(spans):
            if after.first <= before.last:
                detail = f"in {what}, {list(after)} does not stand behind {list(before)}: parts are in order and share nothing"
                raise ValidationError("crossing parts", detail)
        return Instance(kind, False, tuple(spans), sentence_text(reason, f"the reason of {what}"))


def _share(parts: Parts, others: Parts) -> bool:
    return any(a.first <= b.last and b.first <= a.last for a in parts for b in others)


def _inside(parts: Parts, others: Parts) -> bool:
    """Whether all of it lies in one part of the other."""
    return any(other.holds(SentenceSpan(parts[0].first, parts[-1].last)) for other in others)


async def list_instances(trace: Trace, ask: Ask, settings: CurationConfig) -> Listed:
    """Let the model list the instances of a trace; an answer that will not do goes back with the reason."""
    stage = Audit(trace, settings)
    failure: Failure | None = None
    for attempt in range(settings.attempts):
        answer = await ask(stage.request(attempt, failure))
        try:
            return Listed(trace.id, trace.question, trace.sentences, stage.parse(answer))
        except ValidationError as complaint:
            failure = Failure(answer.text, complaint)
    assert failure is not None
    return Listed(trace.id, trace.question, trace.sentences, (), str(failure.complaint))


async def list_all(traces: Iterable[Trace], ask: Ask, settings: CurationConfig, *, at_once: int = 16) -> AsyncIterator[Listed]:
    """List the instances of every trace, so many traces at once, in the order in which they come.

    A trace that the endpoint refuses has that as its problem.

    Raises:
        CurationError: the endpoint fails, or the budget is spent. What came before it has been handed out.
    """
    source, working = iter(traces), deque[asyncio.Task[Listed]]()
    try:
        while True:
            for trace in islice(source, at_once - len(working)):
                working.append(asyncio.create_task(_listed_or_refused(trace, ask, settings)))
            if not working:
                return
            yield await working.popleft()
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


async def _listed_or_refused(trace: Trace, ask: Ask, settings: CurationConfig) -> Listed:
    try:
        return await list_instances(trace, ask, settings)
    except RefusedError as error:
        return Listed(trace.id, trace.question, trace.sentences, (), str(error))


def line(listed: Listed) -> str:
    """What was listed, as the file holds it."""
    return json.dumps({**vars(listed), "instances": [instance._asdict() for instance in listed.instances]}) + "\n"


def read_candidates(path: Path) -> Iterator[Listed]:
    """What was listed (`DataError` if the file is missing or damaged)."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    value = json.loads(line)
                    value["instances"] = tuple(_instance(one) for one in value["instances"])
                    yield Listed(**{**value, "sentences": tuple(value["sentences"])})
                except (ValueError, LookupError, TypeError):
                    raise DataError(f"{path}:{number}: the line lists no instances: list them again") from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror or error}): list the instances first") from error


def _instance(value: dict[str, Any]) -> Instance:
    return Instance(**{**value, "parts": spans_of(value["parts"])})


def spans_of(parts: Any) -> Parts:
    """Parts as files hold them."""
    return tuple(SentenceSpan(int(first), int(last)) for first, last in parts)


def shown(parts: Parts) -> str:
    """Parts for a person to read: ``4-6, 7``."""
    return ", ".join(str(part.first) if part.first == part.last else f"{part.first}-{part.last}" for part in parts)
