"""Worksheet: several people who each count something, and how much that is in all."""

from __future__ import annotations

from multiverse.structure.tree import Block

from ..problem import Problem, forked, listing, running_sum
from ..rules import NumberRule
from ..wording import NUMBER_WORDS, Draws
from ..words import COUNTED, FIRST_NAMES, PLACES
from ..worksheet import WIDTHS
from .steps import Told, tell

TALES = (
    "{name} has {start} {things}, {deeds}.",
    "{name} starts with {start} {things}, {deeds}.",
    "At first {name} has {start} {things}. Then {name} {deeds}.",
    "{name} brings {start} {things}, {deeds}.",
    "{name} owns {start} {things} in the morning, {deeds}.",
    "There are {start} {things} in front of {name}, who {deeds}.",
    "{name} counts {start} {things}, {deeds}.",
    "{name} begins with {start} {things}; after that, {name} {deeds}.",
    "With {start} {things} to begin with, {name} {deeds}.",
)
"""One person's part."""

CLOSINGS = (
    "How many {things} do they have in all?",
    "How many {things} is that altogether?",
    "What is the total number of {things} at the end?",
    "Add up the {things} of all {count} people.",
    "How many {things} do {names} have together?",
    "If they put everything together, how many {things} are there?",
    "Find the sum of what everyone ends up with.",
    "Tell me how many {things} they own in total.",
    "How large is the whole collection of {things} now?",
    "Work out each person's {things}, then the total.",
    "What do all of them have between them at the end?",
    "How many {things} can they lay on one table?",
)

FRAMES = (
    "{tales} {closing}",
    "{names} meet at {place}. {tales} {closing}",
    "{closing} Here is what happened: {tales}",
    "At {place}, some friends compare their {things}. {tales} {closing}",
    "{closing}\n{list}",
    "I need some help with this. {tales} {closing}",
    "It is a busy day at {place}. {tales} {closing}",
    "Read this carefully.\n{list}\n{closing}",
    "{tales}\n\n{closing}",
    "Here is a puzzle about {things}. {tales} {closing}",
    "Some people collect {things}:\n{list}\n{closing}",
    "{names} collect {things}. {closing} {tales}",
)


def draw(draws: Draws, width: int | None = None) -> Problem:
    """A worksheet of `width` people."""
    count = draws.rng.choice(WIDTHS[:-1]) if width is None else width
    things = draws.word(COUNTED)
    steps = draws.rng.randint(2, 4)
    told = [tell(draws, name, steps + draws.rng.randint(0, 1)) for name in draws.words(FIRST_NAMES, count)]
    tale = draws.phrase(TALES)
    tales = [describe(tale, one, things) for one in told]
    names = listing([one.name for one in told])
    closing = draws.phrase(CLOSINGS).format(things=things, count=NUMBER_WORDS[count], names=names)
    question = draws.phrase(FRAMES).format(
        tales=" ".join(tales),
        list="\n".join(f"- {line}" for line in tales),
        closing=closing,
        names=names,
        place=draws.word(PLACES),
        things=things,
    )
    conclusion, total = running_sum([one.result for one in told])
    block = Block(tuple(one.name for one in told), tuple((path(one, things),) for one in told), f"Together: {conclusion}")
    return forked("worksheet", question, str(total), block, NumberRule(total))


def describe(tale: str, one: Told, things: str) -> str:
    """One person's part in the words of a template."""
    return tale.format(name=one.name, start=one.start, things=things, deeds=one.deeds)


def path(one: Told, things: str) -> str:
    """``Mia starts with 7 marbles. Finds 5 more: 7+5=12. Mia has 12 marbles.``"""
    return f"{one.name} starts with {one.start} {things}. {one.working} {one.name} has {one.result} {things}."
