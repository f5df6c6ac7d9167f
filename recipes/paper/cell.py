"""One cell of the comparison: an arm trained with one seed, and its measurements."""

from __future__ import annotations

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.machine import describe
from multiverse.engine.model import load
from multiverse.tasks import Problem
from multiverse.training.run import train

from . import data
from .arms import ARMS, START, config_of
from .ask import MAX_TOKENS, Respondent, figures
from .clock import ROWS, Reference, alone

N, ALONE, BUDGET_N = 200, 8, 40
BUDGETS = (128, 160, 192, 224, 288, 352, 416)
BUDGETED = ("multiverse", "sequential")
BUDGET_TASKS = ("worksheet-6", "countdown", "nested")
CURVE_POINTS = 60
TRAINED = "trained"
"""A file in a run's folder that says that the model is there in full."""


class Scale(NamedTuple):
    """Size of the comparison.

    Attributes:
        start: folder of the weights that cells start from.
        documents: training documents.
        n: held-out problems of each family.
        max_tokens: most generated tokens of an answer.
    """

    start: Path = START
    documents: int = data.DOCUMENTS
    n: int = N
    max_tokens: int = MAX_TOKENS


FULL = Scale()


def make(arm: str, seed: int, scale: Scale, console: Console, runs: Path) -> dict[str, Any]:
    """Train an arm, or resume its training, and measure it.

    Raises:
        InterruptedRunError: a signal stopped the training after it had written a checkpoint.
    """
    data.prepare(runs, seed, scale.documents)
    config = config_of(arm, seed, runs, scale.start)
    out = Path(config.out)
    if not (out / TRAINED).exists():
        train(config, console=console)
        (out / TRAINED).touch()
    for checkpoint in out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return {
        "arm": arm,
        "seed": seed,
        "what": ARMS[arm].what,
        "machine": describe(),
        "date": date.today().isoformat(),
        "settings": {
            "documents": scale.documents,
            "families": list(data.FAMILIES),
            "narrow": data.NARROW,
            "training": ARMS[arm].training,
            "optimizer": vars(config.optimizer),
            "test_seed": data.TEST_SEED,
        },
        "training": curve(out / "log.jsonl"),
        **measure(arm, out / "model", scale, console),
    }


def curve(log: Path) -> dict[str, Any]:
    """Loss curve of a run; each point is the mean since the previous one."""
    records = [record for record in map(json.loads, log.read_text().splitlines()) if "loss" in record]
    every = max(1, -(-len(records) // CURVE_POINTS))
    thinned = [records[at : at + every] for at in range(0, len(records), every)]
    return {
        "steps": records[-1]["step"],
        "seconds": records[-1]["seconds"],
        "curve": [[part[-1]["step"], round(sum(record["loss"] for record in part) / len(part), 4)] for part in thinned],
    }


def questions(n: int) -> dict[str, list[Problem]]:
    """Held-out problems: `n` of each family, and half as many worksheets of each width in `WIDE`."""
    sets = {family: data.held_out(family, n) for family in data.FAMILIES}
    return sets | {f"worksheet-{width}": data.held_out("worksheet", max(1, n // 2), width) for width in data.WIDE}


def measure(arm: str, model: Path, scale: Scale, console: Console) -> dict[str, Any]:
    """All measurements of a trained model."""
    own = ARMS[arm]
    loaded = load(model)
    sets = questions(scale.n)
    few = {name: sets[name][: max(1, scale.n * BUDGET_N // N)] for name in BUDGET_TASKS}
    single = [problem.question for family in ("worksheet-6", "nested") for problem in sets[family][: ALONE // 2]]
    budgets = BUDGETS if arm in BUDGETED else ()
    total = sum(map(len, sets.values())) * (2 if own.also else 1) + len(budgets) * sum(map(len, few.values())) + len(single)
    columns = (TextColumn(f"measuring {arm}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def on_progress() -> None:
            bar.advance(task)

        reference = Reference(loaded)
        respondent = Respondent(loaded, own, max_tokens=scale.max_tokens)
        result: dict[str, Any] = {"decoding": own.decoding, "tasks": {}}
        step = reference(ROWS)
        for name, problems in sets.items():
            result["tasks"][name] = figures(respondent, problems, on_progress)
            before, step = step, reference(ROWS)
            # Number of plain steps that would have fit into the time of the batch.
            result["tasks"][name]["plain_steps"] = round(2 * result["tasks"][name]["seconds"] / (before + step), 1)
        result["alone"] = alone(respondent, reference, single, on_progress)
        if own.also is not None:
            other = Respondent(loaded, own, own.also, max_tokens=scale.max_tokens)
            result["also"] = {
                "decoding": own.also,
                "tasks": {name: figures(other, problems, on_progress) for name, problems in sets.items()},
            }
        if budgets:
            result["budgets"] = {
                str(budget): {name: figures(limited, problems, on_progress) for name, problems in few.items()}
                for budget in budgets
                for limited in [Respondent(loaded, own, budget=budget, max_tokens=scale.max_tokens)]
            }
    return result
