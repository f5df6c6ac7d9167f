"""Values that the modules of curation exchange."""

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
        id: name of the row, unique in a run.
        question: the question.
        sentences: the reasoning, cut so that the pieces joined are the text, white space included.
        answer: what follows the reasoning.
        source, line: where it was read.
        history: the turns of the chat before the question, as (role, content).
    """

    id: str
    question: str
    sentences: tuple[str, ...]
    answer: str
    source: str = ""
    line: int = 0
    history: tuple[tuple[str, str], ...] = ()

    @property
    def reasoning(self) -> str:
        """The original text of the reasoning."""
        return "".join(self.sentences)


class Request(NamedTuple):
    """One request to the annotating model.

    Attributes:
        row: id of the trace.
        stage: name of the stage.
        attempt: number from 0; the messages of later ones quote the validation error before.
        messages: the whole chat, as (role, content).
        max_tokens: most tokens of the completion.
    """

    row: str
    stage: str
    attempt: int
    messages: tuple[tuple[str, str], ...]
    max_tokens: int = 4096

    def key(self, **sampling: Any) -> str:
        """Key of the completion in the store: a hash of the rendered request and of model, temperature and seed."""
        whole = [self.stage, self.attempt, self.messages, self.max_tokens, sorted(sampling.items())]
        return sha256(json.dumps(whole, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


class Completion(NamedTuple):
    """What the model returned.

    Attributes:
        text: the content of the message.
        finish_reason: ``stop``, or ``length`` where it was truncated.
        prompt_tokens, completion_tokens: as the endpoint counts.
        cached: whether it came from the store.
    """

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


class Usage(NamedTuple):
    """Number of completed calls, and their tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, completion: Completion) -> Usage:
        """The sum with one more completion."""
        return self.add(Usage(1, completion.prompt_tokens, completion.completion_tokens))

    def add(self, other: Usage) -> Usage:
        """The sum of two usages."""
        return Usage(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


Ask = Callable[[Request], Awaitable[Completion]]
"""Sends a request to the model. Raises `CurationError` for permanent failures, and when the budget is spent."""


@dataclass(frozen=True)
class Curated:
    """A trace that became a structured document.

    Attributes:
        document: the structured document.
        refilled: the same before its paths were rewritten: every sentence is the original one.
        distances: normalised edit distance to the original, ``refilled`` and ``final``.
        fallbacks: paths and blocks that kept their refilled text because no rewrite was valid; for the names see `outline`.
        attempts: requests by stage.
        notes: further remarks, such as the judge's verdicts.
        sequential: a solution without blocks, if it is not the trace's reasoning.
        held_out: whether it is for validation; `None` draws it by the question.
    """

    trace: Trace
    document: Document
    refilled: Document
    distances: dict[str, float]
    fallbacks: tuple[str, ...] = ()
    attempts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sequential: Document | None = None
    held_out: bool | None = None


@dataclass(frozen=True)
class Rejected:
    """A trace that became no document.

    Attributes:
        stage: where it failed.
        reason: a short name to count by, such as ``lost sentences``.
        detail: the last error in full.
    """

    trace: Trace
    stage: str
    reason: str
    detail: str
    attempts: dict[str, int] = field(default_factory=dict)


Outcome = Curated | Rejected
