"""Accuracy under a series of limits on the critical path ("budgets"), for two systems.

A sweep of `run.evaluate` over budgets, once for each system. Every point, one system under one budget, is a run with its own
folder, so a sweep is resumed like any run. A generation that comes near its budget is closed: open paths end, and the answer is
written in the reserved tokens; such answers are graded as any other. A parallel generation has more tokens in the same
critical path; the sweep measures whether that makes it more often right (the paper's figure 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError
from ..prompting import Mode
from .config import EvaluationConfig
from .run import Progress, QuestionSets, evaluate
from .sample import RUN, Run
from .statistics import Difference, Estimate, bootstrap, mean_of, paired, share_of

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI

POINTS = "points"


class System(NamedTuple):
    """A model asked in one mode.

    Attributes:
        name: in tables and folder names.
        model: folder, hub id, or server and model.
        open_api: makes the provider (see `run.evaluate`).
    """

    name: str
    model: str
    mode: Mode
    open_api: Callable[[], ModelAPI]


def check_budgets(budgets: Sequence[int], config: EvaluationConfig) -> None:
    """Raise `DataError` unless the budgets are in ascending order and within `max_tokens`."""
    if not budgets or list(budgets) != sorted(set(budgets)) or budgets[0] < 1:
        raise DataError(f"budgets {list(budgets)} are not valid: give different numbers of tokens, smallest first")
    if config.sampling.max_tokens < budgets[-1]:
        raise DataError(
            f"a budget of {budgets[-1]} is never reached with max_tokens={config.sampling.max_tokens}: raise max_tokens"
        )


def sweep(
    system: System,
    config: EvaluationConfig,
    budgets: Sequence[int],
    out: Path,
    *,
    sets: QuestionSets | None = None,
    concurrency: int = 32,
    progress: Progress | None = None,
) -> dict[int, Run]:
    """Evaluate a system under every budget; returns the runs by budget.

    Args:
        out: folder of the comparison; the point of a budget is the folder ``points/SYSTEM-BUDGET`` in it.
        sets, concurrency, progress: see `run.evaluate`, whose exceptions are raised.
    """
    check_budgets(budgets, config)
    runs = {}
    for budget in budgets:
        folder = out / POINTS / f"{system.name}-{budget}"
        if (folder / RUN).exists() and '"sampling": {' in (folder / RUN).read_text(encoding="utf-8"):
            raise DataError(f"{folder} was written by an earlier version of this command: choose another folder")
        own = replace(config, budget=budget)
        runs[budget] = evaluate(
            system.open_api, system.model, own, folder, system.mode, sets=sets, concurrency=concurrency, progress=progress
        )
    return runs


class Point(NamedTuple):
    """One system under one budget.

    Attributes:
        right: share of right answers.
        critical_path_tokens, total_tokens: means.
        forced_close: share of the generations that were closed for the budget.
    """

    budget: int
    right: Estimate
    critical_path_tokens: Estimate
    total_tokens: Estimate
    forced_close: float


@dataclass(frozen=True)
class Curves:
    """Two systems over their common budgets.

    Attributes:
        names: of the systems; gains are the first less the second.
        points: of each system.
        gains: under each budget.
        mean_gain: over all budgets, on all tasks together, and under each task's name.
    """

    names: tuple[str, str]
    points: tuple[tuple[Point, ...], tuple[Point, ...]]
    gains: tuple[Difference, ...]
    mean_gain: Difference
    task_gains: dict[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """Plain objects."""
        return {
            "systems": list(self.names),
            "budgets": [point.budget for point in self.points[0]],
            "points": {
                name: [{**point._asdict(), **{k: v._asdict() for k, v in _estimates(point).items()}} for point in points]
                for name, points in zip(self.names, self.points, strict=True)
            },
            "gains": [gain._asdict() for gain in self.gains],
            "mean_gain": self.mean_gain._asdict(),
            "task_gains": {task: gain._asdict() for task, gain in self.task_gains.items()},
        }


def curves(names: tuple[str, str], first: dict[int, Run], second: dict[int, Run], *, seed: int = 0) -> Curves:
    """Compare two systems under the budgets that both were run with.

    Gains are paired by question. The mean gain takes each question's mean over the budgets first, so that the samples of one
    question under all budgets are one observation.

    Raises:
        DataError: they have no budget in common, or fewer than two questions.
    """
    budgets = sorted(first.keys() & second.keys())
    if not budgets:
        raise DataError(f"{names[0]} and {names[1]} have no budget in common")
    sides = [{budget: _answers(runs[budget]) for budget in budgets} for runs in (first, second)]
    common = [
        question for question in sides[0][budgets[0]] if all(question in side[budget] for side in sides for budget in budgets)
    ]
    if len(common) < 2:
        raise DataError(f"{names[0]} and {names[1]} have {len(common)} questions in common: a comparison needs at least 2")
    gain = {question: _gain(question, sides, budgets) for question in common}
    tasks = list(dict.fromkeys(task for task, _, _ in common))
    by_task = {task: [value for (of, _, _), value in gain.items() if of == task] for task in tasks}
    return Curves(
        names=names,
        points=(tuple(_summed(b, first[b]) for b in budgets), tuple(_summed(b, second[b]) for b in budgets)),
        gains=tuple(paired(sides[1][budget], sides[0][budget], seed=seed) for budget in budgets),
        mean_gain=bootstrap(list(gain.values()), seed=seed),
        task_gains={task: bootstrap(values, seed=seed) for task, values in by_task.items() if len(values) > 1},
    )


Key = tuple[str, str, str]


def _answers(run: Run) -> dict[Key, list[float]]:
    """Under each question (task, id, text), whether each of its samples was right."""
    answers: dict[Key, list[float]] = {}
    for sample in run.samples:
        answers.setdefault((sample.task, sample.id, sample.question), []).append(float(sample.right))
    return answers


def _gain(question: Key, sides: list[dict[int, dict[Key, list[float]]]], budgets: list[int]) -> float:
    first, second = (fmean(fmean(side[budget][question]) for budget in budgets) for side in sides)
    return first - second


def _summed(budget: int, run: Run) -> Point:
    samples = run.samples
    questions = [(sample.task, sample.id) for sample in samples]
    return Point(
        budget,
        share_of([sample.right for sample in samples], questions),
        mean_of([sample.critical_path_tokens for sample in samples], questions),
        mean_of([sample.total_tokens for sample in samples], questions),
        sum(sample.finish_reason == "budget" for sample in samples) / len(samples),
    )


def _estimates(point: Point) -> dict[str, Estimate]:
    return {name: value for name, value in point._asdict().items() if isinstance(value, Estimate)}
