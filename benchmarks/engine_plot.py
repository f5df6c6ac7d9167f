"""A run of `benchmarks.engine` as a figure: tokens per second against rows, and speed-up against parallelism."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter

from benchmarks.record import FORKED, LLAMA, PACKED, PLAIN, STOCK, VLLM, Case, Record

INK, GREY, GRID = "#1f2328", "#8c959f", "#e4e8ec"


class Style(NamedTuple):
    """How the line of a side is drawn."""

    colour: str
    width: float
    line: str = "-"


STYLES = {
    FORKED: Style("#0b62d6", 3),
    PLAIN: Style("#0b62d6", 1.8, "--"),
    LLAMA: Style("#d1690e", 2.2),
    VLLM: Style("#1a8754", 2.2),
    PACKED: Style("#8250a8", 1.8),
    STOCK: Style(GREY, 1.8),
}


def draw(record: Record, path: Path) -> None:
    """Write the figure, as .svg, .png or .pdf."""
    count = len(record.prefixes) + bool(record.documents)
    figure = Figure(figsize=(4.2 * count, 4.9), layout="constrained")
    figure.suptitle("Decoding, shape of Qwen2.5-0.5B, bf16, random weights", fontsize=13, fontweight="bold")
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=GRID)
        axis.set_axisbelow(True)
    for axis, prefix in zip(axes, record.prefixes, strict=False):
        _draw_speeds(axis, record, prefix)
    if record.documents:
        _draw_documents(axes[-1], record)
    axes[0].legend(frameon=False, fontsize=8.5, loc="lower right")
    repeats = "One repeat." if record.repeats == 1 else f"Medians of {record.repeats} repeats; bars: lowest to highest."
    processor = ", ".join(record.machine.split(", ")[:2])
    figure.supxlabel(f"{repeats} {processor}", fontsize=8.5, color="#59636e")
    figure.savefig(path)


def _draw_speeds(axis: Any, record: Record, prefix: int) -> None:
    for side, style in STYLES.items():
        cases = {rows: record.speeds.get(Case(side, rows, prefix), []) for rows in record.rows}
        _draw_line(axis, {float(rows): speeds for rows, speeds in cases.items() if speeds}, style, side)
    if record.rows[0] == 1 and record.bandwidth:
        label = "limit of 1 row: weights read once"
        axis.plot([1], [record.limit], marker="_", markersize=16, color=INK, linestyle="", label=label)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(FixedLocator(record.rows))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.set_major_formatter(ScalarFormatter())
    axis.set_title(f"Prefix of {prefix:,} tokens", loc="left")
    axis.set_xlabel("branches, or sequences in the batch")
    axis.set_ylabel("tokens per second")


def _draw_documents(axis: Any, record: Record) -> None:
    documents = [repeats for _, repeats in sorted(record.documents.items())]
    most = documents[-1][0].parallelism
    axis.plot([1, most], [1, most], color=GREY, linewidth=1.4, linestyle=":", label="speed-up equal to parallelism")
    points = {repeats[0].parallelism: [document.speedup for document in repeats] for repeats in documents}
    _draw_line(axis, points, STYLES[FORKED], None)
    axis.set_title("Whole documents: trunk, block, trunk", loc="left")
    axis.set_xlabel("parallelism: tokens over the longest chain")
    axis.set_ylabel("speed-up over sequential decoding")
    axis.legend(frameon=False)


def _draw_line(axis: Any, points: dict[float, list[float]], style: Style, label: str | None) -> None:
    """A line through medians, with bars from the lowest to the highest repeat."""
    if not points:
        return
    middle = [median(values) for values in points.values()]
    below = [m - min(values) for m, values in zip(middle, points.values(), strict=True)]
    above = [max(values) - m for m, values in zip(middle, points.values(), strict=True)]
    axis.errorbar(
        list(points),
        middle,
        yerr=[below, above],
        fmt="o",
        markersize=4,
        color=style.colour,
        linewidth=style.width,
        linestyle=style.line,
        elinewidth=1.2,
        label=label,
    )
