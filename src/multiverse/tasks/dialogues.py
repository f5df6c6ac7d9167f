"""Dialogues over the task families: new questions, follow-ups that need the answer before, and corrections.

Each turn is a problem of its own, with both ways of solving it and a rule for its answer, so that a dialogue can be judged by
code and trained on. A turn belongs to the same side of the split as all others of its dialogue, by its own numbers and those
that it goes on from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal, NamedTuple, get_args

from multiverse.structure.tree import Block

from . import cases, countdown, nested
from .problem import SPLITS, Problem, Split, forked, listing, problem, running_sum
from .rules import IntegerRule
from .steps import LIMIT, NAMES, Calculation, Step, draw_steps, work_out
from .worksheet import MAX_TOTAL

Kind = Literal["new", "follow-up", "correction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TURNS = 4

_LARGEST_KNOWN = 60
"""Largest answer that a follow-up goes on from: steps need room above it."""
_LEAST_KNOWN = 2

_CHAINS = (
    "Start with {start}. {first}, then {rest}. What do you get?",
    "Begin at {start}. {first}, then {rest}. Where do you end?",
)
_FOLLOWING = (
    "Go on from your last answer. {first}, then {rest}. What do you get?",
    "Take your last answer. {first}, then {rest}. What is it now?",
)
_TALE = "{name} starts with {start}, {deeds}."
_FOLLOWING_TALE = "{name} starts with your last answer, {deeds}."
_TOGETHER = "What do they have together?"
_CORRECTIONS = (
    "No, I meant: start with {start}. What do you get then?",
    "Sorry, it should be {start} at the start. What is the result then?",
)
_CORRECTED_TALES = (
    "No, {name} starts with {start}. What do they have together then?",
    "Sorry, {name} starts with {start}, not {before}. What is the total then?",
)


@dataclass(frozen=True)
class Exchange:
    """One turn of a dialogue.

    Attributes:
        kind: ``new`` is a question by itself, a ``follow-up`` goes on from the last answer, a ``correction`` changes a number
        of
            the question before.
        problem: its question, answer and solutions; of a follow-up or a correction, the question does not stand alone.
    """

    kind: Kind
    problem: Problem


class _Asked(NamedTuple):
    """A question that can be corrected: its calculations, and for each another start that its steps allow."""

    calculations: tuple[Calculation, ...]
    others: tuple[int, ...]


def dialogues(seed: int, *, split: Split = "test", turns: int = TURNS) -> Iterator[tuple[Exchange, ...]]:
    """An endless stream of dialogues, the same for the same arguments.

    The first turn is a new question. After that the kinds take turns, as far as the turn before allows them.

    Raises:
        ValueError: the split is not known, or there are no turns; at the call and not at the first dialogue.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: allowed are {', '.join(SPLITS)}")
    if turns < 1:
        raise ValueError(f"turns is {turns}: allowed are 1 and above")
    return _dialogues(Random(f"dialogues/{seed}/{split}"), split, turns)


def generate_dialogues(n: int, seed: int, *, split: Split = "test", turns: int = TURNS) -> list[tuple[Exchange, ...]]:
    """The first `n` of a stream (same arguments and errors as `dialogues`)."""
    return list(islice(dialogues(seed, split=split, turns=turns), n))


def _dialogues(rng: Random, split: Split, turns: int) -> Iterator[tuple[Exchange, ...]]:
    while True:
        found: list[Exchange] = []
        used: Counter[Kind] = Counter()
        asked: _Asked | None = None
        for number in range(turns):
            known = _known(found[-1].problem) if found else None
            possible: list[Kind] = ["new"]
            if known is not None:
                possible.append("follow-up")
            if asked is not None:
                possible.append("correction")
            # Those that have come least often; the first turn is no choice. Few answers allow a follow-up.
            fewest = min(used[kind] for kind in possible)
            rarest = [kind for kind in possible if used[kind] == fewest]
            kind = rng.choices(rarest, [4 if kind == "follow-up" else 1 for kind in rarest])[0]
            exchange, asked = _drawn(rng, kind, known, asked, split)
            found.append(exchange)
            used[kind] += number > 0
        yield tuple(found)


def _known(last: Problem) -> int | None:
    """The answer that a follow-up goes on from."""
    value = last.rule.value if isinstance(last.rule, IntegerRule) else None
    return value if value is not None and _LEAST_KNOWN <= value <= _LARGEST_KNOWN else None


def _drawn(rng: Random, kind: Kind, known: int | None, asked: _Asked | None, split: Split) -> tuple[Exchange, _Asked | None]:
    """A turn of this kind on this side of the split."""
    draws: dict[Kind, Callable[[], tuple[Problem, _Asked | None]]] = {
        "new": lambda: _new(rng),
        "follow-up": lambda: (_follow_up(rng, known or 0), None),
        "correction": lambda: (_correction(rng, asked), None),
    }
    while True:
        own, correctable = draws[kind]()
        # A correction has few numbers to draw from: its question decides, whose side is right already.
        if kind == "correction" or own.split == split:
            return Exchange(kind, own), correctable


def _new(rng: Random) -> tuple[Problem, _Asked | None]:
    family = rng.choices(("worksheet", "chain", "countdown", "nested", "cases"), (4, 4, 1, 1, 1))[0]
    others: dict[str, Callable[[Random], Problem]] = {
        "countdown": countdown.draw,
        "nested": lambda own: nested.draw(own, width=2),
        "cases": cases.draw,
    }
    if family in others:
        return others[family](rng), None
    count = 1 if family == "chain" else rng.randint(2, 4)
    limit = min(LIMIT, MAX_TOTAL // count)
    made = [_with_other(rng, name, rng.randint(3, 5), limit) for name in NAMES[:count]]
    asked = _Asked(tuple(own for own, _ in made), tuple(other for _, other in made))
    if family == "chain":
        (chain,) = asked.calculations
        return _chain(rng.choice(_CHAINS), chain.start, chain.steps), asked
    told = " ".join(
        _TALE.format(name=own.name, start=own.start, deeds=listing([step.deed for step in own.steps]))
        for own in asked.calculations
    )
    return _worksheet(f"{told} {_TOGETHER}", asked.calculations), asked


def _with_other(rng: Random, name: str, count: int, limit: int) -> tuple[Calculation, int]:
    """A calculation, and another start with which its steps stay within the limit, too."""
    start, other = rng.sample(range(2, min(30, limit) + 1), 2)
    return Calculation(name, start, draw_steps(rng, (start, other), count, limit)), other


def _follow_up(rng: Random, known: int) -> Problem:
    if rng.random() < 0.5:
        steps = draw_steps(rng, (known,), rng.randint(2, 4))
        return _chain(rng.choice(_FOLLOWING), known, steps, (str(known),))
    count = rng.randint(2, 3)
    limit = min(LIMIT, MAX_TOTAL // count)
    calculations = tuple(
        Calculation(name, known, draw_steps(rng, (known,), rng.randint(2, 4), limit)) for name in NAMES[:count]
    )
    told = " ".join(
        _FOLLOWING_TALE.format(name=own.name, deeds=listing([step.deed for step in own.steps])) for own in calculations
    )
    return _worksheet(f"{told} {_TOGETHER}", calculations, (str(known),))


def _correction(rng: Random, asked: _Asked | None) -> Problem:
    assert asked is not None
    at = rng.randrange(len(asked.calculations))
    before, start = asked.calculations[at], asked.others[at]
    changed = Calculation(before.name, start, before.steps)
    numbers = tuple(str(own.start) for own in asked.calculations)
    if len(asked.calculations) == 1:
        return _chain(rng.choice(_CORRECTIONS), start, changed.steps, numbers)
    whole = tuple(changed if number == at else own for number, own in enumerate(asked.calculations))
    question = rng.choice(_CORRECTED_TALES).format(name=before.name, start=start, before=before.start)
    return _worksheet(question, whole, numbers)


def _chain(tale: str, start: int, steps: tuple[Step, ...], known: tuple[str, ...] = ()) -> Problem:
    """A chain, worked out in a line.

    Args:
        known: numbers that the question does not name but goes on from.
    """
    first, *rest = [step.command for step in steps]
    question = tale.format(start=start, first=first.capitalize(), rest=listing(rest))
    text, result = work_out(start, steps)
    thinking = (f"{start}, {text}.",)
    return problem("chain", question, str(result), thinking, IntegerRule(result), _instance(question, known))


def _worksheet(question: str, calculations: tuple[Calculation, ...], known: tuple[str, ...] = ()) -> Problem:
    """Several calculations side by side, and their sum."""
    conclusion, total = running_sum([own.result for own in calculations])
    block = Block(tuple(own.name for own in calculations), tuple((own.working,) for own in calculations), conclusion)
    return forked("worksheet", question, str(total), block, IntegerRule(total), _instance(question, known))


def _instance(question: str, known: tuple[str, ...]) -> tuple[str, ...] | None:
    return (*re.findall(r"[0-9]+", question), *known) if known else None
