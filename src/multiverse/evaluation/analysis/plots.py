"""Figures of the two tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...data.plot import check_format
from ...errors import require

BLUE, ORANGE, GREY = "#0b62d6", "#d1690e", "#8c959f"
_TEXTS = {"parallel": ("structured texts", BLUE, 9.0), "sequential": ("sequential texts", ORANGE, 4.5)}
"""Name, colour and size of marks: the smaller ones are drawn later, so that both are seen where they agree."""
_PLACES = {
    "sentence": "at the end of a sentence",
    "token": "within the next {within} tokens",
    "question": "at the end of the question",
}
_MODES = {"parallel": "in parallel", "sequential": "sequentially", "explained": "with the format explained"}
_OUTCOMES = (
    ("formed", "well-formed block", BLUE),
    ("broken", "tags, but no whole block", ORANGE),
    ("plain", "no tag", "#dfe3e8"),
)


def plot_probes(reports: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy against depth, a panel a report, from `ProbeReport.as_json` (errors as `check_format`; `ExtraError`)."""
    figure = _figure(path, max(7.0, 4.2 * len(reports) + 0.6), 4.8)
    axes = figure.subplots(1, len(reports), sharey=True, squeeze=False)[0]
    for axis, report in zip(axes, reports, strict=True):
        for text in report["texts"]:
            label, colour, size = _TEXTS[text["mode"]]
            layers = [layer["layer"] for layer in text["layers"]]
            axis.fill_between(
                layers,
                [100 * layer["low"] for layer in text["layers"]],
                [100 * layer["high"] for layer in text["layers"]],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            axis.plot(
                layers,
                [100 * layer["value"] for layer in text["layers"]],
                color=colour,
                marker="o",
                markersize=size,
                label=f"hidden states, {label}",
            )
            for name, dashes, known in (("position", (5, 3), "position alone"), ("last_tokens", (1, 2), "last 4 tokens alone")):
                axis.axhline(100 * text[name]["value"], color=colour, dashes=dashes, linewidth=1.2, label=f"{known}, {label}")
        axis.axhline(50, color=GREY, linewidth=1)
        axis.set_title(
            f"{Path(report['model']).name}\na fork, {_PLACES[report['at']].format(within=report['within'])}?", fontsize=11
        )
        axis.set_xlabel("layer (0: embeddings)")
        axis.set_ylim(40, 102)
        axis.set_xticks(layers if len(layers) <= 10 else layers[:: len(layers) // 8])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("right on unseen documents, % (chance: 50)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def plot_prompting(tallies: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Classes of the answers, a bar for each mode, from `Tally.as_json` (errors as `plot_probes`)."""
    names = [_row(tally) for tally in tallies]
    figure = _figure(path, 8.6, 1.9 + 0.42 * len(tallies))
    axis = figure.subplots()
    left = [0.0] * len(tallies)
    for outcome, label, colour in _OUTCOMES:
        values = [100 * tally[outcome]["value"] for tally in tallies]
        axis.barh(names, values, left=left, color=colour, label=label, height=0.66)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for index, tally in enumerate(tallies):
        x = 100 * tally["possible"]["value"]
        axis.plot(
            [x, x], [index - 0.42, index + 0.42], color="black", linewidth=2, label="structure was there" if not index else None
        )
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("answers, %")
    figure.suptitle(title, fontsize=12)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def _row(tally: dict[str, Any]) -> str:
    model = f"{Path(tally['model']).name}: " if "model" in tally else ""
    guard = "guard on" if tally["guard"] else "guard off"
    return f"{model}{tally['group']}, asked {_MODES[tally['mode']]}, {guard}"


def _figure(path: Path, width: float, height: float) -> Any:
    check_format(path)
    return require("matplotlib.figure", "eval").Figure(figsize=(width, height), layout="constrained")
