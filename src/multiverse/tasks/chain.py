"""Chain: every step needs the one before, so nothing can be forked."""

from __future__ import annotations

from random import Random

from .problem import Problem, listing, problem
from .rules import IntegerRule
from .steps import draw_calculation, work_out

MIN_STEPS, MAX_STEPS = 4, 9
STEPS = range(2, 17)

_TALES = (
    ("Start with {start}. {first}, then {rest}. What do you get?", ", then "),
    ("Take the number {start}. {first}, {rest}. What is the result?", None),
    ("Begin at {start}. {first}, then {rest}. Where do you end?", ", "),
    ("A number is {start}. {first}, {rest}. What is it now?", None),
)


def draw(rng: Random, steps: int | None = None) -> Problem:
    """A chain of `steps` steps, four to nine unless given."""
    chain = draw_calculation(rng, "", rng.randint(MIN_STEPS, MAX_STEPS) if steps is None else steps)
    tale, joint = rng.choice(_TALES)
    first, *rest = [step.command for step in chain.steps]
    question = tale.format(
        start=chain.start, first=first.capitalize(), rest=listing(rest) if joint is None else joint.join(rest)
    )
    text, result = work_out(chain.start, chain.steps)
    return problem("chain", question, str(result), (f"{chain.start}, {text}.",), IntegerRule(result))
