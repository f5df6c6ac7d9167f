"""How many calls are in flight at once: as many as the endpoint bears."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from .errors import CurationError


class ConcurrencyLimiter:
    """Lets calls in, first come first served.

    Where the endpoint is overloaded, only half as many may fly; every full round that goes well lets in one more. What was
    already in flight when the number was halved says nothing about the half, and does not halve again.

    Args:
        most: calls in flight when all goes well.
    """

    def __init__(self, most: int) -> None:
        self.most, self.allowed, self.flying = most, float(most), 0
        self.stopped: CurationError | None = None
        self._round = 0
        self._opens = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stop = asyncio.Event()

    async def enter(self) -> int:
        """Wait for a place; the number that comes back is for `leave`.

        Raises:
            CurationError: what the gate was stopped with.
        """
        if self.stopped is not None:
            raise self.stopped
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.flying -= 1
                self._admit()
            raise
        return self._round

    def leave(self, entered: int, *, overloaded: bool = False, well: bool = True) -> None:
        """Give the place back, and say how it went."""
        self.flying -= 1
        if overloaded and entered == self._round:
            self.allowed = max(1.0, self.allowed / 2)
            self._round += 1
        elif well:
            self.allowed = min(self.most, self.allowed + 1 / self.allowed)
        self._admit()

    @property
    def held(self) -> float:
        """Seconds for which nobody is let in yet."""
        return max(0.0, self._opens - time.monotonic())

    def hold(self, seconds: float) -> None:
        """Let nobody in for so long."""
        self._opens = max(self._opens, time.monotonic() + seconds)
        asyncio.get_running_loop().call_later(seconds, self._open)

    def stop(self, reason: CurationError) -> None:
        """Let nobody in any more, and send those who wait or sleep away with this error."""
        self.stopped = self.stopped or reason
        self._stop.set()
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(self.stopped)

    async def sleep(self, seconds: float) -> None:
        """Sleep, unless the gate is stopped (errors as `enter`)."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
        assert self.stopped is not None
        raise self.stopped

    def _open(self) -> None:
        if self.held:  # held for longer meanwhile, or the timer was a moment early
            asyncio.get_running_loop().call_later(self.held, self._open)
        else:
            self._admit()

    def _admit(self) -> None:
        if self.held:
            return
        while self._waiting and self.flying < int(self.allowed):
            place = self._waiting.popleft()
            if not place.done():
                self.flying += 1
                place.set_result(None)
