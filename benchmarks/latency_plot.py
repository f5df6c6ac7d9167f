"""A run of `benchmarks.latency` as a figure."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

if TYPE_CHECKING:
    from benchmarks.latency import Run

COLOURS = ("#0b62d6", "#d1690e", "#1a8754", "#8250a8")
GREY = "#8c959f"


def draw(run: Run, path: Path) -> None:
    """Write the figure, as .svg, .png or .pdf."""
    parts = [part for part in (_latency, _batches) if run.of("latency" if part is _latency else "batch")]
    figure = Figure(figsize=(11.5 if len(parts) > 1 else 7.5, 5.2), layout="constrained")
    figure.suptitle(f"Shape {run.settings.shape}, bf16, random weights, scripted structure", fontsize=13, fontweight="bold")
    for axis, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        part(axis, run)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e8ec")
        axis.set_axisbelow(True)
    clock = "" if run.settings.clock == "wall" else " Processor time of one process."
    note = f"Medians of {run.settings.repeats} interleaved repeats; bars: lowest to highest.{clock}\n{run.machine}"
    figure.supxlabel(note, fontsize=8.5, color="#59636e")
    figure.savefig(path, dpi=150)


def _latency(axis: Any, run: Run) -> None:
    most = max(one.parallelism for _, one in run.of("latency"))
    xs = np.linspace(1, most, 200)
    fits = run.fits()
    for colour, context in zip(COLOURS, run.settings.contexts, strict=False):
        points = sorted((one.parallelism, one.ms) for case, one in run.of("latency") if case.context == context)
        _dots(axis, points, colour, f"context {context:,}")
        if context in fits:
            axis.plot(xs, [fits[context].at(x) for x in xs], color=colour, linewidth=1.4, label=_formula(fits[context]))
    axis.set_title("One document", loc="left")
    axis.set_xlabel("parallelism x: tokens over the longest chain of them")
    axis.set_ylabel("ms per token")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


def _formula(fit: Any) -> str:
    return f"{fit.a:.1f} / x + {fit.b:.1f} ms, R² {fit.r2:.3f}"


def _batches(axis: Any, run: Run) -> None:
    speedups = run.speedups()
    asked_for = [asked for asked in run.settings.batch_parallelisms if asked != 1]
    shades = colormaps["viridis"](np.linspace(0.1, 0.8, len(asked_for)))
    for colour, asked in zip(shades, asked_for, strict=True):
        cases = {case.batch: values for case, values in speedups.items() if case.asked == asked}
        axis.axhline(asked, color=colour, linewidth=1, dashes=(2, 3))
        _dots(axis, sorted(cases.items()), colour, f"parallelism {asked:g}", line=True)
    axis.axhline(1, color=GREY, linewidth=1)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(list(run.settings.batches)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_title(f"Documents side by side, context {run.settings.batch_context:,}", loc="left")
    axis.set_xlabel("documents in the batch")
    axis.set_ylabel("speed-up over sequential (dotted: the parallelism)")
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[::-1], labels[::-1], frameon=False, loc="lower left")


def _dots(axis: Any, points: list[tuple[float, list[float]]], colour: Any, label: str, *, line: bool = False) -> None:
    """Medians with bars from the lowest to the highest repeat."""
    middle = [median(values) for _, values in points]
    below = [m - min(values) for m, (_, values) in zip(middle, points, strict=True)]
    above = [max(values) - m for m, (_, values) in zip(middle, points, strict=True)]
    style = "o-" if line else "o"
    axis.errorbar([x for x, _ in points], middle, yerr=[below, above], fmt=style, color=colour, label=label, capsize=2.5)
