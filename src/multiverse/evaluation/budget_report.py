"""Budget curves as files: `budget.md`, `budget.json`, and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .budget import POINTS, Curves, Point, System
from .config import EvaluationConfig
from .markdown import PASS, cell, format_difference, format_mean, table
from .plots import draw_budget, save
from .sample import SAMPLES, Run
from .statistics import LEVEL

BUDGET, JSON, PLOT = "budget.md", "budget.json", "budget.svg"


def write_budget(
    curves: Curves, systems: tuple[System, System], config: EvaluationConfig, runs: Sequence[Run], out: Path
) -> None:
    """Write the three files beside the points.

    Args:
        runs: the points of both systems.

    Raises:
        DataError: they cannot be written.
        ExtraError: matplotlib is not installed.
    """
    day, machine = max(run.date for run in runs), "; ".join(dict.fromkeys(run.machine for run in runs))
    questions, samples = len({(sample.task, sample.id) for sample in runs[0].samples}), len(runs[0].samples)
    asked = f"{questions} questions ({', '.join(config.benchmarks)}), {samples} {'sample' if samples == 1 else 'samples'}"
    title = "Accuracy against a budget of critical path"
    values = {
        "date": day,
        "machine": machine,
        "models": {system.name: {"model": system.model, "mode": system.mode} for system in systems},
        "benchmarks": list(config.benchmarks),
        "questions": questions,
        "samples": samples,
        "seed": config.seed,
        **curves.to_json(),
    }
    try:
        save(draw_budget(curves, title=title, note=f"{asked}. {day}, {machine}"), out / PLOT)
        (out / BUDGET).write_text(_markdown(curves, title, f"{asked}; {day}; {machine}."), encoding="utf-8")
        (out / JSON).write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{str(out)!r} cannot be written ({error.strerror or error}): choose another folder") from error


def _markdown(curves: Curves, title: str, about: str) -> str:
    first, second = curves.names
    head = ["budget"]
    for name in curves.names:
        head += [f"{name}: right, %", "critical path", "tokens", "closed, %"]
    rows = [
        [str(a.budget), *_side(first, a), *_side(second, b), format_difference(PASS, gain)]
        for a, b, gain in zip(*curves.points, curves.gains, strict=True)
    ]
    gains = [("all", curves.mean_gain), *(curves.task_gains.items() if len(curves.task_gains) > 1 else ())]
    parts = [
        f"# {title}",
        cell(about, None),
        f"![{title}]({PLOT})",
        table([*head, f"{first} less {second}"], rows, right=0),
        f"Under each budget, {first} less {second} in points, as a mean over the budgets:",
        table(
            ("questions of", "how many", "mean gain"),
            [(cell(task), str(gain.questions), format_difference(PASS, gain)) for task, gain in gains],
            right=1,
        ),
        "A budget limits the longest chain of generated tokens, the answer included. *Closed*: the share of generations that "
        "came near it, so that their paths were closed and the answer was written in the tokens reserved for it; such "
        "answers are graded as any other. ± is the standard error, the samples of one question being one cluster; in brackets "
        f"{LEVEL:.0%} intervals and p, from a bootstrap over questions. Each share leads to its samples; "
        "`multiverse eval report` on a point's folder makes files of them that the page opens.",
    ]
    return "\n\n".join(parts) + "\n"


def _side(name: str, point: Point) -> list[str]:
    return [
        f"[{format_mean(PASS, point.right)}]({POINTS}/{name}-{point.budget}/{SAMPLES})",
        f"{point.critical_path_tokens.mean:,.0f}",
        f"{point.total_tokens.mean:,.0f}",
        f"{100 * point.forced_close:.0f}",
    ]
