"""What the parts of curation hand to each other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from ..structure import Document


@dataclass(frozen=True)
class Trace:
    """One piece of sequential reasoning.

    Attributes:
        id: what the row is called everywhere; unique in a run.
        question: what was asked.
        sentences: the reasoning, cut so that the pieces put together are the text, white space included.
        answer: what follows the reasoning.
        source, line: where it was read.
    """

    id: str
    question: str
    sentences: tuple[str, ...]
    answer: str
    source: str = ""
    line: int = 0

    @property
    def reasoning(self) -> str:
        """The reasoning as it was."""
        return "".join(self.sentences)


class Request(NamedTuple):
    """One question to the model that annotates.

    Attributes:
        row: id of the trace.
        stage: which stage asks.
        attempt: 0 for the first time; a complaint about the answer before stands in the messages of later ones.
        messages: the whole chat, as (role, content).
        max_tokens: longest answer.
    """

    row: str
    stage: str
    attempt: int
    messages: tuple[tuple[str, str], ...]
    max_tokens: int = 4096

    def key(self, **settings: Any) -> str:
        """Name of this request, rendered, under these settings (model, sampling): what answers are stored by."""
        whole = [self.stage, self.attempt, self.messages, self.max_tokens, sorted(settings.items())]
        return sha256(json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


class Completion(NamedTuple):
    """What came back.

    Attributes:
        text: the answer.
        finish_reason: ``stop``, or ``length`` where it was cut short.
        prompt_tokens, completion_tokens: as the endpoint counts.
        cached: whether it came from the store.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


Ask = Callable[[Request], Awaitable[Completion]]
"""Puts a request to the model; raises `CurationError` for what no repetition mends, and when the budget is spent."""


@dataclass(frozen=True)
class Curated:
    """A trace that became a structured document.

    Attributes:
        document: the structured document.
        refilled: the same before its paths were rewritten: every sentence is the original one.
        distances: normalised edit distance to the original, ``refilled`` and ``final``.
        fallbacks: paths and blocks that kept their refilled text because no rewrite passed, by their way from the trunk:
            ``1/2`` is the second path of the first block, ``1/2/1`` the first block inside it.
        attempts: requests by stage.
        notes: what else a reader should know: a judge's verdict, say.
    """

    trace: Trace
    document: Document
    refilled: Document
    distances: dict[str, float]
    fallbacks: tuple[str, ...] = ()
    attempts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rejected:
    """A trace that did not, and why.

    Attributes:
        stage: where it failed.
        reason: a short name to count by, such as ``lost sentences``.
        detail: the last complaint in full.
    """

    trace: Trace
    stage: str
    reason: str
    detail: str
    attempts: dict[str, int] = field(default_factory=dict)


Outcome = Curated | Rejected
