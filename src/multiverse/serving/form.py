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

from ..engine.events import Event
from ..streaming import WireEvent, wire_events
from . import sse
from .choice import Choice, Piece, usage_of

if TYPE_CHECKING:
    from ..engine.event_stream import EventStream
    from .service import Service

Json = dict[str, Any]


class Form(ABC):
    """The form of one answer. Methods that return fields of a choice leave out its index and finish reason.

    Args:
        service: answers the request.
        choices: one per sample, those of a prompt next to each other.
        prompts: number of prompts.
        include_usage: end a stream with the usage.
    """

    prefix: str
    """How ids begin."""
    kind: str
    """`object` of a whole answer."""
    chunk_kind: str
    """`object` of a chunk."""

    def __init__(self, service: Service, choices: Sequence[Choice], prompts: int = 1, *, include_usage: bool = False) -> None:
        self.service, self.choices, self.prompts, self.include_usage = service, choices, prompts, include_usage

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
        choices = [choice.end(self.whole(choice)) for choice in self.choices]
        return {**self._header(self.kind), "choices": choices, "usage": usage_of(self.choices, self.prompts)}

    async def chunks(self, events: EventStream) -> AsyncIterator[list[Json]]:
        """The chunks of a stream as they become ready; an empty list when nothing has come for a while. Raises as `answer`."""
        head = self._header(self.chunk_kind)
        openings = [(choice, self.opening(choice)) for choice in self.choices]
        if some := [self._chunk(head, _open(choice, fields)) for choice, fields in openings if fields is not None]:
            yield some
        async for batch in events.batches(sse.PING_SECONDS):
            chunks: list[Json] = []
            for choice, own in self._by_choice(batch):
                fields = self.delta(choice, [piece for event in own for piece in choice.feed(event)])
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
            yield [self._usage(head)]

    async def branch_chunks(self, events: EventStream, prompt_tokens: int) -> AsyncIterator[list[Json]]:
        """Every event of the one generation as a chunk of its own, with the ordinary text that it makes ready."""
        head, began = self._header(self.chunk_kind), time.monotonic()
        (choice,) = self.choices

        def chunk(wired: WireEvent, fields: Json) -> Json:
            timed = replace(wired, seconds=round(time.monotonic() - began, 6))
            return {**self._chunk(head, fields), "multiverse": timed.to_json()}

        opening = self.opening(choice)
        start = WireEvent("start", id=head["id"], model=head["model"], prompt_tokens=prompt_tokens)
        yield [chunk(start, _open(choice, opening if opening is not None else self.empty()))]
        async for batch in events.batches(sse.PING_SECONDS):
            chunks: list[Json] = []
            for _, event in batch:
                fields = self.delta(choice, choice.feed(event))
                *before, last = wire_events(event)
                chunks += [chunk(wired, _open(choice, self.empty())) for wired in before]
                own = fields if fields is not None else self.empty()
                ended = choice.generation is not None and self.service.failed(choice.generation) is None
                chunks.append(chunk(last, choice.end(own) if ended else _open(choice, own)))
            yield chunks
        self._check(choice)
        if self.include_usage:
            yield [self._usage(head)]

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

    def _usage(self, head: Json) -> Json:
        return {**head, "choices": [], "usage": usage_of(self.choices, self.prompts)}


def _open(choice: Choice, fields: Json) -> Json:
    """A choice that goes on."""
    return {"index": choice.index, **fields, "finish_reason": None}
