"""Worksheet: several independent calculations, and their sum.

The simplest case for a fork: each outline is a name, all the work is in the paths.
"""

from __future__ import annotations

from random import Random

from multiverse.structure.tree import Block

from .problem import Problem, forked, listing, running_sum
from .rules import IntegerRule
from .steps import LIMIT, NAMES, Calculation, draw_calculation

WIDTHS = (2, 3, 4, 5, 6)
STEPS = range(1, 9)

MAX_TOTAL = 500
"""Largest total of a question: the more calculations, the smaller their values."""

_TALES = (
    ("{name} starts with {start}, {deeds}.", "What do they have together?"),
    ("{name} has {start}, {deeds}.", "What is the sum of their results?"),
    ("{name} begins at {start}, then {deeds}.", "What is the total?"),
    ("{name}: start with {start}, {commands}.", "What do all the results add up to?"),
)


def draw(rng: Random, width: int | None = None, steps: int | None = None) -> Problem:
    """A worksheet of `width` calculations of `steps` steps."""
    count = rng.choice(WIDTHS) if width is None else width
    limit = min(LIMIT, MAX_TOTAL // count)
    # Paths of about one length: the longest of them decides how long the whole takes.
    fewest = rng.choice((3, 4))
    calculations = [
        draw_calculation(rng, name, fewest + rng.randint(0, 1) if steps is None else steps, limit) for name in NAMES[:count]
    ]
    tale, closing = rng.choice(_TALES)
    question = " ".join([*(describe(tale, calculation) for calculation in calculations), closing])
    conclusion, total = running_sum([calculation.result for calculation in calculations])
    block = Block(
        outlines=tuple(calculation.name for calculation in calculations),
        paths=tuple((calculation.working,) for calculation in calculations),
        conclusion=conclusion,
    )
    return forked("worksheet", question, str(total), block, IntegerRule(total))


def describe(tale: str, calculation: Calculation) -> str:
    """A calculation in the words of a template."""
    return tale.format(
        name=calculation.name,
        start=calculation.start,
        deeds=listing([step.deed for step in calculation.steps]),
        commands=listing([step.command for step in calculation.steps]),
    )
