"""Audit of implicit parallelism: a model lists what in a sequential trace could have been done in parallel.

An instance is *collective* (sub-tasks or cases, all of them needed) or *selective* (alternatives, of which one is needed); one
inside a part of another is *nested*. The candidates are a file of JSON lines, one a trace; a person judges them in `review`.
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
from .completions import fields, items, sentence_text, span
from .config import CurationConfig
from .errors import RefusedError, ValidationError
from .outline import SentenceSpan
from .prompting import numbered
from .stages import Failure, Stage
from .stages.groups import KINDS
from .types import Ask, Trace

CANDIDATES = "candidates.jsonl"

Parts = tuple[SentenceSpan, ...]


class Instance(NamedTuple):
    """Something that could have been done in parallel, according to the model.

    Attributes:
        kind: one of `KINDS`.
        nested: whether it lies inside a part of another.
        parts: the sentences of each part.
        reason: why no part depends on another.
    """

    kind: str
    nested: bool
    parts: Parts
    reason: str


@dataclass(frozen=True)
class Listed:
    """A trace and its instances.

    Attributes:
        problem: the last error, if no completion was valid; else empty.
    """

    id: str
    question: str
    sentences: tuple[str, ...]
    instances: tuple[Instance, ...]
    problem: str = ""


@dataclass(frozen=True)
class Audit(Stage[tuple[Instance, ...]]):
    """The instances of a trace, in the order of the text; an outer one comes before those inside it."""

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
    """Whether all parts lie in one part of the other."""
    return any(other.contains(SentenceSpan(parts[0].first, parts[-1].last)) for other in others)


async def list_instances(trace: Trace, ask: Ask, config: CurationConfig) -> Listed:
    """List the instances of a trace; after an invalid completion the model is asked again with the error.

    A trace that the endpoint refuses has that as its problem.
    """
    stage, failure = Audit(trace, config), None
    try:
        for attempt in range(config.attempts):
            completion = await ask(stage.request(attempt, failure))
            try:
                return Listed(trace.id, trace.question, trace.sentences, stage.parse(completion))
            except ValidationError as error:
                failure = Failure(completion.text, error)
        assert failure is not None
        problem = str(failure.error)
    except RefusedError as error:
        problem = str(error)
    return Listed(trace.id, trace.question, trace.sentences, (), problem)


async def list_all(traces: Iterable[Trace], ask: Ask, config: CurationConfig, *, at_once: int = 16) -> AsyncIterator[Listed]:
    """List the instances of every trace, up to `at_once` concurrently, in the order of the traces.

    Raises:
        CurationError: the endpoint fails, or the budget is spent; earlier traces have been yielded.
    """
    source, working = iter(traces), deque[asyncio.Task[Listed]]()
    try:
        while True:
            for trace in islice(source, at_once - len(working)):
                working.append(asyncio.create_task(list_instances(trace, ask, config)))
            if not working:
                return
            yield await working.popleft()
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


def line(listed: Listed) -> str:
    """A line of the file of candidates."""
    return json.dumps({**vars(listed), "instances": [instance._asdict() for instance in listed.instances]}) + "\n"


def read_candidates(path: Path) -> Iterator[Listed]:
    """Read the file of candidates (`DataError` if it is missing or damaged)."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    value = json.loads(line)
                    value["instances"] = tuple(
                        Instance(**{**one, "parts": spans_of(one["parts"])}) for one in value["instances"]
                    )
                    yield Listed(**{**value, "sentences": tuple(value["sentences"])})
                except (ValueError, LookupError, TypeError):
                    raise DataError(f"{path}:{number}: not a line of candidates: list the instances again") from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror or error}): list the instances first") from error


def spans_of(parts: Any) -> Parts:
    """Parts from their JSON."""
    return tuple(SentenceSpan(int(first), int(last)) for first, last in parts)


def shown(parts: Parts) -> str:
    """Parts as text: ``4-6, 7``."""
    return ", ".join(str(part.first) if part.first == part.last else f"{part.first}-{part.last}" for part in parts)
