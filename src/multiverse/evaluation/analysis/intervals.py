"""Confidence intervals of shares, for answers that come in groups (Wilson's, which stays within 0 and 1)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ..statistics import LEVEL, wilson

_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Share:
    """A share of `n` answers, with its confidence interval; all three are NaN when `n` is 0."""

    value: float
    low: float
    high: float
    n: int


def share(right: Sequence[bool], groups: Sequence[Hashable] | None = None) -> Share:
    """The share of `right` answers.

    Args:
        groups: which group (document, question) each answer belongs to. Answers of one group resemble each other, so they count
            for less: Wilson's n is divided by the design effect, the variance between groups over that of independent
            answers (Kish 1965), where that is above 1. Where all answers are the same, n is the number of groups.
    """
    n = len(right)
    if n == 0:
        return Share(math.nan, math.nan, math.nan, 0)
    mean = sum(right) / n
    size = float(n)
    if groups is not None:
        errors: dict[Hashable, float] = {}
        for value, group in zip(right, groups, strict=True):
            errors[group] = errors.get(group, 0.0) + value - mean
        independent = n * mean * (1 - mean)
        between = sum(error**2 for error in errors.values()) * len(errors) / max(1, len(errors) - 1)
        size = n * min(1.0, independent / between) if independent and between else float(len(errors))
    return Share(mean, *wilson(mean, size, _QUANTILE), n)
