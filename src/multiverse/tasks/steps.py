"""Steps on one number: how they are drawn, how a question words them, and how a solution works them out.

Every step is a small fact (numbers of at most two digits, one operation), and the working names the operation before
it does it, so that each token can be copied or looked up. Values stay between 1 and the limit, since
doubling and halving do not change a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

LIMIT = 99
"""The largest value a chain of steps may reach unless a family asks for less."""

MAX_TERM = 20
"""The largest number that one step adds or takes away."""

_WEIGHTS = {"add": 4, "take": 4, "double": 3, "triple": 2, "halve": 3}
_FACTORS = {"double": ("*", 2), "triple": ("*", 3), "halve": ("/", 2)}


@dataclass(frozen=True)
class Step:
    """One operation: `kind` is add, take, double, triple or halve; `term` counts for add and take only."""

    kind: str
    term: int = 0

    @property
    def short(self) -> str:
        """As a solution names it: ``add 5``, ``double``."""
        return self.kind if self.kind in _FACTORS else f"{self.kind} {self.term}"

    @property
    def command(self) -> str:
        """As a question orders it: ``take away 5``, ``double it``."""
        if self.kind in _FACTORS:
            return f"{self.kind} it"
        return f"add {self.term}" if self.kind == "add" else f"take away {self.term}"

    @property
    def deed(self) -> str:
        """Wording in a question: ``takes away 5``, ``doubles it``."""
        verb, rest = self.command.split(" ", 1)
        return f"{verb}s {rest}"

    def apply(self, value: int) -> int:
        if self.kind in _FACTORS:
            operator, factor = _FACTORS[self.kind]
            return value * factor if operator == "*" else value // factor
        return value + self.term if self.kind == "add" else value - self.term

    def working(self, value: int) -> str:
        """``add 5: 7+5=12``."""
        operator, operand = _FACTORS.get(self.kind, ("+" if self.kind == "add" else "-", self.term))
        return f"{self.short}: {value}{operator}{operand}={self.apply(value)}"


def draw_steps(
    rng: Random, values: Sequence[int], count: int, limit: int = LIMIT, terms: tuple[int, int] = (1, MAX_TERM)
) -> tuple[Step, ...]:
    """`count` steps that keep every one of `values` between 1 and `limit`; `terms`: the least and the most of one step."""
    least, most = terms
    steps: list[Step] = []
    now = list(values)
    for _ in range(count):
        low, high = min(now), max(now)
        kinds = [
            kind
            for kind, possible in (
                ("add", high + least <= limit),
                ("take", low - least >= 1),
                ("double", high * 2 <= limit),
                ("triple", high * 3 <= limit),
                ("halve", all(value % 2 == 0 for value in now)),
            )
            if possible
        ]
        if not kinds and least > 1:
            # Several values far apart can leave no room for a large number: from the start, otherwise.
            return draw_steps(rng, values, count, limit, terms)
        assert kinds, f"no step keeps {now} between 1 and {limit}"
        kind = rng.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
        room = {"add": limit - high, "take": low - 1}.get(kind)
        step = Step(kind) if room is None else Step(kind, rng.randint(least, min(most, room)))
        steps.append(step)
        now = [step.apply(value) for value in now]
    return tuple(steps)


def work_out(start: int, steps: Sequence[Step]) -> tuple[str, int]:
    """``add 5: 7+5=12, double: 12*2=24`` and the value at the end."""
    parts, value = [], start
    for step in steps:
        parts.append(step.working(value))
        value = step.apply(value)
    return ", ".join(parts), value


@dataclass(frozen=True)
class Calculation:
    """A chain of steps of one person: the content of a path."""

    name: str
    start: int
    steps: tuple[Step, ...]

    @property
    def result(self) -> int:
        return work_out(self.start, self.steps)[1]

    @property
    def working(self) -> str:
        """``Mia: 7, add 5: 7+5=12, double: 12*2=24.``"""
        return f"{self.name}: {self.start}, {work_out(self.start, self.steps)[0]}."


def draw_calculation(rng: Random, name: str, count: int, limit: int = LIMIT) -> Calculation:
    """A calculation of `count` steps whose values stay between 1 and `limit`."""
    start = rng.randint(2, min(30, limit))
    return Calculation(name, start, draw_steps(rng, (start,), count, limit))


# fmt: off
NAMES = (
    "Mia", "Tom", "Ana", "Ben", "Eva", "Leo", "Zoe", "Max", "Ida",
)
# fmt: on
"""Who calculates, in this order: the third person of every question is Ana. Short, so that a name costs next to nothing in
an outline, and always the same, since a model of this size learns to calculate long before it learns to copy names."""
