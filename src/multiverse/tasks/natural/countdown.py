"""Countdown: make a target from a few numbers; the paths are the first moves of the search."""

from __future__ import annotations

from ..countdown import WIDTHS, pose
from ..problem import Problem
from ..wording import Draws

TALES = (
    "Use {numbers}, each once, with {operators} to make {target}.",
    "Can you reach {target} with {numbers}? Every number is used exactly once, and only {operators} are allowed.",
    "Combine {numbers}, each used once, with {operators} to get {target}.",
    "Find an expression with the value {target}. It must contain each of {numbers} once and no other "
    "number; allowed are {operators}.",
    "Here are the numbers {numbers}. Put {operators} between them, in any order, so that {target} comes out.",
    "How do you get {target} out of {numbers}, using all of them once and only {operators}?",
    "Your cards are {numbers}. Play each card once, with {operators} as signs, and hit {target}.",
    "The target is {target}. The numbers are {numbers}, once each, and the signs are {operators}. Show me one way.",
    "I'd like to write {target} with {numbers}: each number one time, joined by {operators}. How?",
    "Make {target}. You have {numbers} to use up, and may use {operators}.",
    "Which calculation with {numbers} gives {target}? Each number appears once; signs may be {operators}.",
    "Write {target} as a calculation of {numbers}, all of them once, with nothing but {operators}.",
)


def draw(draws: Draws, width: int | None = None) -> Problem:
    """A countdown with `width` numbers. Large ones are only added and taken away, so that values keep few digits."""
    rng = draws.rng
    count = rng.choice(WIDTHS) if width is None else width
    if draws.numbers == "train":
        numbers = rng.sample(range(1, 10 if count == 3 else 21), count)
    elif draws.numbers == "heldout":
        numbers = rng.sample(range(21, 31), count)
    else:
        numbers = rng.sample(range(1, 31), count)
    operators = "+-*" if count == 3 and max(numbers) < 10 else "+-"
    return pose(rng, numbers, operators, lambda: draws.phrase(TALES))
