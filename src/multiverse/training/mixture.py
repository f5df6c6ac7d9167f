"""In which order, and in which form, examples are shown. No torch here.

Every example exists twice: as it forks, and as its sequential twin. A run is a list of phases; in each phase every
example comes once, in one of the two forms. The paper's schedule leads from one form to the other in eight phases: sequential
twice, a tenth parallel, one half, the other half, nine tenths, parallel twice (arXiv 2506.09991, section 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from ..prompting import Mode

PAPER = (0.0, 0.0, 0.1, 0.5, 0.5, 0.9, 1.0, 1.0)
"""Share of examples in parallel form in each of the paper's eight phases."""


class Shown(NamedTuple):
    """One example in one form.

    Attributes:
        example: its index in the data set.
    """

    example: int
    mode: Mode


def schedule(name: str | Sequence[float], phases: int = 8) -> tuple[float, ...]:
    """Shares of parallel examples, phase by phase.

    Args:
        name: ``paper``, ``parallel``, ``sequential``, ``half``, or the shares themselves.
        phases: how many phases a mixture that stays the same has.

    Raises:
        ValueError: no such mixture, or a share outside 0 to 1.
    """
    constant = {"parallel": 1.0, "sequential": 0.0, "half": 0.5}
    if isinstance(name, str):
        if name == "paper":
            return PAPER
        if name not in constant:
            raise ValueError(f"mixture={name!r} is not known: use paper, {', '.join(constant)}, or a list of shares")
        return (constant[name],) * phases
    shares = tuple(map(float, name))
    wrong = [share for share in shares if not 0 <= share <= 1]
    if wrong or not shares:
        raise ValueError(f"mixture={list(name)!r} is not valid: give one share of parallel examples, 0 to 1, for each phase")
    return shares


def order(examples: int, shares: Sequence[float], seed: int, *, shuffled: bool = True) -> Iterator[Shown]:
    """Every example once a phase, in the form that its phase gives it.

    A share that comes back takes the other examples: after two phases of one half, each example has been shown in both forms.

    Args:
        shuffled: whether the examples of a phase are shuffled; their forms are drawn in any case.
    """
    times: dict[float, int] = {}
    for phase, share in enumerate(shares):
        # One ranking a share, so that its next phase can go on where this one ends.
        ranks = list(range(examples))
        Random(f"forms/{seed}/{share}").shuffle(ranks)
        parallel = round(share * examples)
        offset = times.get(share, 0) * parallel
        times[share] = times.get(share, 0) + 1
        indices = list(range(examples))
        if shuffled:
            Random(f"order/{seed}/{phase}").shuffle(indices)
        for index in indices:
            yield Shown(index, "parallel" if (ranks[index] - offset) % examples < parallel else "sequential")
