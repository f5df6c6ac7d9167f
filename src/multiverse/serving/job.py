"""A request that is ready to run, and its answer: whole, as a stream, or as a stream of its branches."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.events import Event
from ..live import Moment, Reader
from .answer import Answer, failure, header, usage
from .parts import Piece
from .streaming import Ask, Crowd, EventStreamResponse, as_api_error

if TYPE_CHECKING:
    from starlette.responses import Response

    from .runner import Runner

Json = dict[str, Any]


class Form(Protocol):
    """What chat and text completions say differently. All but the names are fields of a choice.

    Attributes:
        prefix: how ids begin.
        kind, chunk_kind: `object` of a whole answer, and of a chunk.
    """

    prefix: str
    kind: str
    chunk_kind: str

    def whole(self, answer: Answer) -> Json:
        """A finished answer."""

    def opening(self, answer: Answer) -> Json | None:
        """What comes before the first text; `None` if nothing does."""

    def piece(self, answer: Answer, pieces: Sequence[Piece]) -> Json | None:
        """More text; `None` if there is nothing in it to be told."""

    def nothing(self) -> Json:
        """A chunk without text."""


@dataclass
class Job:
    """A request that is ready to run.

    Attributes:
        runner: runs it.
        asks: one per choice, those of one prompt next to each other.
        answers: one per choice.
        form: how the answers are told.
        param: what the prompts come from, for errors.
        include_usage: end a stream with the usage.
        reader: follows the branches, if they are to be streamed.
    """

    runner: Runner
    asks: Sequence[Ask]
    answers: Sequence[Answer]
    form: Form
    param: str
    include_usage: bool = False
    reader: Reader | None = None

    async def run(self, *, stream: bool) -> Response:
        """Run it; returns once all is there, or, streaming, once the engine has accepted it.

        Raises:
            ApiError: it cannot be run, or did not come to an answer.
        """
        from starlette.responses import JSONResponse

        async with AsyncExitStack() as stack:
            stack.enter_context(self.runner.admit(len(self.asks)))
            try:
                crowd = await stack.enter_async_context(Crowd(self.runner, self.asks))
                if not stream:
                    return JSONResponse(await self._whole(crowd))
            except Exception as error:
                raise as_api_error(error, self.param) from error
            # From here on it is the stream that holds what has been taken.
            return EventStreamResponse(self._held(stack.pop_all(), crowd))

    async def _whole(self, crowd: Crowd) -> Json:
        async for happened in crowd:
            for number, event in happened:
                answer = self.answers[number]
                answer.pieces += answer.feed(event)
                answer.check()
        choices = [self._ended(answer, self.form.whole(answer)) for answer in self.answers]
        return {**self._header(self.form.kind), "choices": choices, "usage": self._usage()}

    async def _held(self, stack: AsyncExitStack, crowd: Crowd) -> AsyncIterator[Iterable[Json]]:
        async with stack:
            chunks = self._chunks(crowd) if self.reader is None else self._moments(crowd, self.reader)
            async for some in chunks:
                yield some

    async def _chunks(self, crowd: Crowd) -> AsyncIterator[list[Json]]:
        head = self._header(self.form.chunk_kind)
        openings = [(answer, self.form.opening(answer)) for answer in self.answers]
        if some := [self._chunk(head, _open(answer, fields)) for answer, fields in openings if fields is not None]:
            yield some
        async for happened in crowd:
            chunks: list[Json] = []
            for answer, events in self._sorted(happened):
                pieces = [piece for event in events for piece in answer.feed(event)]
                fields = self.form.piece(answer, pieces)
                if fields is not None:
                    chunks.append(self._chunk(head, _open(answer, fields)))
                if answer.generation is not None:
                    if chunks:
                        yield chunks
                        chunks = []
                    answer.check()
                    chunks.append(self._chunk(head, self._ended(answer, self.form.nothing())))
            if chunks or not happened:
                yield chunks
        if self.include_usage:
            yield [{**head, "choices": [], "usage": self._usage()}]

    async def _moments(self, crowd: Crowd, reader: Reader) -> AsyncIterator[list[Json]]:
        """Every event of the one generation as a chunk of its own, with the ordinary text that it makes ready."""
        head, began = self._header(self.form.chunk_kind), time.monotonic()
        (answer,) = self.answers
        start = Moment("start", id=head["id"], model=head["model"], prompt_tokens=len(self.asks[0].prompt))
        opening = self.form.opening(answer)
        yield [self._told(head, start, 0.0, _open(answer, opening if opening is not None else self.form.nothing()))]
        async for happened in crowd:
            chunks: list[Json] = []
            for _, event in happened:
                fields = self.form.piece(answer, answer.feed(event))
                *before, last = reader.feed(event)
                now = time.monotonic() - began
                chunks += [self._told(head, moment, now, _open(answer, self.form.nothing())) for moment in before]
                choice = _open(answer, fields if fields is not None else self.form.nothing())
                if answer.generation is not None and failure(answer.generation) is None:
                    choice = self._ended(answer, choice)
                chunks.append(self._told(head, last, now, choice))
            yield chunks
        answer.check()
        if self.include_usage:
            yield [{**head, "choices": [], "usage": self._usage()}]

    def _sorted(self, happened: Iterable[tuple[int, Event]]) -> Iterable[tuple[Answer, list[Event]]]:
        """The events by answer, in the order of each one's first."""
        events: dict[int, list[Event]] = {}
        for number, event in happened:
            events.setdefault(number, []).append(event)
        return [(self.answers[number], own) for number, own in events.items()]

    def _header(self, kind: str) -> Json:
        return header(self.form.prefix, kind, self.runner.model_name)

    def _chunk(self, head: Json, choice: Json) -> Json:
        chunk = {**head, "choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None
        return chunk

    def _told(self, head: Json, moment: Moment, seconds: float, choice: Json) -> Json:
        timed = replace(moment, seconds=round(seconds, 6))
        return {**self._chunk(head, choice), "multiverse": timed.to_json()}

    def _ended(self, answer: Answer, fields: Json) -> Json:
        return {"index": answer.index, **fields, "finish_reason": answer.finish_reason, "multiverse": answer.extension()}

    def _usage(self) -> Json:
        return usage(self.answers, prompts=sum(ask.sample == 0 for ask in self.asks))


def _open(answer: Answer, fields: Json) -> Json:
    """A choice that goes on."""
    return {"index": answer.index, **fields, "finish_reason": None}
