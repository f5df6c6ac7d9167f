"""The events of a request for one consumer on an event loop, as `AsyncEngine.stream` returns them. Torch-free."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType

from .events import Event, FinishEvent

Observer = Callable[[int, Event], None]
"""Called with index and event when they arrive on the consumer's event loop, whether or not the consumer has taken them."""


class Mailbox:
    """Events of one stream that have arrived on the consumer's event loop and were not taken yet.

    Only that loop changes anything here, but for `admitted`; the engine's thread reads `loop` and `unfinished`.

    Attributes:
        loop: the consumer's.
        events: index and event, in the order of arrival.
        unfinished: number of samples whose `FinishEvent` has not arrived.
        accepted: the engine has accepted or refused the requests.
        admitted: whether the first sample of each prompt was admitted to the batch; `False` if one of them ended before it
            was, `None` before either is certain. Set by the engine's thread.
        over: nothing more will come.
        error: with which the stream ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, observe: Observer | None) -> None:
        self.loop = loop
        self.events: deque[tuple[int, Event]] = deque()
        self.accepted = self.over = False
        self.admitted: bool | None = None
        self.arrived = asyncio.Event()
        self.unfinished = count
        self._observe = observe
        self.error: Exception | None = None
        self._raised = False

    def put(self, events: Sequence[tuple[int, Event]], error: Exception | None) -> None:
        """Add events, and the error with which the stream ends."""
        if self.over:  # the consumer has left
            return
        self.accepted = True
        self.events.extend(events)
        for index, event in events:
            self.unfinished -= isinstance(event, FinishEvent)
            if self._observe is not None:
                self._observe(index, event)
        self.error = error
        self.over = error is not None or not self.unfinished
        self.arrived.set()

    def close(self) -> None:
        """The consumer leaves; others who wait here are woken."""
        self.over = True
        self.events.clear()
        self._raised = True
        self.arrived.set()

    def raise_error(self) -> None:
        """Raise the error with which the stream ended, once."""
        if self.error is not None and not self._raised:
            self._raised = True
            raise self.error


Delivery = tuple[Mailbox, Sequence[tuple[int, Event]], Exception | None]


def deliver(deliveries: list[Delivery]) -> None:
    """Put events and errors into their mailboxes; called on the loop of these mailboxes."""
    for mailbox, events, error in deliveries:
        mailbox.put(events, error)


class EventStream:
    """The events of all samples of a request as they happen, each with the sample's index; a sample's last is a `FinishEvent`.

        async for index, event in engine.stream(prompt, params): ...

        async with engine.stream(prompt, params) as events:  # entered once the engine has accepted the request
            async for index, event in events: ...

    The request was sent when the stream was made, and runs whether or not it is read: events that were not taken yet are
    kept, so a slow consumer delays no other. Leaving early aborts the request: by cancelling the task that waits for an
    event, by `close`, by the end of ``async with``, or by dropping the stream, as ``break`` in a plain ``async for`` does.

    A stream belongs to the event loop on which it was made.
    """

    def __init__(self, mailbox: Mailbox, abort: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._abort = abort

    @property
    def error(self) -> Exception | None:
        """The error with which the stream ended; it is also raised, behind the events that came before it."""
        return self._mailbox.error

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> tuple[int, Event]:
        """The next event.

        Raises:
            RequestError: the request cannot be honoured; raised before any event.
            EngineError: the engine failed on this request.
            RuntimeError: called from another event loop than the stream's.
        """
        mailbox = self._mailbox
        while not mailbox.events:
            mailbox.raise_error()  # events that came before the error are given out before it
            if mailbox.over:
                raise StopAsyncIteration
            await self._wait()
        return mailbox.events.popleft()

    async def batches(self, timeout: float | None = None) -> AsyncIterator[list[tuple[int, Event]]]:
        """All events that have arrived since the last time; an empty list after `timeout` seconds without any.

        Raises:
            As `__anext__`.
        """
        mailbox = self._mailbox
        while not mailbox.over or mailbox.events:
            quiet = not mailbox.events and not await self._wait(timeout)
            batch = [*mailbox.events]
            mailbox.events.clear()
            if batch or quiet:
                yield batch
        mailbox.raise_error()

    async def accepted(self) -> None:
        """Wait until the engine has accepted the request; raises as the first event would."""
        while not (self._mailbox.accepted or self._mailbox.over):
            await self._wait()
        if not self._mailbox.events:
            self._mailbox.raise_error()

    async def admitted(self) -> bool:
        """Wait until the first sample of each prompt was admitted to the batch.

        Returns:
            `False` if one of them ended before that: at its deadline, or because the engine was closed.

        Raises:
            RequestError: the request cannot be honoured.
        """
        await self.accepted()
        while self._mailbox.admitted is None and not self._mailbox.over:
            await self._wait()
        return self._mailbox.admitted is not False

    async def __aenter__(self) -> EventStream:
        await self.accepted()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """Stop listening, and abort the request if it is not over. Does not wait for the current step."""
        if not self._mailbox.over:
            self._abort()
        self._mailbox.close()

    def __del__(self) -> None:
        # Wherever the garbage collector runs this: sending the command takes no lock, and touches no loop.
        if not self._mailbox.over:
            self._abort()

    async def _wait(self, timeout: float | None = None) -> bool:
        """Wait until something arrives; `False` if `timeout` seconds have passed without."""
        if asyncio.get_running_loop() is not self._mailbox.loop:
            raise RuntimeError("a stream can only be read on the event loop on which it was made")
        self._mailbox.arrived.clear()
        try:
            async with asyncio.timeout(timeout):
                return await self._mailbox.arrived.wait()
        except TimeoutError:
            return False
        except BaseException:  # above all a cancelled task
            self.close()
            raise
