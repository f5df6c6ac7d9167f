"""The engine for asyncio: one thread steps it, any number of tasks submit, listen and cancel. Torch-free.

Only that thread touches the engine. Tasks send it commands through a queue, on which it sleeps while there is nothing to do;
what it has to tell goes back to each event loop once a step, into one mailbox per request.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import EngineError, RequestError
from .events import Event, FinishEvent
from .generation import Generation
from .params import SamplingParams
from .request import Request

if TYPE_CHECKING:
    from .engine import Engine

_DRAINING = "the engine is draining: it finishes what runs and takes no new requests"
_CLOSED = "the engine is closed: it takes no more requests"


class _Mailbox:
    """What one consumer has still to be told.

    It belongs to the consumer's loop; the engine's thread reads `loop` alone, which never changes.

    Attributes:
        events: what has come and was not taken yet.
        accepted: whether the engine has answered at all.
        over: nothing more will come.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.events: deque[Event] = deque()
        self.accepted = False
        self.over = False
        self._error: Exception | None = None
        self._arrived = asyncio.Event()

    def put(self, events: Sequence[Event], error: Exception | None) -> None:
        if self.over:  # the consumer has left
            return
        self.accepted = True
        self.events.extend(events)
        self._error = error
        self.over = error is not None or (len(events) > 0 and isinstance(events[-1], FinishEvent))
        self._arrived.set()

    def close(self) -> None:
        """The consumer leaves; others who wait here go with it."""
        self.over = True
        self.events.clear()
        self._error = None
        self._arrived.set()

    def take_error(self) -> Exception | None:
        """The error with which the request ended: told once."""
        error, self._error = self._error, None
        return error

    async def wait(self) -> None:
        """Until something arrives."""
        self._arrived.clear()
        await self._arrived.wait()


_Letter = tuple[_Mailbox, Sequence[Event], Exception | None]


def _deliver(letters: list[_Letter]) -> None:
    for mailbox, events, error in letters:
        mailbox.put(events, error)


class EventStream:
    """The events of one request as they happen; the last is a `FinishEvent`.

        async for event in aio.stream(prompt): ...

        async with aio.stream(prompt) as events:  # entered once the engine has accepted the request
            async for event in events: ...

    The request was sent when the stream was made, and runs whether or not somebody iterates: what has not been taken yet is
    kept, however much it is, so a slow consumer holds up nobody. Leaving early aborts the request: by cancelling the task that
    waits for an event, by `aclose`, by the end of ``async with``, or by dropping the stream, as ``break`` in a plain
    ``async for`` does.

    A stream belongs to the event loop on which it was made.
    """

    def __init__(self, mailbox: _Mailbox, abandon: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._abandon = abandon

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            RequestError: the request cannot be honoured; told before any event.
            EngineError: the engine failed on this request.
            RuntimeError: called from another event loop than the stream's.
        """
        while not self._mailbox.events:
            self._tell_error()
            if self._mailbox.over:
                raise StopAsyncIteration
            await self._wait()
        return self._mailbox.events.popleft()

    async def __aenter__(self) -> EventStream:
        """Wait until the engine has accepted the request; raises as the first event would."""
        while not (self._mailbox.accepted or self._mailbox.over):
            await self._wait()
        self._tell_error()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave()

    async def aclose(self) -> None:
        """Stop listening, and abort the request if it is not over. Does not wait for the step that is being run."""
        self._leave()

    def __del__(self) -> None:
        # Wherever the garbage collector runs this: telling the engine takes no lock, and touches no loop.
        if not self._mailbox.over:
            self._abandon()

    def _leave(self) -> None:
        if not self._mailbox.over:
            self._abandon()
        self._mailbox.close()

    def _tell_error(self) -> None:
        # Events that came before the error are told before it.
        if not self._mailbox.events and (error := self._mailbox.take_error()) is not None:
            raise error

    async def _wait(self) -> None:
        if asyncio.get_running_loop() is not self._mailbox.loop:
            raise RuntimeError("a stream can only be read on the event loop on which it was made")
        try:
            await self._mailbox.wait()
        except BaseException:  # above all a cancelled task
            self._leave()
            raise


class AsyncEngine:
    """Runs an engine on a thread of its own, for tasks of any number of event loops.

        async with AsyncEngine(llm.engine) as aio:
            async for event in aio.stream(prompt_ids, params): ...
            generation = await aio.generate(prompt_ids, params)

    While it is open, nothing else may touch the engine: no `LLM.generate`, no `Engine.step`. The thread starts with the first
    request and ends with `aclose` (or the end of ``async with``).

    One request's failure is its own. If a step of the engine fails (out of memory, for one), all requests that are in the
    engine are aborted and each consumer gets an `EngineError`, with the failure as its cause; requests sent later are not
    affected.

    Attributes:
        engine: the engine that is run.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()  # its put may be called from `__del__`
        self._lock = threading.Lock()  # held while a request is let in, so that none comes after the last command
        self._refusal: str | None = None
        self._thread: threading.Thread | None = None
        self._drained = _promise()
        self._stopped = _promise()
        self._open: set[_Mailbox] = set()  # all that have not been told the end of their request
        # The rest is the thread's own.
        self._live: dict[_Mailbox, Request] = {}
        self._outbox: dict[asyncio.AbstractEventLoop, list[_Letter]] = {}
        self._stopping = False

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests for good: by `aclose`, or because its thread has come to grief."""
        return self._refusal is _CLOSED

    @property
    def busy(self) -> bool:
        """Whether any request has been sent and is not over."""
        return bool(self._open)

    @property
    def running(self) -> int:
        """Number of requests that are in the engine's batch."""
        return len(self.engine.scheduler.running)

    @property
    def waiting(self) -> int:
        """Number of requests that were sent and have not begun."""
        return max(0, len(self._open) - self.running)

    def stream(
        self,
        prompt: Sequence[int],
        params: SamplingParams | None = None,
        *,
        priority: int = 0,
        sample: int = 0,
    ) -> EventStream:
        """Send a request and listen to it.

        The request is sent here and now; what the engine finds wrong with it is told before the first event: at the first
        iteration, or on entering ``async with``.

        Args:
            prompt: token ids.
            params: `None` takes the defaults.
            priority: higher goes first, and takes room from lower if there is none left.
            sample: number of this one among several of one prompt; with a seed, each has random streams of its own.

        Raises:
            RequestError: the engine is draining or closed.
            RuntimeError: no event loop runs.
        """
        submit = partial(self._submit, listening=True, priority=priority, sample=sample)
        return self._send(prompt, params, submit)

    async def generate(self, prompt: Sequence[int], params: SamplingParams | None = None, *, priority: int = 0) -> Generation:
        """Send a request and wait for its result; cancelling the wait aborts the request.

        If the engine is closed meanwhile, the result is what was written so far, with the finish reason ``abort``.

        Args:
            prompt: token ids.
            params: `None` takes the defaults.
            priority: higher goes first, and takes room from lower if there is none left.

        Raises:
            RequestError: the request cannot be honoured, or the engine is draining or closed.
            EngineError: the engine failed on this request.
        """
        submit = partial(self._submit, listening=False, priority=priority)
        async with self._send(prompt, params, submit) as stream:
            *_, finish = [event async for event in stream]
        assert isinstance(finish, FinishEvent)
        return finish.generation

    async def drain(self) -> None:
        """Take no new requests, and wait until those that were sent are over.

        There is no way back: even if the wait is cancelled, no requests are taken any more. `running` and `waiting` tell how
        far it has come.
        """
        with self._lock:
            self._refusal = self._refusal or _DRAINING
            self._start()
            self._commands.put(self._tell_drained)
        await asyncio.wrap_future(self._drained)

    async def aclose(self) -> None:
        """Abort every request, stop the thread and wait for its end, which comes after the step that is being run.

        Every consumer is told: the last event has the finish reason ``abort``. May be called again, and from any loop.
        """
        with self._lock:
            if self._refusal is not _CLOSED:
                self._refusal = _CLOSED
                self._start()
                self._commands.put(self._stop)
        await asyncio.wrap_future(self._stopped)
        assert self._thread is not None
        self._thread.join()  # its last act was to say that it has stopped

    def _send(
        self, prompt: Sequence[int], params: SamplingParams | None, submit: Callable[[list[int], SamplingParams], Request]
    ) -> EventStream:
        mailbox = _Mailbox(asyncio.get_running_loop())
        own = params if params is not None else SamplingParams()
        with self._lock:
            if self._refusal is not None:
                raise RequestError(self._refusal)
            self._start()
            self._open.add(mailbox)
            self._commands.put(partial(self._accept, mailbox, partial(submit, list(prompt), own)))
        return EventStream(mailbox, partial(self._commands.put, partial(self._abandon, mailbox)))

    def _start(self) -> None:
        """Start the thread if it has not been needed so far; called with the lock held."""
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="multiverse-engine", daemon=True)
            thread.start()
            self._thread = thread

    # From here on everything runs on the thread.

    def _serve(self) -> None:
        try:
            while not self._stopping:
                self._obey()
                self._flush()  # who was refused need not wait for the step
                if self._live and not self._stopping:
                    self._step()
                    self._flush()
                self._tell_drained()
        finally:
            self._shut()

    def _obey(self) -> None:
        """Do what has been asked for by now; with nothing else to do, sleep until somebody asks."""
        count = self._commands.qsize()
        for _ in range(count if self._live else max(count, 1)):
            self._commands.get()()

    def _submit(self, prompt: list[int], params: SamplingParams, *, listening: bool, priority: int, sample: int = 0) -> Request:
        if params.n != 1:
            raise RequestError(f"n={params.n} is not valid here: send a request for each")
        return self.engine.submit(prompt, params, listening=listening, priority=priority, sample=sample)

    def _accept(self, mailbox: _Mailbox, submit: Callable[[], Request]) -> None:
        try:
            request = submit()
        except Exception as error:  # bad input, of whatever kind, is the caller's alone
            self._end(mailbox, error=error)
            return
        self._live[mailbox] = request
        self._post(mailbox)

    def _abandon(self, mailbox: _Mailbox) -> None:
        """Nobody wants this request any more."""
        self._open.discard(mailbox)
        request = self._live.pop(mailbox, None)
        if request is not None:
            try:
                self.engine.abort(request)
            except Exception as error:
                self._fail(error)

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception as error:
            self._fail(error)
            return
        for mailbox, request in list(self._live.items()):
            if mailbox.loop.is_closed():
                self._abandon(mailbox)
            elif mailbox in self._live:
                self._report(mailbox, request)

    def _report(self, mailbox: _Mailbox, request: Request) -> None:
        """Tell what has happened to a request since the last time."""
        try:
            events = self.engine.drain(request)
        except Exception as error:
            self._abandon(mailbox)
            self._end(mailbox, error=_failure(error))
            return
        if events and isinstance(events[-1], FinishEvent):
            self._end(mailbox, events)
        elif events:
            self._post(mailbox, events)

    def _fail(self, error: Exception) -> None:
        """The engine stopped halfway through something, and nobody can vouch for what it was working on: all of it goes."""
        # The frames of a failed forward hold on to its tensors, and consumers to the error; the next forward needs the memory.
        traceback.clear_frames(error.__traceback__)
        scheduler = self.engine.scheduler
        for request in [*scheduler.running, *scheduler.waiting]:
            # Not by abort(): it passes over those that have ended and were about to be retired, and what it takes out may be
            # kept for others, although nobody knows whether it was really read.
            request.finish_reason = "error"
            with suppress(Exception):
                scheduler.retire(request)
        # What cannot be taken out costs its slots, but does not come back.
        scheduler.running.clear()
        scheduler.waiting.clear()
        for mailbox in list(self._live):
            self._end(mailbox, error=_failure(error))

    def _end(self, mailbox: _Mailbox, events: Sequence[Event] = (), error: Exception | None = None) -> None:
        self._live.pop(mailbox, None)
        self._open.discard(mailbox)
        self._post(mailbox, events, error)

    def _post(self, mailbox: _Mailbox, events: Sequence[Event] = (), error: Exception | None = None) -> None:
        self._outbox.setdefault(mailbox.loop, []).append((mailbox, events, error))

    def _flush(self) -> None:
        """Hand every loop its letters, all at once."""
        outbox, self._outbox = self._outbox, {}
        for loop, letters in outbox.items():
            with suppress(RuntimeError):  # the loop has been closed: nobody is there to read, and the next step sees it too
                loop.call_soon_threadsafe(_deliver, letters)

    def _tell_drained(self) -> None:
        if self._refusal is not None and not self._open and not self._drained.done():
            self._drained.set_result(None)

    def _stop(self) -> None:
        self._stopping = True

    def _shut(self) -> None:
        """Tell everybody that this is the end, even if it comes by a fault of the thread itself."""
        with self._lock:
            self._refusal = _CLOSED
        for mailbox, request in list(self._live.items()):
            with suppress(Exception):
                self.engine.abort(request)
            self._report(mailbox, request)
        for mailbox in list(self._open):
            self._end(mailbox, error=RequestError(_CLOSED))
        self._flush()
        self._tell_drained()
        self._stopped.set_result(None)


def _promise() -> Future[None]:
    """A future for many to wait on: it counts as running, so that one who stops waiting does not cancel it for the others."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise


def _failure(error: Exception) -> EngineError:
    """What a consumer is told about a failure of the engine; each gets an error of its own."""
    failure = EngineError(
        f"the engine failed while it worked on this request, which was aborted: {type(error).__name__}: {error}"
    )
    failure.__cause__ = error
    return failure
