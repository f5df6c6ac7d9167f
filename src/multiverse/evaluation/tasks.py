"""Accuracy on the project's own verifiable tasks, with what the answers took.

All questions go to the model at once; each answer is judged by the problem it belongs to.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..engine.generation import Generation
from ..engine.params import SamplingParams
from ..prompting import Mode, ask
from ..tasks import Problem, generate
from .answer import Answer
from .benchmarks.families import grade, question
from .judging import graded
from .sample import Sample

if TYPE_CHECKING:
    from ..llm import LLM


@dataclass(frozen=True)
class TaskSet:
    """Which problems are asked, and how.

    Attributes:
        mode: which instruction ends the question. What the model then does is its own choice, and is measured.
        width, depth: knobs of the family; drawn when `None`.
    """

    family: str
    n: int
    seed: int
    mode: Mode = "parallel"
    width: int | None = None
    depth: int | None = None

    def problems(self) -> list[Problem]:
        """The problems, from the test split (`ValueError` for a value that the family does not know)."""
        if self.n < 1:
            raise ValueError(f"n is {self.n}: ask at least one question")
        return generate(self.family, self.n, seed=self.seed, split="test", width=self.width, depth=self.depth)


@dataclass(frozen=True)
class TaskReport:
    """What a model does on a task set.

    Attributes:
        accuracy: share of right answers; `stderr` is its standard error.
        parallelism, critical_path_tokens, total_tokens: means over generations.
        malformed: generations that broke the grammar, or ended by themselves and yet do not parse.
        forked: share of generations that forked.
        seconds: wall-clock time for all of them together.
    """

    family: str
    mode: Mode
    n: int
    seed: int
    accuracy: float
    stderr: float
    parallelism: float
    critical_path_tokens: float
    total_tokens: float
    malformed: int
    forked: float
    seconds: float
    model: str
    samples: tuple[Sample, ...] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """Everything but the samples."""
        return {name: value for name, value in vars(self).items() if name != "samples"}


def evaluate(llm: LLM, tasks: TaskSet, params: SamplingParams, on_finish: Callable[[Sample], None] | None = None) -> TaskReport:
    """Ask every question of a task set.

    Args:
        params: for all questions. Where it samples, each question draws from its own seed, derived from the task set's.
        on_finish: called with each sample as it is finished, in no particular order.
    """
    problems = tasks.problems()
    each = [replace(params, seed=tasks.seed * 1_000_003 + index) for index in range(tasks.n)]

    def report(index: int, generation: Generation) -> None:
        if on_finish is not None:
            on_finish(judge(problems[index], generation, index, tasks.mode))

    start = time.perf_counter()
    generations = llm.chat([ask(problem.question, tasks.mode) for problem in problems], each, on_finish=report)
    seconds = time.perf_counter() - start
    samples = tuple(judge(problems[index], generation, index, tasks.mode) for index, generation in enumerate(generations))
    return summarise(tasks, samples, seconds=seconds, model=llm.model_path)


def judge(problem: Problem, generation: Generation, index: int = 0, mode: Mode = "parallel") -> Sample:
    """Whether a generation answers a problem, the one of this index among those asked, and what it took."""
    answer = Answer.of(generation)
    asked = question(problem, index)
    return graded(problem.family, asked, answer, grade(asked, answer.answer), mode)


def summarise(tasks: TaskSet, samples: tuple[Sample, ...], *, seconds: float, model: str) -> TaskReport:
    """The report over finished samples."""
    accuracy = fmean(sample.right for sample in samples)
    return TaskReport(
        family=tasks.family,
        mode=tasks.mode,
        n=len(samples),
        seed=tasks.seed,
        accuracy=accuracy,
        stderr=math.sqrt(accuracy * (1 - accuracy) / len(samples)),
        parallelism=fmean(sample.parallelism for sample in samples),
        critical_path_tokens=fmean(sample.critical_path_tokens for sample in samples),
        total_tokens=fmean(sample.total_tokens for sample in samples),
        malformed=sum(sample.malformed for sample in samples),
        forked=fmean(sample.forked for sample in samples),
        seconds=seconds,
        model=model,
        samples=samples,
    )
