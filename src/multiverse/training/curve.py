"""The loss curve of a run, plotted from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """Records of a run's ``log.jsonl``; an incomplete last line is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def plot_curve(log: Path, out: Path, epochs: int = 1) -> None:
    """Plot the loss of each step with its running mean, the validation losses, and the learning rate below.

    Args:
        log: the run's ``log.jsonl``.
        out: the figure to write, such as an .svg file.
        epochs: number of epochs; their boundaries are marked.
    """
    from matplotlib.figure import Figure

    records = read_log(log)
    steps = [record for record in records if "loss" in record]
    if not steps:
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    x, y = [r["step"] for r in steps], [r["loss"] for r in steps]
    top.plot(x, y, color="#9bbbe8", linewidth=0.8, label="each step")
    smooth, mean = [], y[0]
    for value in y:
        mean = 0.95 * mean + 0.05 * value
        smooth.append(mean)
    top.plot(x, smooth, color="#0b62d6", linewidth=2, label="running mean")
    names = sorted({key for record in records for key in record if key.startswith("eval_") and key.endswith("_loss")})
    for name, colour in zip(names, ("#d1690e", "#2a8a4a"), strict=False):
        points = [(r["step"], r[name]) for r in records if name in r]
        label = f"validation, {name.removeprefix('eval_').removesuffix('_loss')}"
        top.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=label)
    for epoch in range(1, epochs):
        top.axvline(x[-1] * epoch / epochs, color="#e4e8ec", linewidth=1, zorder=0)
    top.set_ylabel("loss per token")
    if 0 < min(y) < max(y):
        top.set_yscale("log")
    top.legend(frameon=False)
    rates = [r["learning_rate"] for r in steps]
    bottom.plot(x, rates, color="#59636e")
    bottom.set_ylim(0, 1.05 * max(rates) or 1)
    bottom.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("step")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out)
