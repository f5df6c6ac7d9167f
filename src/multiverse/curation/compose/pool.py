"""The answered questions that documents are composed of."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .questions import Answered


@dataclass
class Pool:
    """The answered questions of one split.

    Attributes:
        parts: what may become a part of a block.
        unsplit: requests that never do.
    """

    parts: list[Answered]
    unsplit: list[Answered] = field(default_factory=list)


class Deck:
    """Draws so that nothing comes again before everything has come."""

    def __init__(self, cards: Sequence[Answered], rng: random.Random) -> None:
        self.cards, self.rng = list(cards), rng
        self.left: list[Answered] = []

    def draw(self, count: int, fits: Callable[[Answered, Sequence[Answered]], bool]) -> list[Answered]:
        """As many cards as asked for, or fewer, which fit together."""
        drawn: list[Answered] = []
        for _ in range(2):
            put_back: list[Answered] = []
            while self.left and len(drawn) < count:
                card = self.left.pop()
                (drawn if card not in drawn and fits(card, drawn) else put_back).append(card)
            self.left += reversed(put_back)
            if len(drawn) == count:
                break
            self.left = [*self._shuffled(), *self.left]
        return drawn

    def _shuffled(self) -> list[Answered]:
        return self.rng.sample(self.cards, len(self.cards))
