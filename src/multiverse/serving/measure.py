"""What the metrics and the log learn from the events of one generation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..engine.events import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent

if TYPE_CHECKING:
    from .metrics import Metrics


class Measure:
    """Watches one generation.

    Attributes:
        branches: how many of its branches go on by themselves now.
        first_token: seconds from its arrival to its first token; `None` before.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arrived = time.monotonic()
        self._last: dict[str, float] = {}  # when each branch had its last token, or was opened, or went on
        self.branches = 0
        self.first_token: float | None = None

    @property
    def seconds(self) -> float:
        """Since it arrived."""
        return time.monotonic() - self._arrived

    def accept(self) -> None:
        """The engine has taken it."""
        self._metrics.queue_time.observe(self.seconds)
        self.branches = 1

    def feed(self, event: Event) -> None:
        """Take the next event."""
        now = time.monotonic()
        if isinstance(event, TokenEvent):
            self._token(event, now)
        elif isinstance(event, ForkEvent):
            self._metrics.forks.inc()
            self.branches += len(event.labels) - 1  # the one that forked waits
            self._last.update(dict.fromkeys(event.labels, now))
        elif isinstance(event, BranchEndEvent):
            self.branches -= 1
        elif isinstance(event, JoinEvent):
            self._metrics.joins.inc()
            self.branches += 1
            self._last[event.branch] = now
        elif isinstance(event, FinishEvent):
            self._metrics.prompt_tokens.inc(event.generation.usage.prompt_tokens)
            self._metrics.seconds.observe(now - self._arrived)
            self._metrics.finished(event.generation)

    def _token(self, event: TokenEvent, now: float) -> None:
        self._metrics.tokens.inc()
        if event.forced:  # the engine writes several at once, and took no forward for them
            return
        if self.first_token is None:
            self.first_token = now - self._arrived
            self._metrics.first_token.observe(self.first_token)
        elif event.branch in self._last:
            self._metrics.between_tokens.observe(now - self._last[event.branch])
        self._last[event.branch] = now
