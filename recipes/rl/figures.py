"""Comparisons of two models on the same problems: differences in pairs, with standard errors. Pure Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple


class Mean(NamedTuple):
    """A value and its standard error."""

    value: float
    error: float

    def show(self, digits: int = 1, scale: float = 1, sign: bool = False) -> str:
        """``93.2 ± 0.8``."""
        value = f"{scale * self.value:{'+' if sign else ''}.{digits}f}"
        return f"{value} ± {scale * self.error:.{digits}f}"


def mean(values: Sequence[float]) -> Mean:
    """The mean over problems."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Mean(fmean(values), error)


def difference(before: Sequence[float], after: Sequence[float]) -> Mean:
    """The mean of what changed, problem by problem."""
    return mean([new - old for old, new in zip(before, after, strict=True)])


def ratio(before: Sequence[float], after: Sequence[float]) -> Mean:
    """The mean after over the mean before; the error to first order (delta method), problem by problem."""
    value = fmean(after) / fmean(before)
    residuals = [(new - value * old) / fmean(before) for old, new in zip(before, after, strict=True)]
    return Mean(value, mean(residuals).error)
