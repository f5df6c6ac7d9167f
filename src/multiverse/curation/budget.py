"""Limits of cost and tokens that hold while a run is going."""

from __future__ import annotations

import asyncio

from .config import BudgetConfig
from .errors import BudgetError, CurationError
from .types import Completion, Request, Usage

_PER_MESSAGE = 16
"""Upper bound of the tokens that a chat template adds to a message."""


class Budget:
    """Counts tokens spent, and the upper bounds of the calls in flight.

    A call starts only if the limits hold whatever it returns. Its upper bound is one token for every byte of the prompt and
    `max_tokens` for the completion. A call that returns no completion counts nothing, though some endpoints charge for tokens
    generated until a time-out.

    Args:
        spent: usage of the folder's stored completions, since limits are for all runs of the folder.
    """

    def __init__(self, config: BudgetConfig | None = None, spent: Usage | None = None) -> None:
        self.config = BudgetConfig() if config is None else config
        self.spent = Usage() if spent is None else spent
        self._reserved = Usage()
        self._closed: CurationError | None = None
        self._settled = asyncio.Event()

    @property
    def cost(self) -> float:
        """Cost so far."""
        return self.config.cost(self.spent)

    def exceeded(self, usage: Usage) -> str | None:
        """The option whose limit this much more usage would exceed."""
        total, config = self.spent.add(usage), self.config
        if config.token_budget is not None and total.tokens > config.token_budget:
            return f"--token-budget {config.token_budget}"
        if config.max_cost is not None and config.cost(total) > config.max_cost:
            return f"--max-cost {config.max_cost:g}"
        return None

    async def reserve(self, request: Request) -> Usage:
        """Wait until the upper bound of a call fits, reserve it and return it for `settle`.

        Raises:
            BudgetError: the limit is reached; every later call raises it, too.
        """
        wanted = upper_bound(request)
        while self._closed is None:
            if (limit := self.exceeded(wanted)) is not None:
                money = f", cost {self.cost:.4f}" if self.config.priced else ""
                self.close(
                    BudgetError(
                        f"{limit} leaves too little for the next call ({self.spent.tokens:,} tokens spent{money}): completions "
                        "are stored; raise the limit and start again to continue"
                    )
                )
            elif self.exceeded(self._reserved.add(wanted)) is None:
                self._reserved = self._reserved.add(wanted)
                return wanted
            else:
                await self._settled.wait()
        raise self._closed

    def settle(self, reserved: Usage, completion: Completion | None) -> None:
        """Replace a reservation by the usage of the completion; `None` if the call returned none."""
        self._reserved = Usage(*(total - own for total, own in zip(self._reserved, reserved, strict=True)))
        if completion is not None:
            self.spent = self.spent.plus(completion)
        self._wake()

    def close(self, reason: CurationError) -> None:
        """Refuse all further reservations with this error."""
        self._closed = self._closed or reason
        self._wake()

    def _wake(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()


def upper_bound(request: Request) -> Usage:
    """The most that a request can take: a token has at least one byte."""
    prompt = sum(len(content.encode("utf-8", "surrogatepass")) + _PER_MESSAGE for _, content in request.messages)
    return Usage(1, prompt, request.max_tokens)
