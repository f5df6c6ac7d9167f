"""This project's task families as benchmarks."""

from __future__ import annotations

from ...errors import DataError
from ...tasks import FAMILIES, Problem, generate
from ..config import EvaluationConfig
from ..graders.verdict import Verdict
from .base import Benchmark, Question

FAMILY_SIZE = 200
"""Questions of a family unless a limit is given; families are endless."""


def grade(asked: Question, answer: str) -> Verdict:
    """Grade by the problem's own rule."""
    problem = asked.data["problem"]
    assert isinstance(problem, Problem)
    return Verdict(problem.check(answer), answer)


def family(name: str) -> Benchmark:
    """The benchmark of a family, from its test split."""

    def make(config: EvaluationConfig) -> list[Question]:
        count = FAMILY_SIZE if config.limit is None else config.limit
        try:
            problems = generate(name, count, seed=config.seed, width=config.width, depth=config.depth, wording=config.worded)
        except ValueError as error:
            raise DataError(str(error)) from None
        # The id is the number in the stream: small families repeat questions.
        return [
            Question(str(number), problem.question, problem.answer, {"problem": problem})
            for number, problem in enumerate(problems)
        ]

    return Benchmark(name, f"the family {name} of this project's tasks", grade, make=make)


BENCHMARKS = tuple(family(name) for name in FAMILIES)
