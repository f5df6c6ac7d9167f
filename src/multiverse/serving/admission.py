"""Admission control: a counter of the generations of all requests that are being answered.

Beyond `limit` requests are refused with 429 at once, and while the server drains with 503. Which of the admitted ones run and
which wait is the engine's scheduler's business.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from .config import ServerConfig
from .errors import ApiError, server_error
from .metrics import Metrics


class Admission:
    """Admits requests.

    Args:
        limit: most generations at once, running and waiting.
        config: the server's options.
        metrics: where refusals are counted.

    Attributes:
        limit, config, metrics: as given.
        held: generations of admitted requests; each is released when its request has been answered.
        started: whether requests are accepted at all.
        draining: no more requests are accepted.
        failed: what can answer requests is lost; only a new process helps.
    """

    def __init__(self, limit: int, config: ServerConfig, metrics: Metrics) -> None:
        self.limit = limit
        self.held = 0
        self.started = self.draining = False
        self.failed: Callable[[], bool] = lambda: False
        self.config, self.metrics = config, metrics
        self._pace = 1.0  # seconds that a generation took lately
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether requests are accepted."""
        return self.started and not (self.draining or self.failed())

    def check(self, count: int = 1) -> None:
        """Raise what `admit` would raise now."""
        if count > self.limit:
            raise ApiError(
                400,
                f"this asks for {count} generations at once, and the server takes at most {self.limit}: ask for fewer",
                param="n",
            )
        if not self.ready:
            self.metrics.rejected("draining")
            raise self.unavailable()
        if self.held + count > self.limit:
            raise self.full()

    def admit(self, count: int = 1) -> Callable[[], None]:
        """Admit a request that needs `count` generations; returns what releases them, once, however often it is called.

        Raises:
            ApiError: 429 when too many run and wait; 503 while draining; 400 if `count` is above the limit.
        """
        self.check(count)
        return self.hold(count)

    def hold(self, count: int = 1) -> Callable[[], None]:
        """As `admit`, without a check."""
        self.held += count
        self._idle.clear()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self.held -= count
                if not self.held:
                    self._idle.set()

        return release

    def finished(self, seconds: float) -> None:
        """A generation has finished: from how long they take comes what `Retry-After` says."""
        self._pace += 0.1 * (seconds - self._pace)

    async def drain(self, grace: float | None = None) -> bool:
        """Accept no more requests, and wait until those that were admitted are answered; returns whether all are.

        Args:
            grace: seconds after which to stop waiting; `None` takes the config's.
        """
        self.draining = True
        try:
            async with asyncio.timeout(self.config.drain_grace if grace is None else grace):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def full(self) -> ApiError:
        """429, which is counted."""
        self.metrics.rejected("full")
        seconds = max(1, min(60, math.ceil(self._pace * self.held / self.config.max_concurrent / 2)))
        return ApiError(
            429,
            f"the server is full: {self.held} generations run or wait, of {self.limit} that it takes; try again in {seconds} s",
            "rate_limit_error",
            code="server_full",
            headers={"retry-after": str(seconds)},
        )

    def unavailable(self) -> ApiError:
        """503: nothing can be done for anybody, and why."""
        if self.failed():
            return server_error("the engine has failed and the server must be restarted: use another one", 503, "dead")
        message = "the server is shutting down: it takes no new requests; use another one, or try again soon"
        return server_error(message, 503, "shutting_down", retry_after=5)
