"""Chain: every step needs the one before, so nothing can be forked."""

from __future__ import annotations

from random import Random

from .problem import IntegerRule, Problem, listing, problem
from .steps import draw_calculation, work_out

MIN_STEPS, MAX_STEPS = 4, 9

_TALES = (
    ("Start with {start}. {first}, then {rest}. What do you get?", ", then "),
    ("Take the number {start}. {first}, {rest}. What is the result?", None),
    ("Begin at {start}. {first}, then {rest}. Where do you end?", ", "),
    ("A number is {start}. {first}, {rest}. What is it now?", None),
)


def draw(rng: Random) -> Problem:
    """A chain of four to nine steps."""
    chain = draw_calculation(rng, "", rng.randint(MIN_STEPS, MAX_STEPS))
    tale, joint = rng.choice(_TALES)
    first, *rest = [step.command for step in chain.steps]
    question = tale.format(
        start=chain.start, first=first.capitalize(), rest=listing(rest) if joint is None else joint.join(rest)
    )
    text, result = work_out(chain.start, chain.steps)
    return problem("chain", question, str(result), (f"{chain.start}, {text}.",), IntegerRule(result))
