"""Several generations at once, and server-sent events.

Every ``data:`` line is one chunk of OpenAI's, whatever it carries: their clients read each as one. An error after the first
byte is a line with an ``error`` in it, and then the stream ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import StreamingResponse

from ..engine.events import Event, FinishEvent
from ..engine.params import SamplingParams
from ..errors import EngineError, RequestError
from . import logs
from .errors import ApiError, body, server_error
from .translate import refuse

if TYPE_CHECKING:
    from .runner import Runner, Stream

PING_SECONDS = 15.0
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
# Some clients take these for the end of a line; JSON has another way to write them.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


class Ask(NamedTuple):
    """One generation to be made.

    Attributes:
        prompt: token ids.
        params: how to sample.
        sample: number of this one among those of its prompt; 0 comes first, and reads the prompt for all.
    """

    prompt: list[int]
    params: SamplingParams
    sample: int


class Crowd:
    """The generations of one request.

        async with Crowd(runner, asks) as crowd:  # entered once the engine has accepted the first of each prompt
            async for happened in crowd: ...

    Iterating gives what has happened since the last time, as pairs of a generation's number and an event; nothing at all when a
    while has passed without events. Leaving aborts what still runs.
    """

    def __init__(self, runner: Runner, asks: Sequence[Ask]) -> None:
        self._runner = runner
        self._asks = asks
        self._queue: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()
        self._streams: dict[int, Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = len(asks)

    async def __aenter__(self) -> Crowd:
        """Begin.

        Raises:
            ApiError, RequestError, EngineError: a generation cannot be made.
        """
        try:
            firsts = [number for number, ask in enumerate(self._asks) if ask.sample == 0]
            for number in firsts:
                self._streams[number] = self._send(number)
            for number in firsts:
                await self._streams[number].__aenter__()
                self._listen(number)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._leave()

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, Event]]]:
        while self._open:
            try:
                async with asyncio.timeout(PING_SECONDS):
                    items = [await self._queue.get()]
            except TimeoutError:
                yield []
                continue
            while not self._queue.empty():
                items.append(self._queue.get_nowait())
            happened: list[tuple[int, Event]] = []
            for number, item in items:
                if isinstance(item, Exception):
                    if happened:
                        yield happened
                    raise item
                happened.append((number, item))
                self._open -= isinstance(item, FinishEvent)
            yield happened

    def _send(self, number: int) -> Stream:
        ask = self._asks[number]
        return self._runner.stream(ask.prompt, ask.params, sample=ask.sample)

    def _listen(self, number: int) -> None:
        self._tasks.add(asyncio.create_task(self._pump(number)))

    async def _pump(self, number: int) -> None:
        """Put a generation's events in the queue.

        With the first event of a first sample its prompt has been read, so the others find it in the prefix cache.
        """
        others = [] if self._asks[number].sample else self._others(number)
        try:
            async for event in self._streams[number]:
                for other in others:
                    self._streams[other] = self._send(other)
                    self._listen(other)
                others = []
                self._queue.put_nowait((number, event))
        except Exception as error:
            self._queue.put_nowait((number, error))

    def _others(self, first: int) -> list[int]:
        """The other samples of the prompt whose first sample this is."""
        numbers: list[int] = []
        for number in range(first + 1, len(self._asks)):
            if self._asks[number].sample == 0:
                break
            numbers.append(number)
        return numbers

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        for stream in self._streams.values():
            await stream.aclose()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def as_api_error(error: Exception, param: str | None = None) -> ApiError:
    """What a client is told of an error; the inside of the server stays inside.

    Args:
        param: what is at fault if the engine refuses the request without a name.
    """
    match error:
        case ApiError():
            return error
        case RequestError():
            return refuse(error, param)
        case EngineError():
            logs.log("engine failure", level=logging.ERROR, error=str(error))
            return server_error("the engine failed while it worked on this request: ask again", code="engine_failure")
        case _:
            logs.LOGGER.error("unexpected failure", exc_info=error)
            return server_error("something went wrong in the server: its log says more", code="internal_error")


def data(value: Any) -> bytes:
    """A value as one event."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_LINE_ENDS)
    return b"data: " + text.encode() + b"\n\n"


class EventStreamResponse(StreamingResponse):
    """Sends chunks as server-sent events, and in the end says that this is the end.

    Args:
        chunks: the chunks, some at a time; none is a sign of life.
    """

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[Iterable[dict[str, Any]]]) -> None:
        super().__init__(_lines(chunks), headers={"cache-control": "no-cache", "x-accel-buffering": "no"})


async def _lines(chunks: AsyncIterator[Iterable[dict[str, Any]]]) -> AsyncIterator[bytes]:
    try:
        async for some in chunks:
            yield b"".join(data(chunk) for chunk in some) or PING
    except Exception as error:
        told = as_api_error(error)
        logs.note(error=told.message)
        yield data(body(told))
    yield DONE
