"""The project's own tasks as benchmarks."""

from __future__ import annotations

from ...tasks import FAMILIES, Problem, generate
from ..graders.verdict import Verdict
from .base import Benchmark, Question


def question(problem: Problem, number: int) -> Question:
    """A problem as a question; its number is its id, since a small family asks some questions again."""
    return Question(str(number), problem.question, problem.answer, {"problem": problem})


def grade(asked: Question, answer: str) -> Verdict:
    """By the problem's own rule."""
    problem = asked.data["problem"]
    assert isinstance(problem, Problem)
    return Verdict(problem.check(answer), answer)


def family(name: str) -> Benchmark:
    """A family, from its test split."""

    def make(count: int, seed: int) -> list[Question]:
        return [question(problem, number) for number, problem in enumerate(generate(name, count, seed=seed, split="test"))]

    return Benchmark(name, f"the family {name} of this project's tasks", grade, make=make)


BENCHMARKS = tuple(family(name) for name in FAMILIES)
