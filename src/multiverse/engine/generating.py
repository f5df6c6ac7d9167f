"""What runs generations for tasks of event loops, whatever computes them: the protocol of `AsyncEngine` and `StockEngine`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .event_stream import EventStream, Observer
from .generation import Generation
from .params import SamplingParams


class Generating(Protocol):
    """Runs generations; `AsyncEngine` says what each method does."""

    @property
    def closed(self) -> bool:
        """Whether it accepts no more requests for good."""

    @property
    def busy(self) -> bool:
        """Whether any request has been sent and is not over."""

    @property
    def running(self) -> int:
        """Number of generations that have begun; each sample counts."""

    @property
    def waiting(self) -> int:
        """Number of generations that were sent and have not begun; each sample counts."""

    def stream(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        priority: int = 0,
        observe: Observer | None = None,
    ) -> EventStream:
        """Send a request and receive its events."""

    async def generate(self, prompt: Sequence[int], params: SamplingParams | None = None, *, priority: int = 0) -> Generation:
        """Send a request and wait for its result."""

    async def score(self, token_ids: Sequence[int]) -> tuple[float | None, ...]:
        """Log-probabilities of a text's own tokens."""

    async def drain(self) -> None:
        """Accept no new requests, and wait until those that were sent are over."""

    async def aclose(self) -> None:
        """Abort every request, and end."""
