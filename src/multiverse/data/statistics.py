"""Statistics of a data set: how much its documents fork, how deep, and their parallelism."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any, NamedTuple

from ..structure import Shape, TokenDialect, measure
from .row import Row


class Summary(NamedTuple):
    """Summary statistics; `p90` is the smallest value that 90% of the values do not exceed."""

    n: int
    mean: float
    median: float
    min: float
    max: float
    p90: float


def summarise(values: Sequence[float]) -> Summary:
    """A summary of at least one value."""
    ordered = sorted(values)
    p90 = ordered[math.ceil(0.9 * len(ordered)) - 1]
    return Summary(len(ordered), fmean(ordered), median(ordered), ordered[0], ordered[-1], p90)


@dataclass(frozen=True)
class Statistics:
    """Shapes of the documents of a data set, without prompts.

    Attributes:
        shapes: one per document, in order.
    """

    shapes: tuple[Shape, ...]

    @property
    def forked(self) -> float:
        """Fraction of the documents that fork."""
        return fmean(shape.blocks > 0 for shape in self.shapes) if self.shapes else 0.0

    @cached_property
    def values(self) -> dict[str, list[float]]:
        """Under each name a value per document; under `paths_per_block`, one per block."""
        per_document = (
            "total_tokens",
            "critical_path_tokens",
            "critical_path_steps",
            "parallelism",
            "blocks",
            "branches",
            "depth",
        )
        values: dict[str, list[float]] = {name: [getattr(shape, name) for shape in self.shapes] for name in per_document}
        values["paths_per_block"] = [width for shape in self.shapes for width in shape.widths]
        return values

    @property
    def summaries(self) -> dict[str, Summary]:
        """A summary under each name that has values."""
        return {name: summarise(values) for name, values in self.values.items() if values}

    def as_json(self) -> dict[str, Any]:
        """The statistics as JSON values."""
        summaries = {name: summary._asdict() for name, summary in self.summaries.items()}
        return {"documents": len(self.shapes), "forked": self.forked, **summaries}


def survey(rows: Iterable[Row], tokens: TokenDialect) -> Statistics:
    """The statistics of rows in a tokenizer's tokens (or in words, see `structure.word_tokens`)."""
    return Statistics(tuple(measure(row.document, tokens) for row in rows))


def cells(name: str, summary: Summary | None) -> list[str]:
    """Mean, median, min, p90 and max as text, rounded for a table."""
    if summary is None:
        return ["-"] * 5
    digits = 2 if name == "parallelism" else 0
    spread = [f"{value:,.{digits}f}" for value in (summary.min, summary.p90, summary.max)]
    middle = f"{summary.median:,.{digits}f}" if float(summary.median).is_integer() else f"{summary.median:,.{digits or 1}f}"
    few = digits or (0 if summary.max >= 100 else 2)
    return [f"{summary.mean:,.{few}f}", middle, *spread]


NAMES = {
    "total_tokens": "tokens",
    "critical_path_tokens": "critical path",
    "critical_path_steps": "steps",
    "parallelism": "parallelism",
    "blocks": "blocks",
    "branches": "paths",
    "paths_per_block": "paths a block",
    "depth": "depth",
}
"""Names of the statistics in tables and plots, in order."""
