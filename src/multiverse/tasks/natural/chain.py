"""Chain: one number that goes through many steps. Nothing can be forked."""

from __future__ import annotations

from ..chain import MAX_STEPS, MIN_STEPS
from ..problem import Problem, problem
from ..rules import NumberRule
from ..wording import Draws
from ..words import COUNTED, FIRST_NAMES
from .steps import COMMANDS, DEEDS, tell

ORDERS = (
    "Start with {start}. {orders}. What do you get?",
    "Think of the number {start}. {orders}. Which number is it now?",
    "Take {start}, then {then}. What is the result?",
    "Begin at {start} and follow these steps: {then}. Where do you end?",
    "What comes out if you start from {start} and do this: {then}?",
    "My number is {start}. {orders}. Tell me the final number.",
    "Please compute this step by step. Begin with {start}. {orders}.",
    "A calculator shows {start}. {orders}. What does it show in the end?",
    "{start} goes in. These steps follow: {then}. What comes out?",
)

STORIES = (
    "{name} has {start} {things}, {deeds}. How many {things} does {name} have now?",
    "{name} starts the day with {start} {things}, {deeds}. How many are left in the evening?",
    "In a drawer of {name} there are {start} {things}. {name} {deeds}. How many {things} is that?",
    "How many {things} does {name} have at the end? {name} begins with {start} {things}, {deeds}.",
    "First {name} owns {start} {things}. After that, {name} {deeds}. What is the number of {things} now?",
    "{name} counts {start} {things}. Then {name} {deeds}. Count the {things} once more: how many are there?",
)


def draw(draws: Draws) -> Problem:
    """A chain of four to nine steps, or of as many as the wording asks for."""
    count = draws.rng.randint(MIN_STEPS, MAX_STEPS)
    if draws.rng.random() < 0.5:
        name, things = draws.word(FIRST_NAMES), draws.word(COUNTED)
        told = tell(draws, name, count, DEEDS)
        question = draws.phrase(STORIES).format(name=name, start=told.start, things=things, deeds=told.deeds)
        end = f"{name} has {told.result} {things}."
    else:
        told = tell(draws, "", count, COMMANDS)
        orders = [words for _, words in told.steps]
        then = ", ".join(orders[:-1]) + f", and finally {orders[-1]}"
        question = draws.phrase(ORDERS).format(
            start=told.start, then=then, orders=". ".join(text[0].upper() + text[1:] for text in orders)
        )
        end = f"The result is {told.result}."
    text = f"Start: {told.start}. {told.working} {end}"
    return problem("chain", question, str(told.result), (text,), NumberRule(told.result))
