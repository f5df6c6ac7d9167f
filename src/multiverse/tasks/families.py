"""Streams of problems: the families, their allowed widths and depths, and the split of a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from . import cases, chain, countdown, nested, worksheet
from .problem import SPLITS, Problem, Split, split_of

_MODULES = {"worksheet": worksheet, "cases": cases, "countdown": countdown, "nested": nested, "chain": chain}

FAMILIES = tuple(_MODULES)

WIDTHS: dict[str, tuple[int, ...]] = {family: getattr(module, "WIDTHS", ()) for family, module in _MODULES.items()}
"""Allowed widths of a family; empty if the width cannot be chosen."""

DEPTHS: dict[str, tuple[int, ...]] = {family: getattr(module, "DEPTHS", ()) for family, module in _MODULES.items()}
"""Allowed depths of a family; empty if the depth cannot be chosen."""


def problems(
    family: str, *, seed: int, split: Split = "test", width: int | None = None, depth: int | None = None
) -> Iterator[Problem]:
    """An endless stream of problems of one family, the same for the same arguments.

    A question may come up again, the more so in small families; it never comes up in both splits.

    Args:
        family: one of `FAMILIES`.
        seed: which stream.
        split: which side of the split its questions belong to.
        width: how wide a problem is (see `WIDTHS`); drawn when `None`.
        depth: how deep its blocks nest (see `DEPTHS`); drawn when `None`.

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
    return _stream(family, seed, split, width, depth)


def generate(
    family: str, n: int, *, seed: int, split: Split = "test", width: int | None = None, depth: int | None = None
) -> list[Problem]:
    """The first `n` problems of a stream (same arguments and errors as `problems`)."""
    if n < 0:
        raise ValueError(f"n is {n}: allowed are 0 and above")
    return list(islice(problems(family, seed=seed, split=split, width=width, depth=depth), n))


def _check(knob: str, value: int | None, family: str, allowed: tuple[int, ...]) -> None:
    if value is None or value in allowed:
        return
    if not allowed:
        raise ValueError(f"{knob} {value} given, but family {family!r} has no {knob}: leave it out")
    raise ValueError(f"{knob} {value} is out of range for family {family!r}: allowed are {', '.join(map(str, allowed))}")


def _stream(family: str, seed: int, split: Split, width: int | None, depth: int | None) -> Iterator[Problem]:
    # A text as seed is hashed the same way in every process and on every machine.
    rng = Random(f"{family}/{seed}/{split}")
    draw: Callable[..., Problem] = _MODULES[family].draw
    options = {name: value for name, value in (("width", width), ("depth", depth)) if value is not None}
    while True:
        problem = draw(rng, **options)
        if split_of(problem.question) == split:
            yield problem
