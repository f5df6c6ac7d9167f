"""Rounds of deterministic generation: all open branches of a request advance by one token before any advances by a second.

A forward may have room for some of a request's branches only, depending on the other requests. What limits allow depends on how
far all branches have come, and so would the text. So sampled tokens are held back until every branch of the round has one: a
request then goes through the same states as if it were alone. Torch-free but for the choices it holds.
"""

from __future__ import annotations

from .branch import Drawn
from .request import Request
from .sampler import Choice
from .scheduler import Chunk

_Held = tuple[Chunk, int | None, Drawn]


class Rounds:
    """Sampled tokens of requests whose round is not complete."""

    def __init__(self) -> None:
        self._held: dict[int, list[_Held]] = {}

    def holds(self, request: Request) -> bool:
        """Whether the request is in the middle of a round."""
        return request.id in self._held

    def drop(self, request: Request) -> None:
        """The request is over."""
        self._held.pop(request.id, None)

    def collect(self, sampled: list[Chunk], choice: Choice) -> tuple[list[Chunk], Choice]:
        """Take the tokens of a forward; returns those of all requests whose round is complete, in the order of the round."""
        ready: list[_Held] = []
        for entry in zip(sampled, choice.tokens, choice.drawn, strict=True):
            self._held.setdefault(entry[0].request.id, []).append(entry)
        # Also of requests that this forward sampled nothing for: a round may end with tokens of a path that has closed.
        for number, held in list(self._held.items()):
            if not held[0][0].request.queues.unfinished:
                ready += self._held.pop(number)
        return [chunk for chunk, _, _ in ready], Choice([token for _, token, _ in ready], [drawn for _, _, drawn in ready])
