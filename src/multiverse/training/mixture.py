"""The order in which examples are shown, and in which form. No torch.

Every example has a parallel form and a sequential one. In each epoch every example comes once, in one of the two. The paper's
mixture leads from one form to the other in eight epochs: sequential twice, a tenth parallel, one half, the other half, nine
tenths, parallel twice (arXiv 2506.09991, section 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

from ..prompting import Mode

PAPER = (0.0, 0.0, 0.1, 0.5, 0.5, 0.9, 1.0, 1.0)
"""Fraction of examples in parallel form in each of the paper's eight epochs."""


class Variant(NamedTuple):
    """One example in one form.

    Attributes:
        example: its index in the data set.
    """

    example: int
    mode: Mode


def parallel_shares(name: str | Sequence[float], epochs: int = 8) -> tuple[float, ...]:
    """Fraction of parallel examples in each epoch.

    Args:
        name: ``paper``, ``parallel``, ``sequential``, ``half``, or the fractions themselves.
        epochs: number of epochs, where the fraction is the same in all of them.

    Raises:
        ValueError: the mixture is not known, or a fraction is not from 0 to 1.
    """
    constant = {"parallel": 1.0, "sequential": 0.0, "half": 0.5}
    if isinstance(name, str):
        if name == "paper":
            return PAPER
        if name not in constant:
            raise ValueError(f"mixture={name!r} is not known: use paper, {', '.join(constant)}, or a list of fractions")
        return (constant[name],) * epochs
    shares = tuple(map(float, name))
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"mixture={list(name)!r} is not valid: give the fraction of parallel examples, 0 to 1, of each epoch")
    return shares


def variants(examples: int, shares: Sequence[float], seed: int, *, shuffled: bool = True) -> Iterator[Variant]:
    """Every example once per epoch, in a form drawn at random with the epoch's fraction of parallel ones.

    Epochs with the same fraction take different examples: after two epochs of one half, each example has come in both forms.

    Args:
        examples: number of examples.
        shares: fraction of parallel examples in each epoch.
        shuffled: whether the order within an epoch is random; the forms are drawn in any case.
    """
    uses: dict[float, int] = {}
    for epoch, share in enumerate(shares):
        # One ranking per fraction, so that its next epoch can continue where this one ends.
        ranks = list(range(examples))
        Random(f"forms/{seed}/{share}").shuffle(ranks)
        parallel = round(share * examples)
        offset = uses.get(share, 0) * parallel
        uses[share] = uses.get(share, 0) + 1
        indices = list(range(examples))
        if shuffled:
            Random(f"order/{seed}/{epoch}").shuffle(indices)
        for index in indices:
            yield Variant(index, "parallel" if (ranks[index] - offset) % examples < parallel else "sequential")
