"""Nested: sub-tasks that fork themselves. Groups of calculations, and at depth 3 leagues of groups.

A group closes with its own name and sum (``Red team: 41.``), so that what the outer conclusion needs always stands at
the end of a path, whatever is inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from multiverse.structure.tree import Block, Body

from .problem import Problem, forked, running_sum
from .rules import IntegerRule
from .steps import LIMIT, NAMES, Calculation, draw_calculation
from .worksheet import MAX_TOTAL, describe

WIDTHS = (2, 3)
DEPTHS = (2, 3)
STEPS = range(1, 9)

_DEEP_SHARE = 0.15
_TEAMS = tuple(f"{color} team" for color in ("Red", "Blue", "Green", "Gold"))
_LEAGUES = tuple(f"{side} league" for side in ("North", "South"))
_TALES = (
    ("{name} starts with {start}, {deeds}", "What is the total of {all}?"),
    ("{name} has {start}, {deeds}", "What do {all} have together?"),
    ("{name} begins at {start}, then {deeds}", "Add up the results of {all}."),
    ("{name}: start with {start}, {commands}", "What is the sum over {all}?"),
)


@dataclass(frozen=True)
class Group:
    """A name and what belongs to it: groups or calculations."""

    name: str
    members: tuple[Group | Calculation, ...]

    @property
    def result(self) -> int:
        return sum(member.result for member in self.members)

    def block(self) -> Block:
        """The fork over the members."""
        return Block(
            outlines=tuple(member.name for member in self.members),
            paths=tuple(_path(member) for member in self.members),
            conclusion=running_sum([member.result for member in self.members])[0],
        )

    def question(self, tale: str) -> str:
        """``Red team: Mia starts ...; Tom starts ....`` without the name when it is empty."""
        if all(isinstance(member, Calculation) for member in self.members):
            text = "; ".join(describe(tale, member) for member in self.members if isinstance(member, Calculation)) + "."
        else:
            text = " ".join(member.question(tale) for member in self.members if isinstance(member, Group))
        return f"{self.name}: {text}" if self.name else text


def _path(member: Group | Calculation) -> Body:
    if isinstance(member, Calculation):
        return (member.working,)
    return (f"{member.name}.", member.block(), f"{member.name}: {member.result}.")


def draw(rng: Random, width: int | None = None, depth: int | None = None, steps: int | None = None) -> Problem:
    """`width` groups; at depth 3 always two leagues of two teams of two, to keep the text short. Calculations have `steps`."""
    levels = depth
    if levels is None:
        levels = 3 if width != 3 and rng.random() < _DEEP_SHARE else 2
    names = iter(NAMES)
    if levels == 3:
        teams = [Group(name, _members(rng, names, 2, 2 if steps is None else steps, 8)) for name in _TEAMS]
        leagues = _LEAGUES
        top = Group("", (Group(leagues[0], tuple(teams[:2])), Group(leagues[1], tuple(teams[2:]))))
        kind = "leagues"
    else:
        count = rng.choice(WIDTHS) if width is None else width
        sizes = [rng.randint(2, 3) for _ in range(count)]
        # Many members, short paths: a document should stay under a thousand tokens.
        drawn = rng.randint(2, 3) if sum(sizes) <= 6 else 2
        each = drawn if steps is None else steps
        teams = [Group(name, _members(rng, names, size, each, sum(sizes))) for name, size in zip(_TEAMS, sizes, strict=False)]
        top = Group("", tuple(teams))
        kind = "teams"
    tale, closing = rng.choice(_TALES)
    everybody = f"both {kind}" if len(top.members) == 2 else f"all {kind}"
    question = f"{top.question(tale)} {closing.format(all=everybody)}"
    return forked("nested", question, str(top.result), top.block(), IntegerRule(top.result))


def _members(rng: Random, names: Iterator[str], size: int, steps: int, everybody: int) -> tuple[Calculation, ...]:
    limit = min(LIMIT, MAX_TOTAL // everybody)
    return tuple(draw_calculation(rng, next(names), steps, limit) for _ in range(size))
