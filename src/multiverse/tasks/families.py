"""Streams of problems: the families, their allowed widths and depths, and the split of a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random

from . import cases, chain, countdown, nested, worksheet
from .natural import cases as natural_cases
from .natural import chain as natural_chain
from .natural import countdown as natural_countdown
from .natural import listing, lookup, sorting
from .natural import nested as natural_nested
from .natural import worksheet as natural_worksheet
from .problem import SPLITS, Problem, Split
from .wording import Draws, Style, Wording

_PLAIN = {"worksheet": worksheet, "cases": cases, "countdown": countdown, "nested": nested, "chain": chain}
_LANGUAGE = {"lookup": lookup, "listing": listing, "sorting": sorting}
_NATURAL = {
    "worksheet": natural_worksheet,
    "cases": natural_cases,
    "countdown": natural_countdown,
    "nested": natural_nested,
    "chain": natural_chain,
    **_LANGUAGE,
}
_MODULES = {**_PLAIN, **_LANGUAGE}

FAMILIES = tuple(_MODULES)

CALCULATIONS = tuple(_PLAIN)
"""The families that have plain wording, which the embedded model was trained on. The parts of the others are language."""

WIDTHS: dict[str, tuple[int, ...]] = {family: getattr(module, "WIDTHS", ()) for family, module in _MODULES.items()}
"""Allowed widths of a family; empty if the width cannot be chosen."""

DEPTHS: dict[str, tuple[int, ...]] = {family: getattr(module, "DEPTHS", ()) for family, module in _MODULES.items()}
"""Allowed depths of a family; empty if the depth cannot be chosen."""

STEPS: dict[str, Sequence[int]] = {family: getattr(module, "STEPS", ()) for family, module in _MODULES.items()}
"""Allowed numbers of steps of a family's calculations; empty if it has none."""


def problems(
    family: str,
    *,
    seed: int,
    split: Split = "test",
    width: int | None = None,
    depth: int | None = None,
    wording: Wording | None = None,
) -> Iterator[Problem]:
    """An endless stream of problems of one family, the same for the same arguments.

    A question may come up again, the more so in small families; it never comes up in both splits.

    Args:
        family: one of `FAMILIES`.
        seed: which stream.
        split: which side of the split its questions belong to.
        width: how wide a problem is (see `WIDTHS`); drawn when `None`.
        depth: how deep its blocks nest (see `DEPTHS`); drawn when `None`.
        wording: how it is worded; the plain wording, where the family has one, when `None`.

    Raises:
        ValueError: a value the family does not know, at the call and not at the first problem.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: allowed are {', '.join(FAMILIES)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: allowed are {', '.join(SPLITS)}")
    _check("width", width, family, WIDTHS[family])
    _check("depth", depth, family, DEPTHS[family])
    if depth == 3 and width == 3:
        raise ValueError(f"width 3 is too wide for family {family!r} at depth 3: allowed is 2")
    wording = Wording() if wording is None else wording
    _check("steps", wording.steps, family, STEPS[family])
    shape = {name: value for name, value in (("width", width), ("depth", depth)) if value is not None}
    if _style(family, wording) == "natural":
        return _natural(family, seed, split, shape, wording)
    if wording.steps is not None:
        shape["steps"] = wording.steps
    return _plain(family, seed, split, shape)


def generate(
    family: str,
    n: int,
    *,
    seed: int,
    split: Split = "test",
    width: int | None = None,
    depth: int | None = None,
    wording: Wording | None = None,
) -> list[Problem]:
    """The first `n` problems of a stream (same arguments and errors as `problems`)."""
    if n < 0:
        raise ValueError(f"n is {n}: allowed are 0 and above")
    return list(islice(problems(family, seed=seed, split=split, width=width, depth=depth, wording=wording), n))


def _check(knob: str, value: int | None, family: str, allowed: Sequence[int]) -> None:
    if value is None or value in allowed:
        return
    if not allowed:
        raise ValueError(f"{knob} {value} given, but family {family!r} has no {knob}: leave it out")
    raise ValueError(f"{knob} {value} is out of range for family {family!r}: allowed are {', '.join(map(str, allowed))}")


def _style(family: str, wording: Wording) -> Style:
    """Plain or natural, checked against the family and against the parts that were chosen."""
    if family in _LANGUAGE:
        if wording.style == "plain":
            raise ValueError(f"wording 'plain' given, but family {family!r} has natural wording only: leave it out")
        return "natural"
    if wording.style == "natural":
        return "natural"
    for name in ("vocabulary", "phrasings", "numbers"):
        if (value := getattr(wording, name)) is not None:
            raise ValueError(f"{name} {value!r} given, but plain wording has only one of them: add wording 'natural'")
    return "plain"


def _plain(family: str, seed: int, split: Split, shape: dict[str, int]) -> Iterator[Problem]:
    # A text as seed is hashed the same way in every process and on every machine.
    rng = Random(f"{family}/{seed}/{split}")
    draw: Callable[..., Problem] = _PLAIN[family].draw
    while True:
        problem = draw(rng, **shape)
        if problem.split == split:
            yield problem


def _natural(family: str, seed: int, split: Split, shape: dict[str, int], wording: Wording) -> Iterator[Problem]:
    draws = Draws.of(Random(f"{family}/natural/{seed}/{split}"), wording, split)
    draw: Callable[..., Problem] = _NATURAL[family].draw
    while True:
        problem = draw(draws, **shape)
        if problem.split == split:
            yield problem
