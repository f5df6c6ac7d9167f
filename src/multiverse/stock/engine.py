"""`StockEngine`: the surface of `AsyncEngine`, for a model that a server runs. No torch."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import count
from types import TracebackType
from typing import Protocol, cast

from ..engine.event_stream import EventStream, Mailbox, Observer, deliver
from ..engine.events import Event, FinishEvent
from ..engine.generation import Generation
from ..engine.params import SamplingParams
from ..engine.request import Request
from ..errors import EngineError, RequestError
from .model import StockModel
from .run import Run, cancel
from .server import About as ServerAbout
from .server import Server, ServerOptions

_DRAINING = "the engine is draining: it finishes the running requests and accepts no new ones"
_CLOSED = "the engine is closed: it accepts no more requests"


class Sink(Protocol):
    """Takes what happens to the samples of one call; called on the engine's thread."""

    def __call__(self, events: Sequence[tuple[int, Event]], error: Exception | None, *, admitted: bool | None) -> None:
        """Take events with the indices of their samples, and the error with which all of them end.

        Args:
            admitted: as in `Mailbox`.
        """


class StockEngine:
    """Runs generations on a server, on a thread and an event loop of its own; for any number of threads and event loops.

        async with StockEngine(options, about, model) as engine:
            async for index, event in engine.stream(prompt_ids, params): ...

    A request that fails affects no other: its consumer gets an `UpstreamError`. Whoever leaves early ends what runs on the
    server.

    Args:
        options: how the server is asked.
        about: what it said of itself.
        model: what is known of its model.
    """

    def __init__(self, options: ServerOptions, about: ServerAbout, model: StockModel) -> None:
        self.options, self.about, self.model = options, about, model
        self._server: Server | None = None
        self._loop: asyncio.AbstractEventLoop  # of the thread, once there is one
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._refusal: str | None = None
        self._calls: set[_Call] = set()  # the loop's own
        self._ids = count()
        self._idle: list[Future[None]] = []
        self._open = 0

    async def __aenter__(self) -> StockEngine:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """Whether it accepts no more requests for good."""
        return self._refusal is _CLOSED

    @property
    def busy(self) -> bool:
        """Whether any request has been sent and is not over."""
        return self._open > 0

    @property
    def running(self) -> int:
        """Number of generations of which something was sent to the server; each sample counts."""
        return sum(run.request.admitted_at is not None for call in list(self._calls) for run in list(call.runs.values()))

    @property
    def waiting(self) -> int:
        """Number of generations that wait for their turn; each sample counts."""
        return sum(len(call.runs) for call in list(self._calls)) - self.running

    @property
    def in_flight(self) -> int:
        """Requests that the server is working on."""
        return self._server.limiter.in_flight if self._server is not None else 0

    def check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Raise `RequestError` if the request could never run."""
        if not prompt:
            raise RequestError("the prompt is empty: give at least one token")
        limit = self.model.max_positions
        if self.model.exact and len(prompt) >= limit:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, and the server takes at most {limit - 1}: shorten the prompt"
            )
        for token in prompt:
            if not isinstance(token, int) or not 0 <= token < self.model.vocabulary:
                raise RequestError(
                    f"{token!r} is no token id of this model: ids are whole numbers from 0 to {self.model.vocabulary - 1}"
                )
        self.model.check(params)

    # -- the surface of AsyncEngine ------------------------------------------------------------------------------------

    def stream(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int = 0,
        observe: Observer | None = None,
    ) -> EventStream:
        """Send a request and receive its events; as `AsyncEngine.stream`.

        Raises:
            RequestError: the engine is draining or closed.
            RuntimeError: no event loop runs.
        """
        return self._send(prompt, params if params is not None else SamplingParams(), priority, observe)

    async def generate(self, prompt: Sequence[int], params: SamplingParams | None = None, *, priority: int = 0) -> Generation:
        """Send a request and wait for its result; as `AsyncEngine.generate`.

        Raises:
            RequestError: the request cannot be honoured, or the engine is draining or closed.
            UpstreamError: the server failed.
        """
        own = params if params is not None else SamplingParams()
        if own.n != 1:
            raise RequestError(f"n={own.n} is not valid here: use stream(), which gives the events of all samples")
        async with self._send(prompt, own, priority, None, listening=False) as stream:
            *_, (_, finish) = [item async for item in stream]
        assert isinstance(finish, FinishEvent)
        return finish.generation

    async def score(self, token_ids: Sequence[int]) -> tuple[float | None, ...]:  # noqa: ARG002 (as AsyncEngine has it)
        """Refused: a server of another engine scores no texts with tags.

        Raises:
            RequestError: always.
        """
        raise RequestError("scores need a model in this process: a server of another engine generates only")

    async def drain(self) -> None:
        """Accept no new requests, and wait until those that were sent are over."""
        done: Future[None] = Future()
        with self._lock:
            self._refusal = self._refusal or _DRAINING
            if self._thread is None or self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(self._note_drain, done)
        await asyncio.wrap_future(done)

    async def aclose(self) -> None:
        """Abort every request, end what runs on the server, and stop the thread. May be called again, from any loop."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """As `aclose`, without an event loop."""
        with self._lock:
            already, self._refusal = self._refusal is _CLOSED, _CLOSED
            thread = self._thread
            if thread is None:
                return
            if not already:
                asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).add_done_callback(
                    lambda _: self._loop.call_soon_threadsafe(self._loop.stop)
                )
        thread.join()

    # -- sending -------------------------------------------------------------------------------------------------------

    def launch(
        self, prompts: Sequence[Sequence[int]], each: Sequence[SamplingParams], priority: int, sink: Sink, *, listening: bool
    ) -> Callable[[], None]:
        """Send all samples of some prompts; returns what aborts them.

        Args:
            sink: takes what happens; sample ``j`` of prompt ``i`` has the index of all samples before it.

        Raises:
            RequestError: the engine is draining or closed.
        """
        call = _Call(self, [list(prompt) for prompt in prompts], list(each), priority, sink, listening=listening)
        with self._lock:
            if self._refusal is not None:
                raise RequestError(self._refusal)
            self._start()
            self._open += 1
            self._loop.call_soon_threadsafe(call.begin)
        return partial(self._abandon, call)

    def _send(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams],
        priority: int,
        observe: Observer | None,
        *,
        listening: bool = True,
    ) -> EventStream:
        several = len(prompt) > 0 and isinstance(prompt[0], Sequence) and not isinstance(prompt[0], str)
        prompts = cast(Sequence[Sequence[int]], prompt if several else [prompt])
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        assert len(each) == len(prompts)
        mailbox = Mailbox(asyncio.get_running_loop(), sum(own.n for own in each), observe)
        return EventStream(mailbox, self.launch(prompts, each, priority, partial(_put, mailbox), listening=listening))

    def _start(self) -> None:
        """Start the thread if it has not been needed so far; called with the lock held."""
        if self._thread is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, name="multiverse-stock", daemon=True)
            self._thread.start()

    def _abandon(self, call: _Call) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(call.abandon)

    # From here on everything runs on the thread.

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = Server(self.options, self.about, by_ids=self.model.exact)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    @property
    def server(self) -> Server:
        """The connections; on the thread only."""
        assert self._server is not None
        return self._server

    def request(self, prompt: list[int], params: SamplingParams, sample: int, priority: int, *, listening: bool) -> Request:
        """A request for one sample; raises `RequestError` if it could never run."""
        self.check(prompt, params)
        return Request(next(self._ids), prompt, params, self.model.info, listening=listening, sample=sample, priority=priority)

    def begun(self, call: _Call) -> None:
        """A call has begun."""
        self._calls.add(call)

    def ended(self, call: _Call) -> None:
        """A call is over."""
        self._calls.discard(call)
        with self._lock:
            self._open -= 1
        if not self._open:
            for done in self._idle:
                done.set_result(None)
            self._idle.clear()

    def _note_drain(self, done: Future[None]) -> None:
        if self._open:
            self._idle.append(done)
        else:
            done.set_result(None)

    async def _shut_down(self) -> None:
        for call in list(self._calls):
            call.abort()
        while self._open:
            await asyncio.sleep(0.001)
        await self.server.close()
        await self._loop.shutdown_asyncgens()


class _Call:
    """The samples of one call, each with its run."""

    def __init__(
        self,
        engine: StockEngine,
        prompts: list[list[int]],
        each: list[SamplingParams],
        priority: int,
        sink: Sink,
        *,
        listening: bool,
    ) -> None:
        self.engine, self.prompts, self.each, self.priority, self.sink = engine, prompts, each, priority, sink
        self.listening = listening
        self.runs: dict[int, Run] = {}
        self._task: asyncio.Task[None] | None = None
        self._left = self._ending = False
        self._admitted: bool | None = None

    def begin(self) -> None:
        """On the engine's loop."""
        self.engine.begun(self)
        if self._left:
            self.engine.ended(self)
            return
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._done)

    def abandon(self) -> None:
        """The consumer has left: end everything, and say nothing more."""
        self._left = True
        if self._task is not None and not self._ending:
            self._task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:  # noqa: ARG002 (as asyncio calls it)
        self.runs.clear()
        self.engine.ended(self)

    def abort(self) -> None:
        """End the generations; each consumer gets what there is."""
        for run in list(self.runs.values()):
            run.abort()

    async def _run(self) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            self._make()
            self._tell([])
            tasks = [asyncio.create_task(run()) for run in self.runs.values()]
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            self._ending = True
            await cancel(tasks)
        except Exception as error:
            self._ending = True
            await cancel(tasks)
            self._tell([], _failure(error))

    def _make(self) -> None:
        """A run for each sample."""
        for prompt, params in zip(self.prompts, self.each, strict=True):
            for sample in range(params.n):
                request = self.engine.request(prompt, params, sample, self.priority, listening=self.listening)
                index = len(self.runs)
                self.runs[index] = Run(request, self.engine.model, self.engine.server, partial(self._events, index))

    def _events(self, index: int, events: list[Event]) -> None:
        if not self._note_admitted() and not events:
            return
        if events and isinstance(events[-1], FinishEvent):
            self.runs.pop(index, None)
        self._tell([(index, event) for event in events])

    def _note_admitted(self) -> bool:
        """Whether it has just become certain that all were admitted, or that one never was."""
        before, requests = self._admitted, [run.request for run in self.runs.values()]
        if self._admitted is None and requests:
            if all(request.admitted_at is not None for request in requests):
                self._admitted = True
            elif any(request.finish_reason is not None and request.admitted_at is None for request in requests):
                self._admitted = False
        return self._admitted is not before

    def _tell(self, events: Sequence[tuple[int, Event]], error: Exception | None = None) -> None:
        if not self._left:
            self.sink(events, error, admitted=self._admitted)


def _put(mailbox: Mailbox, events: Sequence[tuple[int, Event]], error: Exception | None, *, admitted: bool | None) -> None:
    """Put events into a mailbox, on its own loop."""
    mailbox.admitted = admitted
    with suppress(RuntimeError):  # the loop has been closed
        mailbox.loop.call_soon_threadsafe(deliver, [(mailbox, events, error)])


def _failure(error: Exception) -> Exception:
    """The error for one consumer."""
    if isinstance(error, EngineError | RequestError):
        return error
    failure = EngineError(f"the request failed, and was aborted: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
