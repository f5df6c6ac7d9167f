"""Accuracy against a budget of critical path, for two systems: which of them makes more of the same time.

A budget bounds the longest chain of tokens that a generation may have, which is what a reader waits for. A generation that
comes near it is wound up: open paths are closed, and the answer is written in a tail that is kept for it. Such an answer counts
as any other. A parallel generation holds more tokens in the same chain; whether that makes it more often right is what is asked
here (the paper's figure 7).

Each point, one system under one budget, is a run folder of its own. A point that is finished is not run again, and one that was
broken off goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engine.params import SamplingParams
from ..errors import DataError
from ..prompting import Mode, ask
from ..tasks import Problem, generate
from .answer import Answer
from .journal import Journal
from .sample import Run, Sample
from .statistics import Difference, Estimate, bootstrap, mean_of, paired, share_of

if TYPE_CHECKING:
    from ..engine.generation import Generation
    from ..llm import LLM

POINTS = "points"
COUNTS = ("stop", "budget")
"""Ends after which an answer counts: by itself, or wound up for the budget."""


class Asked(NamedTuple):
    """One question, and what judges its answer."""

    task: str
    id: str
    question: str
    expected: str
    right: Callable[[str], bool]


class System(NamedTuple):
    """A model, asked in one mode.

    Attributes:
        name: what tables call it.
        model: folder or hub id.
        load: gives the model, of which only `chat` is used; called at the first point that has still to be run.
    """

    name: str
    model: str
    mode: Mode
    load: Callable[[], LLM]


@dataclass(frozen=True)
class Plan:
    """What is asked, and under which budgets.

    Attributes:
        budgets: bounds on the longest chain of generated tokens, in ascending order.
        params: everything else about sampling; each question and epoch draws from a seed of its own, derived from `seed`.
        description: what else the questions depend on, for the record.
        machine: what it runs on, for the record.
    """

    questions: tuple[Asked, ...]
    budgets: tuple[int, ...]
    params: SamplingParams
    epochs: int
    seed: int
    description: dict[str, Any]
    machine: str

    def __post_init__(self) -> None:
        if not self.questions or not self.budgets or self.epochs < 1:
            raise DataError("a budget needs at least one question, one budget and one epoch")
        if list(self.budgets) != sorted(set(self.budgets)) or self.budgets[0] < 1:
            raise DataError(f"budgets {list(self.budgets)} are not valid: give different numbers of tokens, smallest first")
        if self.params.max_tokens < self.budgets[-1]:
            raise DataError(
                f"a budget of {self.budgets[-1]} is never reached with max_tokens={self.params.max_tokens}: raise max_tokens"
            )

    @property
    def size(self) -> int:
        """Samples of one point."""
        return len(self.questions) * self.epochs


def of_families(families: Sequence[str], n: int, seed: int) -> tuple[Asked, ...]:
    """The first `n` questions of each of the project's families, from their test split."""

    def asked(problem: Problem, number: int) -> Asked:
        return Asked(problem.family, str(number), problem.question, problem.answer, problem.check)

    return tuple(
        asked(problem, number)
        for family in families
        for number, problem in enumerate(generate(family, n, seed=seed, split="test"))
    )


def measure(system: System, plan: Plan, out: Path, on_sample: Callable[[Sample], None] | None = None) -> dict[int, Run]:
    """Run a system under every budget, or read what is there already.

    Args:
        out: folder of the whole comparison.
        on_sample: called with each sample, those that were there already included.

    Raises:
        DataError: `out` holds points of another plan.
    """
    return {
        budget: _point(system, plan, budget, out / POINTS / f"{system.name}-{budget}", on_sample) for budget in plan.budgets
    }


def _point(system: System, plan: Plan, budget: int, folder: Path, on_sample: Callable[[Sample], None] | None) -> Run:
    params = replace(plan.params, max_critical_path_tokens=budget)
    settings = {
        **plan.description,
        "questions": len(plan.questions),
        "epochs": plan.epochs,
        "seed": plan.seed,
        "mode": system.mode,
        "sampling": json.loads(json.dumps(asdict(params))),
    }
    wanted = Run(folder.name, system.model, settings, plan.machine, date.today().isoformat())
    journal = Journal(folder, wanted)
    if on_sample is not None:
        for sample in journal.run.samples:
            on_sample(sample)
    return journal.run if len(journal.finished) == plan.size else _finish(system, plan, params, journal, on_sample)


def _finish(
    system: System, plan: Plan, params: SamplingParams, journal: Journal, on_sample: Callable[[Sample], None] | None
) -> Run:
    """Ask what is left; each sample is written down as it is finished."""
    llm = system.load()
    left = [
        (index, asked, epoch)
        for index, asked in enumerate(plan.questions)
        for epoch in range(plan.epochs)
        if (asked.task, asked.id, epoch) not in journal.finished
    ]
    each = [replace(params, seed=(plan.seed * 1_000_003 + epoch) * 1_000_003 + index) for index, _, epoch in left]

    def keep(number: int, generation: Generation) -> None:
        _, asked, epoch = left[number]
        sample = judge(asked, epoch, system.mode, Answer.of(generation))
        journal.add(sample)
        if on_sample is not None:
            on_sample(sample)

    start = time.perf_counter()
    try:
        llm.chat([ask(asked.question, system.mode) for _, asked, _ in left], each, on_finish=keep)
    finally:
        run = journal.close(time.perf_counter() - start)
    return run


def judge(asked: Asked, epoch: int, mode: Mode, answer: Answer) -> Sample:
    """A sample; its answer counts if it ended by itself or was wound up for the budget."""
    return Sample(
        task=asked.task,
        id=asked.id,
        epoch=epoch,
        mode=mode,
        question=asked.question,
        expected=asked.expected,
        answer=answer.answer,
        text=answer.text,
        right=answer.finish_reason in COUNTS and asked.right(answer.answer),
        finish_reason=answer.finish_reason,
        malformed=answer.malformed,
        forks=answer.forks,
        total_tokens=answer.total_tokens,
        critical_path_tokens=answer.critical_path_tokens,
        seconds=answer.seconds,
    )


class Point(NamedTuple):
    """One system under one budget.

    Attributes:
        right: share of right answers.
        critical_path_tokens, total_tokens: means.
        wound_up: share of the generations that the budget ended.
    """

    budget: int
    right: Estimate
    critical_path_tokens: Estimate
    total_tokens: Estimate
    wound_up: float


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

    Gains are paired by question; the mean gain takes each question's mean over the budgets, so that its interval knows that it
    is one question under all of them.

    Raises:
        DataError: they have no budget in common, or fewer than two questions.
    """
    budgets = sorted(first.keys() & second.keys())
    if not budgets:
        raise DataError(f"{names[0]} and {names[1]} were run under no common budget")
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
