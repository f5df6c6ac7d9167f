"""From the events of a request to its answer: whole, as a stream of chunks, or as a stream of branch events.

What chat and text completions have in common; `chat.py` and `completions.py` say how they differ.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..engine.events import Event, PromptEvent
from ..streaming import WireEvent, wire_events
from . import sse
from .choice import Choice, Piece, usage_of
from .logprobs import TokenNames, prompt_logprobs
from .params import with_usage

if TYPE_CHECKING:
    from ..engine.event_stream import EventStream
    from .requests import Sampling
    from .service import Service

Json = dict[str, Any]


class Form(ABC):
    """The form of one answer. Methods that return fields of a choice leave out its index and finish reason.

    Args:
        service: answers the request.
        request: says what the answer holds.
        choices: one per sample, those of a prompt next to each other.
        prompts: token ids of each prompt.

    Attributes:
        names: how tokens are called.
        scored: whether the prompt's log-probabilities come first.
        left_out: parts of the messages that the chat template has left out.
        warnings: the same in words.
    """

    prefix: str
    """How ids begin."""
    kind: str
    """`object` of a whole answer."""
    chunk_kind: str
    """`object` of a chunk."""
    left_out: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def __init__(
        self, service: Service, request: Sampling, choices: Sequence[Choice], prompts: Sequence[Sequence[int]]
    ) -> None:
        self.service, self.choices, self.prompts = service, choices, prompts
        self.include_usage, self.token_ids = with_usage(request), bool(request.return_token_ids)
        self.names = TokenNames(service.bytes_of, as_ids=bool(request.return_tokens_as_token_ids))
        self.scored = self._prompt_logprobs = request.prompt_logprobs is not None

    @abstractmethod
    def whole(self, choice: Choice) -> Json:
        """Fields of a finished choice."""

    @abstractmethod
    def opening(self, choice: Choice) -> Json | None:
        """Fields of a chunk before the first text; `None` if there is none."""

    @abstractmethod
    def delta(self, choice: Choice, pieces: Sequence[Piece]) -> Json | None:
        """Fields of a chunk with more text; `None` if nothing in it is to be sent."""

    @abstractmethod
    def empty(self) -> Json:
        """Fields of a chunk without text."""

    def preface(self) -> Json:
        """Fields of the whole answer, and of the first chunk, about the prompt."""
        return {}

    def prompt_of(self, choice: Choice) -> Sequence[int]:
        """The prompt that a choice continues."""
        return self.prompts[choice.index * len(self.prompts) // len(self.choices)]

    def about_prompt(self, choice: Choice) -> Json:
        """What vLLM says of a choice's prompt, as far as it was asked for."""
        prompt = self.prompt_of(choice)
        fields: Json = {"prompt_token_ids": list(prompt)} if self.token_ids else {}
        if self._prompt_logprobs:
            fields["prompt_logprobs"] = prompt_logprobs(prompt, choice.prompt_scores, self.names)
        return fields

    def _delta(self, choice: Choice, events: Sequence[Event]) -> Json | None:
        """Fields of a chunk with what these events make ready, token ids included."""
        pieces = [piece for event in events for piece in choice.feed(event)]
        fields = self.delta(choice, pieces)
        ids = choice.take_token_ids() if self.token_ids else []
        return {**(fields if fields is not None else self.empty()), "token_ids": ids} if ids else fields

    async def answer(self, events: EventStream) -> Json:
        """The whole answer.

        Raises:
            ApiError: a generation failed.
            EngineError: the engine failed.
        """
        async for index, event in events:
            choice = self.choices[index]
            choice.pieces += choice.feed(event)
            self._check(choice)
        choices = []
        for choice in self.choices:
            ids = {"token_ids": choice.take_token_ids()} if self.token_ids else {}
            choices.append(choice.end({**self.whole(choice), **ids}))
        return {**self._header(self.kind), "choices": choices, "usage": self._usage(), **self._preface()}

    async def chunks(self, events: EventStream) -> AsyncIterator[list[Json]]:
        """The chunks of a stream as they become ready; an empty list when nothing has come for a while. Raises as `answer`."""
        head = self._header(self.chunk_kind)
        if not self.scored and (some := [chunk for choice in self.choices for chunk in self._begin(head, choice)]):
            yield some
        async for batch in events.batches(sse.PING_SECONDS):
            chunks: list[Json] = []
            for choice, own in self._by_choice(batch):
                fields = self._delta(choice, own)
                if self.scored and any(isinstance(event, PromptEvent) for event in own):
                    chunks += self._begin(head, choice)
                if fields is not None:
                    chunks.append(self._chunk(head, _open(choice, fields)))
                if choice.generation is not None:
                    if chunks:
                        yield chunks
                        chunks = []
                    self._check(choice)
                    chunks.append(self._chunk(head, choice.end(self.empty())))
            if chunks or not batch:
                yield chunks
        if self.include_usage:
            yield [self._last(head)]

    async def branch_chunks(self, events: EventStream) -> AsyncIterator[list[Json]]:
        """Every event of the one generation as a chunk of its own, with the ordinary text that it makes ready."""
        head, began = self._header(self.chunk_kind), time.monotonic()
        (choice,) = self.choices

        def chunk(wired: WireEvent, fields: Json) -> Json:
            timed = replace(wired, seconds=round(time.monotonic() - began, 6))
            return {**self._chunk(head, fields), "multiverse": timed.to_json()}

        def start() -> Json:
            opening = self.opening(choice)
            wired = WireEvent("start", id=head["id"], model=head["model"], prompt_tokens=len(self.prompts[0]))
            return {**chunk(wired, _open(choice, opening if opening is not None else self.empty())), **self._preface()}

        if not self.scored:
            yield [start()]
        async for batch in events.batches(sse.PING_SECONDS):
            chunks: list[Json] = []
            for _, event in batch:
                fields = self._delta(choice, [event])
                if isinstance(event, PromptEvent):
                    chunks += [start()] if self.scored else []
                    continue
                *before, last = wire_events(event)
                chunks += [chunk(wired, _open(choice, self.empty())) for wired in before]
                own = fields if fields is not None else self.empty()
                ended = choice.generation is not None and self.service.failed(choice.generation) is None
                chunks.append(chunk(last, choice.end(own) if ended else _open(choice, own)))
            yield chunks
        self._check(choice)
        if self.include_usage:
            yield [self._last(head)]

    def _begin(self, head: Json, choice: Choice) -> list[Json]:
        """The chunk before a choice's first text, if there is one; the first of all says what is to be said of the prompt."""
        fields, about = self.opening(choice), self._preface() if choice is self.choices[0] else {}
        if fields is None and not about:
            return []
        return [{**self._chunk(head, _open(choice, fields if fields is not None else self.empty())), **about}]

    def _by_choice(self, batch: Sequence[tuple[int, Event]]) -> Iterator[tuple[Choice, list[Event]]]:
        """The events by choice, in the order of each one's first."""
        events: dict[int, list[Event]] = {}
        for index, event in batch:
            events.setdefault(index, []).append(event)
        for index, own in events.items():
            yield self.choices[index], own

    def _check(self, choice: Choice) -> None:
        if choice.generation is not None and (error := self.service.failed(choice.generation)) is not None:
            raise error

    def _header(self, kind: str) -> Json:
        """What every answer and every chunk of it begins with."""
        ident = f"{self.prefix}-{secrets.token_hex(12)}"
        return {"id": ident, "object": kind, "created": int(time.time()), "model": self.service.model_name}

    def _chunk(self, head: Json, choice: Json) -> Json:
        chunk = {**head, "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return chunk

    def _last(self, head: Json) -> Json:
        return {**head, "choices": [], "usage": self._usage()}

    def _usage(self) -> Json:
        usage = usage_of(self.choices, len(self.prompts))
        if self.left_out:
            usage["multiverse"]["left_out"] = list(self.left_out)
        return usage

    def _preface(self) -> Json:
        return {**self.preface(), "warnings": list(self.warnings)} if self.warnings else self.preface()


def _open(choice: Choice, fields: Json) -> Json:
    """A choice that goes on."""
    return {"index": choice.index, **fields, "finish_reason": None}
