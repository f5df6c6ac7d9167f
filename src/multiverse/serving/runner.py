"""The one way from HTTP handlers to the engine: who is let in, who waits, and until when.

    with runner.admit() as ticket:                        # 429 when full, 503 while draining
        async with runner.stream(prompt_ids, params) as events:
            async for event in events: ...

At most `Settings.max_concurrent` generations are in the engine; those beyond wait here, in the order in which they came. Each
is read by a task of its own as fast as the engine writes, so that its place is free once the engine is done with it, however
slowly the client takes what was written.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.aio import AsyncEngine, EventStream
from ..engine.events import Event, FinishEvent
from ..errors import RequestError
from . import logs
from .errors import ApiError
from .measure import Measure
from .metrics import Metrics, Snapshot
from .settings import Settings

if TYPE_CHECKING:
    from types import TracebackType

    from ..engine import Generation, SamplingParams
    from ..llm import LLM


class Ticket:
    """Leave to run some generations; given back by `leave`, or at the end of ``with``."""

    def __init__(self, runner: Runner, count: int) -> None:
        self._runner = runner
        self._count = count

    def leave(self) -> None:
        """Give it back; a second time does nothing."""
        count, self._count = self._count, 0
        self._runner._give_back(count)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()


class _Mail:
    """What the reading task has for the consumer."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.error: BaseException | None = None
        self.accepted = False
        self.over = False
        self.arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        self.events.append(event)
        self.arrived.set()

    def accept(self) -> None:
        self.accepted = True
        self.arrived.set()

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self.over = True
        self.arrived.set()


class Stream:
    """The events of one generation as they happen; the last is a `FinishEvent`. Leaving early aborts the generation.

    Entering ``async with`` waits until the engine has accepted it, and raises what it refuses it for.
    """

    def __init__(self, mail: _Mail, task: asyncio.Task[None]) -> None:
        self._mail = mail
        self._task = task
        self._loop = task.get_loop()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            ApiError: it waited for its turn until its deadline (503), or the server is shutting down (503).
            RequestError: the request cannot be honoured.
            EngineError: the engine failed on it.
        """
        while not self._mail.events:
            self._tell_error()
            if self._mail.over:
                raise StopAsyncIteration
            await self._wait()
        return self._mail.events.popleft()

    async def __aenter__(self) -> Stream:
        while not (self._mail.accepted or self._mail.over):
            await self._wait()
        self._tell_error()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    async def aclose(self) -> None:
        """As `leave`."""
        self.leave()

    def leave(self) -> None:
        """Stop listening, and abort the generation if it is not over."""
        self._mail.events.clear()
        self._mail.end()
        self._task.cancel()

    def __del__(self) -> None:
        # The garbage collector may run on the engine's thread.
        if not self._mail.over:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _tell_error(self) -> None:
        error, self._mail.error = self._mail.error, None
        if error is not None:
            raise error

    async def _wait(self) -> None:
        self._mail.arrived.clear()
        try:
            await self._mail.arrived.wait()
        except BaseException:  # above all a cancelled handler
            self.leave()
            raise


class Runner:
    """Runs generations for the handlers of one server.

    Args:
        llm: the model; while the runner is open, nothing else may use it.
        settings: the server's options.
        metrics: where to count; `None` makes a new set.

    Attributes:
        llm, settings, metrics: as given.
        model_name: the name by which clients ask for the model.
        draining: whether it takes no more requests.
    """

    def __init__(self, llm: LLM, settings: Settings, metrics: Metrics | None = None) -> None:
        self.llm, self.settings = llm, settings
        self.model_name = settings.served_model_name if settings.served_model_name is not None else _name(llm)
        self.metrics = metrics if metrics is not None else Metrics(self.model_name)
        self.metrics.snapshot = self._snapshot
        self.draining = False
        self._engine = AsyncEngine(llm.engine)
        self._turns = asyncio.Semaphore(settings.max_concurrent)
        self._started = self._closed = False
        self._held = 0  # generations that somebody has a ticket for
        self._queued = 0  # those that wait for their turn
        self._branches = 0
        self._pace = 1.0  # seconds that a generation took lately
        self._idle = asyncio.Event()
        self._idle.set()
        self._started_at = time.time()

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self._started and not (self.draining or self._engine.closed)

    @property
    def alive(self) -> bool:
        """Whether the engine can still do anything; if not, only a new process helps."""
        return self._closed or not self._engine.closed

    async def start(self) -> None:
        """Begin to take requests. May be called again."""
        self._started = True

    async def close(self) -> None:
        """Take no more requests, abort those that run, and stop the engine's thread. May be called again."""
        self.draining = self._closed = True
        await self._engine.aclose()

    async def __aenter__(self) -> Runner:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.close()

    async def drain(self, grace: float | None = None) -> bool:
        """Take no more requests, and wait until those that were let in are over; returns whether all of them are.

        Args:
            grace: seconds after which to stop waiting; `None` takes the settings'.
        """
        self.draining = True
        try:
            async with asyncio.timeout(self.settings.drain_grace if grace is None else grace):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def admit(self, count: int = 1) -> Ticket:
        """Let a request in that needs so many generations, or turn it away at once.

        Raises:
            ApiError: 429 when too many run and wait; 503 while draining; 400 if there is never so much room.
        """
        most = self.settings.max_concurrent + self.settings.max_queue
        if count > most:
            raise ApiError(
                400,
                f"this asks for {count} generations at once, and the server takes at most {most}: ask for fewer",
                "invalid_request_error",
                param="n",
            )
        self.check_room(count)
        self._held += count
        self._idle.clear()
        ticket = Ticket(self, count)
        exchange = logs.current()
        if exchange is not None:
            exchange.at_end(ticket.leave)
        return ticket

    def check_room(self, count: int = 1) -> None:
        """Raise what `admit` would, were it asked now."""
        if not self.ready:
            self.metrics.rejected("draining")
            raise self._away()
        most = self.settings.max_concurrent + self.settings.max_queue
        if self._held + count > most:
            self.metrics.rejected("full")
            seconds = self._retry_after()
            raise ApiError(
                429,
                f"the server is full: {self._held} generations run or wait, of {most} that it takes; try again in {seconds} s",
                "rate_limit_error",
                code="server_full",
                headers={"retry-after": str(seconds)},
            )

    def stream(self, prompt: Sequence[int], params: SamplingParams, *, sample: int = 0, priority: int = 0) -> Stream:
        """Run a generation and listen to it; it begins at once, or when its turn comes.

        Args:
            prompt: token ids.
            params: how to sample, with `n` = 1; its deadline is brought forward to the server's.
            sample: number of this one among those of one prompt, each with random streams of its own.
            priority: higher goes first in the engine.
        """
        mail = _Mail()
        measure = Measure(self.metrics)
        send = partial(self._engine.stream, list(prompt), priority=priority, sample=sample)
        task = asyncio.create_task(self._run(send, params, mail, measure))
        stream = Stream(mail, task)
        exchange = logs.current()
        if exchange is not None:
            exchange.at_end(stream.leave)
        return stream

    def stats(self) -> dict[str, Any]:
        """The server's options, without the keys, and what it is doing."""
        engine, now = self.llm.engine, self._snapshot()
        options = asdict(replace(self.settings, reasoning_budgets={}))
        options.update(api_keys=len(self.settings.api_keys), reasoning_budgets=dict(self.settings.reasoning_budgets))
        return {
            "model": self.model_name,
            "settings": options,
            "started_at": int(self._started_at),
            "draining": self.draining,
            "requests": {"admitted": self._held, "running": now.running, "waiting": now.waiting, "branches": now.branches},
            "kv_slots": {
                "size": engine.slots.size,
                "free": engine.slots.free,
                "cached": engine.slots.cached,
                "owned": engine.slots.owned,
            },
            "preemptions": now.preemptions,
        }

    async def _run(
        self, send: Callable[[SamplingParams], EventStream], params: SamplingParams, mail: _Mail, measure: Measure
    ) -> None:
        """Read one generation from the engine, from its place in the queue to its end."""
        try:
            async with asyncio.timeout(self.settings.request_timeout):
                self._queued += 1
                try:
                    await self._turns.acquire()
                finally:
                    self._queued -= 1
        except TimeoutError:
            self.metrics.failed("timeout")
            mail.end(_waited_in_vain(self.settings.request_timeout))
            return
        except asyncio.CancelledError:
            self.metrics.failed("disconnect")
            raise
        try:
            left = max(1e-3, self.settings.request_timeout - measure.seconds)
            await self._read(partial(send, replace(params, max_seconds=min(params.max_seconds, left))), mail, measure)
        finally:
            self._turns.release()

    async def _read(self, send: Callable[[], EventStream], mail: _Mail, measure: Measure) -> None:
        """Pass on what the engine writes, and count it."""
        failure: str | None = "disconnect"
        try:
            async with send() as events:
                measure.accept()
                self._branches += measure.branches
                mail.accept()
                async for event in events:
                    before = measure.branches
                    self._count(event, measure, mail)
                    self._branches += measure.branches - before
            failure = None
            mail.end()
        except _StoppedError:
            failure = "shutdown"
            mail.end(self._away())
        except RequestError as error:
            stopped = self._engine.closed
            failure = "shutdown" if stopped else "refused"
            mail.end(self._away() if stopped else error)
        except Exception as error:
            failure = "error"
            mail.end(error)
        finally:
            self._branches -= measure.branches
            if failure is not None:
                self.metrics.failed(failure)

    def _count(self, event: Event, measure: Measure, mail: _Mail) -> None:
        if isinstance(event, FinishEvent):
            generation = event.generation
            if generation.finish_reason == "abort":  # not by the client, who would not be told
                raise _StoppedError
            measure.branches = 0
            self._pace += 0.1 * (measure.seconds - self._pace)
            _note(generation, measure)
        measure.feed(event)
        mail.put(event)

    def _away(self) -> ApiError:
        """Why nothing can be done for anybody."""
        if self.alive:
            return _shutting_down()
        message = "the engine has come to grief: the server has to be started again; ask another one"
        return ApiError(503, message, "server_error", code="dead")

    def _give_back(self, count: int) -> None:
        self._held -= count
        if self._held == 0:
            self._idle.set()

    def _retry_after(self) -> int:
        """Seconds until a place can be hoped for."""
        rounds = self._held / self.settings.max_concurrent
        return max(1, min(60, math.ceil(self._pace * rounds / 2)))

    def _snapshot(self) -> Snapshot:
        engine = self.llm.engine
        running = self._engine.running
        return Snapshot(
            running=running,
            waiting=self._queued + self._engine.waiting,
            branches=self._branches,
            kv_usage=1 - (engine.slots.free + engine.cache.evictable) / engine.slots.size,
            prefix_queries=engine.cache.queries,
            prefix_hits=engine.cache.hits,
            preemptions=engine.scheduler.preemptions,
        )


class _StoppedError(Exception):
    """The engine was closed under a generation."""


def _name(llm: LLM) -> str:
    """What a model is called: its folder, or its id on the hub."""
    path = Path(llm.model_path)
    if path == Path(str(files("multiverse") / "models" / "mini")):
        return "multiverse-mini"
    return path.resolve().name if path.is_dir() else str(llm.model_path)


def _note(generation: Generation, measure: Measure) -> None:
    """What the log says of a generation; of several in one request, their sums."""
    exchange = logs.current()
    if exchange is None:
        return
    usage, fields = generation.usage, exchange.fields
    for name, value in (
        ("generations", 1),
        ("prompt_tokens", usage.prompt_tokens),
        ("cached_tokens", usage.cached_tokens),
        ("completion_tokens", usage.total_tokens),
        ("critical_path_tokens", usage.critical_path_tokens),
        ("preemptions", usage.preemptions),
    ):
        fields[name] = fields.get(name, 0) + value
    fields.setdefault("finish_reasons", []).append(generation.finish_reason)
    if measure.first_token is not None:
        fields["first_token_seconds"] = round(min(measure.first_token, fields.get("first_token_seconds", math.inf)), 4)


def _shutting_down() -> ApiError:
    return ApiError(
        503,
        "the server is shutting down: it finishes what runs and takes no new requests; ask another one, or try again soon",
        "server_error",
        code="shutting_down",
        headers={"retry-after": "5"},
    )


def _waited_in_vain(seconds: float) -> ApiError:
    return ApiError(
        503,
        f"the request waited {seconds:g} s for its turn, which is as long as the server lets one take: try again later",
        "server_error",
        code="timeout",
        headers={"retry-after": "10"},
    )
