"""Least-squares fit of latency per token at parallelism x as a / x + b (the paper's Figure 8)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import linregress


class Fit(NamedTuple):
    """Parameters of a / x + b.

    Attributes:
        a, b: in the unit of the latencies.
        a_error, b_error: their standard errors; NaN for two points.
        r2: share of the variance that the fit explains.
        points: number of points.
    """

    a: float
    b: float
    a_error: float
    b_error: float
    r2: float
    points: int

    def at(self, parallelism: float) -> float:
        """The fitted latency."""
        return self.a / parallelism + self.b

    def __str__(self) -> str:
        return f"({self.a:.2f} ± {self.a_error:.2f}) / x + ({self.b:.2f} ± {self.b_error:.2f}) ms, R² {self.r2:.4f}"


def fit(parallelisms: Sequence[float], latencies: Sequence[float]) -> Fit:
    """Fit points with at least two different parallelisms; raises `ValueError` for fewer."""
    if len(set(parallelisms)) < 2:
        raise ValueError("a fit of a / x + b needs latencies at two different parallelisms")
    found = linregress([1 / x for x in parallelisms], latencies)
    exact = len(parallelisms) == 2
    return Fit(
        a=float(found.slope),
        b=float(found.intercept),
        a_error=math.nan if exact else float(found.stderr),
        b_error=math.nan if exact else float(found.intercept_stderr),
        r2=float(found.rvalue**2),
        points=len(parallelisms),
    )
