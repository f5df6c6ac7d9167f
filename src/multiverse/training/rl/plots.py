"""The curves of a run as figures, from its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..curve import read_log

Records = Sequence[Mapping[str, Any]]
PANELS: Mapping[str, Mapping[str, str]] = {
    "reward": {"reward": "reward", "eval_reward": "reward, validation"},
    "right answers": {"right": "rollouts", "eval_right": "validation"},
    "parallelism": {"parallelism": "rollouts", "eval_parallelism": "validation"},
    "tokens": {
        "total_tokens": "all",
        "critical_path_tokens": "critical path",
        "eval_critical_path_tokens": "critical path, validation",
    },
    "share of rollouts": {"forked": "fork", "malformed": "malformed", "groups_without_spread": "groups without spread"},
    "entropy": {"entropy": "entropy"},
    "|ratio - 1| at the first update": {"first_ratio_deviation": "largest", "first_ratio_std": "standard deviation"},
    "tokens per second": {"tokens_per_second": "rollouts"},
}
"""Title of each panel, and its curves: the name in the log, and in the figure."""
_COLOURS = ("#0b62d6", "#d1690e", "#2a8a4a")
_LOGARITHMIC = ("|ratio - 1| at the first update",)


def plot_run(log: Path, out: Path) -> None:
    """Plot the curves of a run.

    Args:
        log: the run's ``log.jsonl``.
        out: the figure to write, such as an .svg file.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    records = read_log(log)
    panels = {title: curves for title, curves in PANELS.items() if any(_points(records, name) for name in curves)}
    if not panels:
        return
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(10, 2.4 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False).flatten()
    for axis, (title, curves) in zip(axes, panels.items(), strict=False):
        _draw(axis, title, curves, records)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(panels) - 2) : len(panels)]:
        axis.set_xlabel("step")
        axis.xaxis.set_tick_params(labelbottom=True)
    with rc_context({"svg.hashsalt": out.stem}):
        figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def _points(records: Records, name: str) -> list[tuple[int, float]]:
    return [(record["step"], record[name]) for record in records if name in record]


def _draw(axis: Any, title: str, curves: Mapping[str, str], records: Records) -> None:
    for (name, label), colour in zip(curves.items(), _COLOURS, strict=False):
        points = _points(records, name)
        if not points:
            continue
        x, y = zip(*points, strict=True)
        if name.startswith("eval_"):
            axis.plot(x, y, "o-", color=colour, markersize=4, label=label)
            continue
        axis.plot(x, y, color=colour, linewidth=0.8, alpha=0.35)
        axis.plot(x, smooth(y), color=colour, linewidth=1.8, label=label)
    axis.set_title(title, loc="left", fontsize=10)
    if title in _LOGARITHMIC and any(value > 0 for name in curves for _, value in _points(records, name)):
        axis.set_yscale("log")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e4e8ec", linewidth=0.7)
    axis.legend(frameon=False, fontsize=8)


def smooth(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """The running mean, in which each value counts `keep` times as much as the next."""
    found: list[float] = []
    weight = total = 0.0
    for value in values:
        weight, total = keep * weight + 1, keep * total + value
        found.append(total / weight)
    return found
