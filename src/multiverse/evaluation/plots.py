"""Reports and budgets as figures."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from ..errors import require
from .budget import Curves
from .report import Group, Report, spread
from .statistics import LEVEL

COLOURS = ("#3b75af", "#ee8636", "#3d9a50", "#a04a9c", "#8c6d46", "#c4403c")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
SOFT = "#59636e"


def figure(width: float, height: float) -> Any:
    """An empty figure (`ExtraError` if matplotlib is not installed)."""
    require("matplotlib", "eval")
    return require("matplotlib.figure", "eval").Figure(figsize=(width, height), layout="constrained")


def save(drawn: Any, path: Path) -> None:
    """Write a figure in the format of its name; the same figure makes the same file."""
    with require("matplotlib", "eval").rc_context({"svg.hashsalt": path.stem}):
        drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def series(group: Group, report: Report) -> str:
    """Series of a group, for its colour: the run, and the mode if a run has several."""
    modes = {(other.run, other.mode) for other in report.groups}
    if len(modes) == len(report.runs):
        return group.run
    return group.mode if len(report.runs) == 1 else f"{group.run}, {group.mode}"


def _names(report: Report) -> list[str]:
    """The series in the order of their colours; parallel comes first, as in budget figures."""
    groups = sorted(report.groups, key=lambda group: (group.number, group.mode))
    return list(dict.fromkeys(series(group, report) for group in groups))


def draw_accuracy(report: Report) -> Any:
    """pass@1 against critical path: a mark per task, a colour per run and mode, bars from intervals."""
    names = _names(report)
    tasks = list(dict.fromkeys(group.task for group in report.groups))
    drawn = figure(8, 5)
    axis = drawn.subplots()
    for group in report.groups:
        right, path = group.estimates["pass@1"], group.estimates["critical_path_tokens"]
        x, y = path.mean, 100 * right.mean
        axis.errorbar(
            x,
            y,
            xerr=None if math.isnan(path.low) else [[x - path.low], [path.high - x]],
            yerr=[[y - 100 * right.low], [100 * right.high - y]],
            fmt=MARKS[tasks.index(group.task) % len(MARKS)],
            color=COLOURS[names.index(series(group, report)) % len(COLOURS)],
            markersize=8,
            markeredgecolor="white",
            elinewidth=1.2,
            capsize=2,
        )
    line = require("matplotlib.lines", "eval").Line2D
    keys = [line([], [], color=COLOURS[i % len(COLOURS)], linewidth=4, label=name) for i, name in enumerate(names)]
    keys += [
        line([], [], color=SOFT, marker=MARKS[i % len(MARKS)], linestyle="", markersize=7, label=task)
        for i, task in enumerate(tasks)
    ]
    drawn.legend(handles=keys, frameon=False, loc="outside lower center", ncols=min(5, len(keys)))
    axis.set_title("Accuracy against the critical path", fontweight="bold", loc="left")
    axis.set_xlabel(f"critical path: longest chain of tokens (bars: {LEVEL:.0%} intervals)")
    axis.set_ylabel("right answers, %")
    axis.set_ylim(top=102)
    axis.set_xlim(left=0)
    _plain(axis)
    return drawn


def draw_parallelism(report: Report) -> Any:
    """Parallelism: a row per task, run and mode, a dot per question, the mean as a bar."""
    names = _names(report)
    tasks = list(dict.fromkeys(group.task for group in report.groups))
    rows = sorted(report.groups, key=lambda group: (tasks.index(group.task), names.index(series(group, report))))
    drawn = figure(8, 1.6 + 0.42 * len(rows))
    axis = drawn.subplots()
    random = np.random.default_rng(0)
    labelled: set[str] = set()
    for row, group in enumerate(rows):
        name = series(group, report)
        colour = COLOURS[names.index(name) % len(COLOURS)]
        values = spread(group)
        axis.plot(
            values,
            row + random.uniform(-0.26, 0.26, len(values)),
            "o",
            color=colour,
            alpha=max(0.12, min(0.6, 30 / len(values))),
            markersize=5,
            markeredgewidth=0,
            label=None if name in labelled else name,
        )
        labelled.add(name)
        mean = group.estimates["parallelism"].mean
        axis.plot([mean, mean], [row - 0.36, row + 0.36], color=SOFT, linewidth=2, solid_capstyle="butt")
        at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axis.annotate(f"{mean:.2f}", (1, row), (4, 0), va="center", color=SOFT, **at)
    ticks = {task: [row for row, group in enumerate(rows) if group.task == task] for task in tasks}
    axis.set_yticks([sum(of) / len(of) for of in ticks.values()], list(ticks))
    for of in list(ticks.values())[1:]:
        axis.axhline(of[0] - 0.5, color="#e4e8ec", linewidth=1, zorder=0)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(left=0.9)
    axis.set_title("How parallel the answers are", fontweight="bold", loc="left")
    axis.set_xlabel("tokens / critical path; a dot per question, a bar at the mean")
    if len(names) > 1:
        legend = drawn.legend(frameon=False, loc="outside lower center", ncols=min(4, len(names)))
        for handle in legend.legend_handles:
            handle.set_alpha(1)
    _plain(axis, grid="x")
    axis.tick_params(axis="y", length=0)
    return drawn


def draw_budget(curves: Curves, *, title: str, note: str) -> Any:
    """Accuracy of two systems against the budget, with bands of clustered intervals.

    Args:
        note: below the figure: what was asked, on what machine.
    """
    drawn = figure(8, 5)
    axis = drawn.subplots()
    for name, points, colour, mark in zip(curves.names, curves.points, COLOURS, MARKS, strict=False):
        budgets = [point.budget for point in points]
        low, high = (
            [100 * value for value in side] for side in zip(*((p.right.low, p.right.high) for p in points), strict=True)
        )
        axis.fill_between(budgets, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(budgets, [100 * point.right.mean for point in points], f"-{mark}", color=colour, linewidth=2, label=name)
    gain = curves.mean_gain
    p = "p < 0.001" if gain.p < 0.001 else f"p = {gain.p:.3f}"
    gained = f"{100 * gain.mean:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}], {p}"
    drawn.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=13)
    axis.set_title(f"mean gain of {curves.names[0]} over {curves.names[1]}: {gained}", loc="left", fontsize=10, color=SOFT)
    budgets = [point.budget for point in curves.points[0]]
    if budgets[-1] > 8 * budgets[0]:
        axis.set_xscale("log", base=2)
        axis.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        axis.minorticks_off()
    axis.set_xlabel("budget: longest chain of tokens, answer included")
    axis.set_ylabel(f"right answers, % (bands: {LEVEL:.0%} intervals)")
    axis.set_ylim(-2, 102)
    axis.legend(frameon=False, loc="upper left")
    drawn.supxlabel("\n".join(wrap(note, 120)), x=0.01, ha="left", fontsize=8, color=SOFT)
    _plain(axis)
    return drawn


def _plain(axis: Any, grid: str = "both") -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="#e4e8ec", linewidth=0.7)
    axis.set_axisbelow(True)
