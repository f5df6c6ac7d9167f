"""What a run may cost: an estimate before it, and caps that hold while it goes."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from .errors import BudgetError, CurationError
from .store import Usage
from .types import Completion, Request

_PER_MESSAGE = 16
"""Tokens that a chat template may put around a message; generous."""


class Prices(NamedTuple):
    """Price of a million tokens, in whatever money."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, usage: Usage) -> float:
        """What so many tokens cost."""
        return (usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion) / 1e6


class Budget:
    """Counts what was spent, and what is in flight at its worst.

    A call starts only if, whatever comes back, the caps hold. The worst of a call is one token for every byte of its prompt and
    an answer as long as it may be; as calls come back, what they really took counts. A call that brings no answer counts
    nothing, though some endpoints charge for what they wrote until a time-out.

    Args:
        spent: what the folder's stored answers took already: caps are for all of it, not for one start.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        *,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        spent: Usage | None = None,
    ) -> None:
        self.prices = Prices() if prices is None else prices
        self.max_cost, self.max_tokens = max_cost, max_tokens
        self.spent = Usage() if spent is None else spent
        self._flying = Usage()
        self._closed: CurationError | None = None
        self._landed = asyncio.Event()

    @property
    def closed(self) -> CurationError | None:
        """Why nobody may reserve any more."""
        return self._closed

    @property
    def cost(self) -> float:
        """What was spent, in money."""
        return self.prices.cost(self.spent)

    def over(self, usage: Usage) -> str | None:
        """The cap that so much more than what is spent would break, in words."""
        whole = _add(self.spent, usage)
        if self.max_tokens is not None and whole.tokens > self.max_tokens:
            return f"--max-tokens {self.max_tokens}"
        if self.max_cost is not None and self.prices.cost(whole) > self.max_cost:
            return f"--max-cost {self.max_cost:g}"
        return None

    async def reserve(self, request: Request) -> Usage:
        """Set a call's worst aside, once it fits; hand it back to `settle`.

        Raises:
            BudgetError: it does not fit any more. From then on nothing does.
        """
        wanted = worst(request)
        while self._closed is None:
            if (cap := self.over(wanted)) is not None:
                self.close(
                    BudgetError(
                        f"{cap} leaves too little for the next call ({self.told()} spent): all that was answered is stored; "
                        "raise the cap and start again to go on"
                    )
                )
            elif self.over(_add(self._flying, wanted)) is None:
                self._flying = _add(self._flying, wanted)
                return wanted
            else:
                await self._landed.wait()
        raise self._closed

    def settle(self, reserved: Usage, answer: Completion | None) -> None:
        """A call has come back; `None` if without an answer, which counts nothing."""
        self._flying = Usage(*(all_ - own for all_, own in zip(self._flying, reserved, strict=True)))
        if answer is not None:
            self.spent = self.spent.plus(answer)
        self._wake()

    def close(self, reason: CurationError) -> None:
        """Let nobody reserve any more."""
        self._closed = self._closed or reason
        self._wake()

    def _wake(self) -> None:
        self._landed.set()
        self._landed = asyncio.Event()

    def told(self) -> str:
        """What was spent, in words."""
        money = f", {self.cost:.4f} in money" if any(self.prices) else ""
        return f"{self.spent.tokens:,} tokens{money}"


def worst(request: Request) -> Usage:
    """The most that a request can take: a token is a byte at least."""
    prompt = sum(len(content.encode("utf-8", "surrogatepass")) + _PER_MESSAGE for _, content in request.messages)
    return Usage(1, prompt, request.max_tokens)


def _add(one: Usage, other: Usage) -> Usage:
    return Usage(*(a + b for a, b in zip(one, other, strict=True)))
