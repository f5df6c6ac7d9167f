"""Statistics of a data set as one figure of histograms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..errors import DataError, require
from .statistics import NAMES, Statistics
from .write import whole

FORMATS = (".svg", ".png", ".pdf")
BLUE, ORANGE = "#3b75af", "#ee8636"
_WIDEST = 24  # a wider range of counts is binned


def check_format(path: Path) -> None:
    """Raise `DataError` unless the file's suffix is that of a supported figure format."""
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{str(path)!r} is not a supported figure: use {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")


def plot(statistics: Statistics, path: Path, *, title: str) -> None:
    """Plot the statistics of at least one document.

    Args:
        path: an .svg, .png or .pdf file.
        title: title of the figure.

    Raises:
        DataError: the file cannot be written, or its suffix is not supported.
        ExtraError: matplotlib is not installed.
    """
    check_format(path)
    figure = require("matplotlib.figure", "train").Figure(figsize=(11, 6.4), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    axes = figure.subplots(2, 3).flatten()
    values = statistics.values
    _continuous(axes[0], {"": values["parallelism"]}, "tokens / critical path", whole_numbers=False)
    lengths = {"all": values["total_tokens"], "critical path": values["critical_path_tokens"]}
    _continuous(axes[1], lengths, "tokens a document", whole_numbers=True)
    axes[0].set_title(f"Parallelism (mean {statistics.summaries['parallelism'].mean:.2f})")
    axes[1].set_title("Length and critical path")
    counts = (("blocks", "a document"), ("branches", "a document"), ("paths_per_block", ""), ("depth", "of the deepest block"))
    for axis, (name, of) in zip(axes[2:], counts, strict=True):
        _counted(axis, values[name], f"{NAMES[name]} {of}".strip())
        axis.set_title(NAMES[name].capitalize())
        axis.set_ylabel("blocks" if name == "paths_per_block" else "documents")
    for axis in axes:
        axis.set_ylim(bottom=0, top=max(1.05, axis.get_ylim()[1]))
        axis.spines[["top", "right"]].set_visible(False)
        axis.yaxis.set_major_locator(require("matplotlib.ticker", "train").MaxNLocator(integer=True, nbins=6))
    with whole(path) as part:
        figure.savefig(part, format=path.suffix.lower().removeprefix("."), dpi=150)


def _continuous(axis: Any, series: dict[str, list[float]], label: str, *, whole_numbers: bool) -> None:
    """Overlaid histograms with the same bins."""
    everything = [value for values in series.values() for value in values]
    low, high = min(everything), max(everything)
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = min(20, 4 + 2 * math.isqrt(len(everything) // len(series)))
    edges = [low + (high - low) * index / bins for index in range(bins)] + [high]
    for (name, values), color in zip(series.items(), (BLUE, ORANGE), strict=False):
        axis.hist(values, bins=edges, color=color, alpha=0.65, edgecolor="white", label=name)
    if len(series) > 1:
        axis.legend(frameon=False)
    axis.set_xlabel(label)
    axis.set_ylabel("documents")
    ticker = require("matplotlib.ticker", "train")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(nbins=5, integer=whole_numbers, min_n_ticks=1))
    if high >= 1000:
        axis.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def _counted(axis: Any, values: list[float], label: str) -> None:
    """A histogram of whole numbers, one bar each, or several per bar for a wide range."""
    low, high = int(min(values, default=0)), int(max(values, default=0))
    step = 1 + (high - low) // _WIDEST
    edges = [start - 0.5 for start in range(low, high + step + 1, step)]
    axis.hist(values, bins=edges, color=BLUE, alpha=0.8, edgecolor="white", rwidth=0.85 if step == 1 else 1.0)
    axis.set_xlabel(label)
    axis.set_xlim(low - 0.75, max(edges[-1], low + 1) + 0.25)
    axis.xaxis.set_major_locator(require("matplotlib.ticker", "train").MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
