"""Nested: groups of people who each count something; at depth 3, places with groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from multiverse.structure.tree import Block, Body

from ..nested import WIDTHS
from ..problem import Problem, forked, listing, running_sum
from ..rules import NumberRule
from ..wording import Draws
from ..words import CITIES, COUNTED, FIRST_NAMES, GROUPS
from .steps import Told, tell
from .worksheet import describe, path

TALES = (
    "{name} has {start} {things}, {deeds}",
    "{name} starts with {start} {things}, {deeds}",
    "{name} counts {start} {things}, {deeds}",
    "{name} brings {start} {things}, {deeds}",
    "{name} begins with {start} {things}, then {deeds}",
    "with {start} {things} at first, {name} {deeds}",
)

HEADS = (
    "{group}: {members}.",
    "In {group}, {members}.",
    "Now to {group}: {members}.",
    "These belong to {group}: {members}.",
    "For {group} it goes like this: {members}.",
    "From {group}: {members}.",
)

CLOSINGS = (
    "How many {things} do they all have together?",
    "What is the total of {groups}?",
    "How many {things} is that over all groups?",
    "Add up what {groups} end up with.",
    "Find each group's {things}, then the sum.",
    "If everyone's {things} are counted, how many are there?",
    "How many {things} are there in the end, group by group and then in all?",
    "Tell me the grand total of {things}.",
    "How many {things} do {groups} have between them?",
)

FRAMES = (
    "{body} {closing}",
    "{closing} {body}",
    "{groups} collect {things}. {body} {closing}",
    "{body}\n\n{closing}",
    "Here is how many {things} everyone has. {body} {closing}",
    "{closing} This is known: {body}",
)

_DEEP_SHARE = 0.15


@dataclass(frozen=True)
class Group:
    """A name and what belongs to it: groups or people."""

    name: str
    members: tuple[Group | Told, ...]

    @property
    def result(self) -> int:
        return sum(member.result for member in self.members)

    def block(self, things: str) -> Block:
        """The fork over the members."""
        conclusion = running_sum([member.result for member in self.members])[0]
        return Block(
            tuple(member.name for member in self.members),
            tuple(_path(member, things) for member in self.members),
            f"Together: {conclusion}",
        )

    def question(self, head: str, tale: str, things: str) -> str:
        """This group and its members in the words of the templates."""
        people = [describe(tale, member, things) for member in self.members if isinstance(member, Told)]
        groups = [member.question(head, tale, things) for member in self.members if isinstance(member, Group)]
        if people:
            text = head.format(group=self.name, members="; ".join(people))
        else:
            text = f"{self.name}: {' '.join(groups)}" if self.name else " ".join(groups)
        return text[0].upper() + text[1:]


def _path(member: Group | Told, things: str) -> Body:
    if isinstance(member, Told):
        return (path(member, things),)
    name = member.name[0].upper() + member.name[1:]
    return (f"{name}.", member.block(things), f"{name} has {member.result} {things}.")


def draw(draws: Draws, width: int | None = None, depth: int | None = None) -> Problem:
    """`width` groups; at depth 3 always two places with two groups of two people."""
    rng, things = draws.rng, draws.word(COUNTED)
    levels = depth
    if levels is None:
        levels = 3 if width != 3 and rng.random() < _DEEP_SHARE else 2
    if levels == 3:
        names, groups = iter(draws.words(FIRST_NAMES, 8)), draws.words(GROUPS, 4)
        teams = [Group(group, _people(draws, names, 2, 2)) for group in groups]
        places = [f"the {city} site" for city in draws.words(CITIES, 2)]
        top = Group("", (Group(places[0], tuple(teams[:2])), Group(places[1], tuple(teams[2:]))))
    else:
        count = rng.choice(WIDTHS) if width is None else width
        sizes = [rng.randint(2, 3) for _ in range(count)]
        names, steps = iter(draws.words(FIRST_NAMES, sum(sizes))), rng.randint(2, 3) if sum(sizes) <= 6 else 2
        groups = draws.words(GROUPS, count)
        top = Group(
            "", tuple(Group(group, _people(draws, names, size, steps)) for group, size in zip(groups, sizes, strict=True))
        )
    body = top.question(draws.phrase(HEADS), draws.phrase(TALES), things)
    everybody = listing([member.name for member in top.members])
    closing = draws.phrase(CLOSINGS).format(things=things, groups=everybody)
    question = draws.phrase(FRAMES).format(body=body, closing=closing, things=things, groups=everybody)
    question = question[0].upper() + question[1:]
    return forked("nested", question, str(top.result), top.block(things), NumberRule(top.result))


def _people(draws: Draws, names: Iterator[str], size: int, steps: int) -> tuple[Told, ...]:
    return tuple(tell(draws, next(names), steps) for _ in range(size))
