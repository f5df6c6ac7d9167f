"""How questions are worded: one fixed wording, or natural wording from large lists with a held-out third each.

A list of names, things or templates is cut into a part to train on (two thirds) and a part held out, entry by entry; numbers
are cut by range. Which part is drawn from can be chosen for vocabulary, phrasings and numbers separately, so that it can be
measured what a model has learned by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeVar, get_args

from .problem import Split

Style = Literal["plain", "natural"]
Part = Literal["train", "heldout", "all"]

T = TypeVar("T")

STARTS = {"train": (2, 40), "heldout": (41, 60)}
"""Numbers that a calculation starts with, first and last."""

TERMS = {"train": (1, 20), "heldout": (21, 30)}
"""Numbers that one step adds or takes away, first and last."""

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
"""How many parts a question says it has."""


@dataclass(frozen=True)
class Wording:
    """How the questions of a stream are worded.

    Attributes:
        style: ``plain`` is the fixed wording that the embedded model was trained on; families whose parts are language have
            ``natural`` wording only. `None` is ``plain`` where a family has it.
        vocabulary: which part of the lists names, things and facts are drawn from (natural wording only, as the next two).
            `None` is the part that goes with the split: ``train`` for training questions, ``heldout`` for test questions.
        phrasings: which part of the templates.
        numbers: which range numbers are drawn from.
        steps: how many steps each calculation has; drawn when `None`.
    """

    style: Style | None = None
    vocabulary: Part | None = None
    phrasings: Part | None = None
    numbers: Part | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for name, kind in (("style", Style), ("vocabulary", Part), ("phrasings", Part), ("numbers", Part)):
            value, allowed = getattr(self, name), get_args(kind)
            if value is not None and value not in allowed:
                raise ValueError(f"unknown {name} {value!r}: allowed are {', '.join(allowed)}")


def part_of(items: Sequence[T], part: Part) -> tuple[T, ...]:
    """The entries of a list that belong to a part: every third one is held out."""
    if part == "all":
        return tuple(items)
    return tuple(item for number, item in enumerate(items) if (number % 3 == 2) == (part == "heldout"))


@dataclass(frozen=True)
class Draws:
    """Draws everything that natural wording is made of, from the parts that were chosen."""

    rng: Random
    vocabulary: Part
    phrasings: Part
    numbers: Part
    steps: int | None = None

    @classmethod
    def of(cls, rng: Random, wording: Wording, split: Split) -> Draws:
        """The draws of a wording; what it leaves open follows the split."""
        by_split: Part = "train" if split == "train" else "heldout"
        return cls(
            rng,
            wording.vocabulary or by_split,
            wording.phrasings or by_split,
            wording.numbers or by_split,
            wording.steps,
        )

    def word(self, items: Sequence[T]) -> T:
        """One name, thing or fact."""
        return self.rng.choice(part_of(items, self.vocabulary))

    def words(self, items: Sequence[T], count: int) -> list[T]:
        """Several, each once."""
        return self.rng.sample(part_of(items, self.vocabulary), count)

    def phrase(self, templates: Sequence[T]) -> T:
        """One template."""
        return self.rng.choice(part_of(templates, self.phrasings))

    def span(self, ranges: dict[str, tuple[int, int]]) -> tuple[int, int]:
        """First and last number of a range that may be drawn."""
        if self.numbers != "all":
            return ranges[self.numbers]
        return min(first for first, _ in ranges.values()), max(last for _, last in ranges.values())
