"""Limit of concurrent calls that adapts to the endpoint."""

from __future__ import annotations

import asyncio
import time
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Reason = TypeVar("Reason", bound=Exception)


class ConcurrencyLimiter(Generic[Reason]):
    """Admits calls by priority, then in order of arrival, with additive increase and multiplicative decrease.

    An overloaded call halves the limit; a full round of successful calls raises it by one. Calls that were admitted before the
    limit was halved do not halve it again.

    Args:
        most: largest number of calls in flight.

    Attributes:
        limit: present limit.
        in_flight: calls that were admitted and not yet released.
        stopped: why no call is admitted any more.
    """

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.in_flight = most, float(most), 0
        self.stopped: Reason | None = None
        self._round = 0
        self._paused_until = 0.0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap
        self._arrivals = count()
        self._stop = asyncio.Event()

    async def acquire(self, priority: int = 0) -> int:
        """Wait for a permit; the returned number is passed to `release`. Higher priority goes first.

        Raises:
            Reason: what the limiter was stopped with.
        """
        if self.stopped is not None:
            raise self.stopped
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (-priority, next(self._arrivals), permit))
        self._admit()
        try:
            await permit
        except asyncio.CancelledError:
            if permit.done() and not permit.cancelled() and permit.exception() is None:
                self.in_flight -= 1
                self._admit()
            raise
        return self._round

    def release(self, acquired: int, *, overloaded: bool = False, success: bool = True) -> None:
        """Return a permit with the result of its call."""
        self.in_flight -= 1
        if overloaded and acquired == self._round:
            self.limit = max(1.0, self.limit / 2)
            self._round += 1
        elif success:
            self.limit = min(self.most, self.limit + 1 / self.limit)
        self._admit()

    @property
    def pause_left(self) -> float:
        """Seconds until calls are admitted again."""
        return max(0.0, self._paused_until - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Admit no call for this long."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds, self._resume)

    def stop(self, reason: Reason) -> None:
        """Admit no more calls; those that wait in `acquire` or `sleep` raise this error."""
        self.stopped = self.stopped or reason
        self._stop.set()
        while self._waiting:
            _, _, permit = heappop(self._waiting)
            if not permit.done():
                permit.set_exception(self.stopped)

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the limiter is stopped (raises as `acquire`)."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
        assert self.stopped is not None
        raise self.stopped

    def _resume(self) -> None:
        if self.pause_left:  # paused for longer meanwhile, or the timer was early
            asyncio.get_running_loop().call_later(self.pause_left, self._resume)
        else:
            self._admit()

    def _admit(self) -> None:
        if self.pause_left:
            return
        while self._waiting and self.in_flight < int(self.limit):
            _, _, permit = heappop(self._waiting)
            if not permit.done():
                self.in_flight += 1
                permit.set_result(None)
