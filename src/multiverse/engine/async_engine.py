"""The engine for asyncio: one thread steps it, any number of tasks submit requests, receive events and cancel. Torch-free.

Only that thread touches the engine. Tasks send it commands through a queue, on which it sleeps while there is nothing to do;
events go back to each event loop once a step, into one mailbox per stream.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, cast

from ..errors import EngineError, RequestError
from .event_stream import Delivery, EventStream, Mailbox, Observer, deliver
from .events import Event, FinishEvent
from .generation import Generation
from .params import SamplingParams
from .request import Request
from .scoring import ScoringRequest

if TYPE_CHECKING:
    from .engine import Engine

_DRAINING = "the engine is draining: it finishes the running requests and accepts no new ones"
_CLOSED = "the engine is closed: it accepts no more requests"


class AsyncEngine:
    """Runs an engine on a thread of its own, for tasks of any number of event loops.

        async with AsyncEngine(llm.engine) as engine:
            async for index, event in engine.stream(prompt_ids, params): ...
            generation = await engine.generate(prompt_ids, params)

    While it is open, nothing else may touch the engine: no `LLM.generate`, no `Engine.step`. The thread starts with the first
    request and ends with `aclose` (or the end of ``async with``).

    A request that is refused, or whose result cannot be made, affects no other. If a step of the engine fails (out of memory,
    for one), all requests in its batch are aborted and each consumer gets an `EngineError`, with the failure as its cause.
    Requests that have not begun and those sent later are not affected.

    Attributes:
        engine: the engine that is run.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()  # its put may be called from `__del__`
        self._lock = threading.Lock()  # held while a request is sent, so that none comes after the last command
        self._refusal: str | None = None
        self._thread: threading.Thread | None = None
        self._drained = _promise()
        self._stopped = _promise()
        self._open: set[Mailbox] = set()  # all whose stream has not ended
        # The rest is the thread's own.
        self._live: dict[Mailbox, dict[int, Request]] = {}  # the unfinished requests of each stream by index
        self._outbox: dict[asyncio.AbstractEventLoop, list[Delivery]] = {}
        self._stopping = False

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether it accepts no more requests for good: by `aclose`, or because its thread has failed."""
        return self._refusal is _CLOSED

    @property
    def busy(self) -> bool:
        """Whether any request has been sent and is not over."""
        return bool(self._open)

    @property
    def running(self) -> int:
        """Number of requests in the engine's batch; each sample counts."""
        return len(self.engine.scheduler.running)

    @property
    def waiting(self) -> int:
        """Number of requests that were sent and have not begun; each sample counts."""
        return max(0, sum(mailbox.unfinished for mailbox in list(self._open)) - self.running)

    def stream(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int = 0,
        observe: Observer | None = None,
    ) -> EventStream:
        """Send a request and receive its events.

        The request is sent at once; if the engine refuses it, that is raised before the first event: at the first iteration,
        or on entering ``async with``. With ``params.n`` above 1 the samples of a prompt share its prefill.

        Args:
            prompt: token ids; or several prompts, whose samples are numbered through: sample ``j`` of prompt ``i`` has the
                index ``i * params.n + j``. If one of them is refused, all are.
            params: for all prompts; or those of each, with the same `n`. `None` takes the defaults.
            priority: higher goes first, and preempts lower if there is no memory left.
            observe: see `Observer`.

        Raises:
            RequestError: the engine is draining or closed.
            RuntimeError: no event loop runs.
        """
        return self._send(prompt, params if params is not None else SamplingParams(), priority, observe)

    async def generate(self, prompt: Sequence[int], params: SamplingParams | None = None, *, priority: int = 0) -> Generation:
        """Send a request and wait for its result; cancelling the wait aborts the request.

        If the engine is closed meanwhile, the result is what was generated so far, with the finish reason ``abort``.

        Args:
            prompt: token ids.
            params: `None` takes the defaults; with ``n`` above 1, use `stream`.
            priority: higher goes first, and preempts lower if there is no memory left.

        Raises:
            RequestError: the request cannot be honoured, or the engine is draining or closed.
            EngineError: the engine failed on this request.
        """
        own = params if params is not None else SamplingParams()
        if own.n != 1:
            raise RequestError(f"n={own.n} is not valid here: use stream(), which gives the events of all samples")
        async with self._send(prompt, own, priority, listening=False) as stream:
            *_, (_, finish) = [item async for item in stream]
        assert isinstance(finish, FinishEvent)
        return finish.generation

    async def score(self, token_ids: Sequence[int]) -> tuple[float | None, ...]:
        """Log-probabilities of a text's own tokens, each given those before it; `None` for the first.

        The text has no tags, and leaves nothing in the prefix cache.

        Raises:
            RequestError: the text cannot be scored, or the engine is draining or closed.
            EngineError: the engine failed on it.
        """
        scoring: list[ScoringRequest] = []

        def submit(requests: dict[int, Request]) -> None:
            scoring.append(self.engine.submit_scoring(list(token_ids), cached=False))
            requests[0] = scoring[0]

        async with self._open_stream(1, None, submit) as stream:
            async for _ in stream:
                pass
        return scoring[0].logprobs

    async def drain(self) -> None:
        """Accept no new requests, and wait until those that were sent are over.

        There is no way back: even if the wait is cancelled, no requests are accepted any more.
        """
        with self._lock:
            self._refusal = self._refusal or _DRAINING
            self._start()
            self._commands.put(self._resolve_drained)
        await asyncio.wrap_future(self._drained)

    async def aclose(self) -> None:
        """Abort every request, stop the thread and wait for its end, which comes after the current step.

        Every consumer gets a last event with the finish reason ``abort``. May be called again, and from any loop.
        """
        with self._lock:
            if self._refusal is not _CLOSED:
                self._refusal = _CLOSED
                self._start()
                self._commands.put(self._stop)
        await asyncio.wrap_future(self._stopped)
        assert self._thread is not None
        self._thread.join()  # resolving `_stopped` was its last act

    def _send(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        priority: int,
        observe: Observer | None = None,
        *,
        listening: bool = True,
    ) -> EventStream:
        several = len(prompt) > 0 and isinstance(prompt[0], Sequence) and not isinstance(prompt[0], str)
        prompts = [list(own) for own in cast(Sequence[Sequence[int]], prompt if several else [prompt])]
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        assert len(each) == len(prompts)
        assert len({own.n for own in each}) == 1
        submit = partial(self._submit, prompts, each, priority, listening=listening)
        return self._open_stream(len(prompts) * each[0].n, observe, submit)

    def _open_stream(self, count: int, observe: Observer | None, submit: Callable[[dict[int, Request]], None]) -> EventStream:
        """Have the thread submit so many requests, and return the stream of their events."""
        mailbox = Mailbox(asyncio.get_running_loop(), count, observe)
        with self._lock:
            if self._refusal is not None:
                raise RequestError(self._refusal)
            self._start()
            self._open.add(mailbox)
            self._commands.put(partial(self._accept, mailbox, submit))
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
                self._run_commands()
                self._flush()  # acceptance and refusal need not wait for the step
                if self._live and not self._stopping:
                    self._step()
                    self._flush()
                self._resolve_drained()
        finally:
            self._shut_down()

    def _run_commands(self) -> None:
        """Run the commands that have come by now; with nothing else to do, sleep until one comes."""
        count = self._commands.qsize()
        for _ in range(count if self._live else max(count, 1)):
            self._commands.get()()

    def _submit(
        self,
        prompts: list[list[int]],
        each: list[SamplingParams],
        priority: int,
        requests: dict[int, Request],
        *,
        listening: bool,
    ) -> None:
        """Queue all samples; the first of each prompt prefills it for the others, which wait for that in the engine."""
        for sample in range(each[0].n):
            for number, (prompt, params) in enumerate(zip(prompts, each, strict=True)):
                first = number * params.n
                requests[first + sample] = self.engine.submit(
                    prompt, params, listening=listening, priority=priority, leader=requests.get(first), sample=sample
                )

    def _accept(self, mailbox: Mailbox, submit: Callable[[dict[int, Request]], None]) -> None:
        self._live[mailbox] = {}
        try:
            submit(self._live[mailbox])
        except Exception as error:  # bad input of any kind concerns its sender only
            self._abandon(mailbox)
            self._end(mailbox, error=error)
            return
        self._post(mailbox)

    def _abandon(self, mailbox: Mailbox) -> None:
        """Abort the requests of a stream whose consumer has left."""
        self._open.discard(mailbox)
        try:
            for request in self._live.pop(mailbox, {}).values():
                self.engine.abort(request)
        except Exception as error:
            self._fail(error)

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception as error:
            self._fail(error)
            return
        for mailbox in list(self._live):
            if mailbox.loop.is_closed():
                self._abandon(mailbox)
            elif mailbox in self._live:
                self._report(mailbox)

    def _report(self, mailbox: Mailbox) -> None:
        """Post what has happened to the requests of a stream since the last time."""
        requests = self._live[mailbox]
        events: list[tuple[int, Event]] = []
        begun = _update_admitted(mailbox, requests.values())
        try:
            for index, request in list(requests.items()):
                own = self.engine.drain(request)
                events += [(index, event) for event in own]
                if own and isinstance(own[-1], FinishEvent):
                    del requests[index]
        except Exception as error:
            self._abandon(mailbox)
            self._end(mailbox, events, _failure(error))
            return
        if not requests:
            self._end(mailbox, events)
        elif events or begun:
            self._post(mailbox, events)

    def _fail(self, error: Exception) -> None:
        """A step failed halfway, and the state of what was in the batch is unknown: end all of it with an error.

        Requests that were never admitted hold nothing and stay in the queue, unless there was nothing else that could fail.
        """
        # The frames of a failed forward hold on to its tensors, and consumers to the error; the next forward needs the memory.
        traceback.clear_frames(error.__traceback__)
        scheduler = self.engine.scheduler
        queued = {request for request in scheduler.waiting if request.admitted_at is None}
        failed = [mailbox for mailbox, own in self._live.items() if not queued.issuperset(own.values())] or list(self._live)
        kept = {request for mailbox in self._live.keys() - set(failed) for request in self._live[mailbox].values()}
        for request in {*scheduler.running, *scheduler.waiting} - kept:
            # Not by abort(): that passes over finished ones that were about to be taken out, and puts into the prefix cache
            # what may not really have been computed.
            request.finish_reason = "error"
            with suppress(Exception):
                scheduler.finish(request)
        # What cannot be taken out costs its slots, but does not come back.
        scheduler.running.clear()
        scheduler.waiting[:] = [request for request in scheduler.waiting if request in kept]
        for mailbox in failed:
            self._end(mailbox, error=_failure(error))

    def _end(self, mailbox: Mailbox, events: Sequence[tuple[int, Event]] = (), error: Exception | None = None) -> None:
        self._live.pop(mailbox, None)
        self._open.discard(mailbox)
        self._post(mailbox, events, error)

    def _post(self, mailbox: Mailbox, events: Sequence[tuple[int, Event]] = (), error: Exception | None = None) -> None:
        self._outbox.setdefault(mailbox.loop, []).append((mailbox, events, error))

    def _flush(self) -> None:
        """Hand every loop its deliveries, all at once."""
        outbox, self._outbox = self._outbox, {}
        for loop, deliveries in outbox.items():
            with suppress(RuntimeError):  # the loop has been closed, which the next step sees too
                loop.call_soon_threadsafe(deliver, deliveries)

    def _resolve_drained(self) -> None:
        if self._refusal is not None and not self._open and not self._drained.done():
            self._drained.set_result(None)

    def _stop(self) -> None:
        self._stopping = True

    def _shut_down(self) -> None:
        """End every stream, also if the thread itself has failed."""
        with self._lock:
            self._refusal = _CLOSED
        for mailbox, requests in list(self._live.items()):
            for request in requests.values():
                with suppress(Exception):
                    self.engine.abort(request)
            self._report(mailbox)
        for mailbox in list(self._open):
            self._end(mailbox, error=RequestError(_CLOSED))
        self._flush()
        self._resolve_drained()
        self._stopped.set_result(None)


def _promise() -> Future[None]:
    """A future for many to wait on: it counts as running, so that one who stops waiting does not cancel it for the others."""
    promise: Future[None] = Future()
    promise.set_running_or_notify_cancel()
    return promise


def _update_admitted(mailbox: Mailbox, requests: Iterable[Request]) -> bool:
    """Set `Mailbox.admitted` once that is certain; returns whether it has just become so."""
    if mailbox.admitted is None:
        firsts = [request for request in requests if request.leader is None or request.leader.scoring]
        if all(request.admitted_at is not None for request in firsts):
            mailbox.admitted = True
        elif any(request.finish_reason is not None and request.admitted_at is None for request in firsts):
            mailbox.admitted = False
        return mailbox.admitted is not None
    return False


def _failure(error: Exception) -> EngineError:
    """The error for one consumer about a failure of the engine; each gets one of its own."""
    failure = EngineError(
        f"the engine failed while it worked on this request, which was aborted: {type(error).__name__}: {error}"
    )
    failure.__cause__ = error
    return failure
