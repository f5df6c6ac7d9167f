"""AIME 2024, AIME 2025 and MATH-500."""

from __future__ import annotations

from ..graders.mathematics import grade_math
from ..graders.verdict import Verdict
from .base import Benchmark, Hub, Question, Row, cell, optional


def read(row: Row, number: int) -> Question:
    """A row with a problem and an answer, under any of the names that these data sets use."""
    problem = str(cell(row, number, "problem", "question")).strip()
    answer = str(cell(row, number, "answer")).strip()
    name = optional(row, "unique_id", "id")
    text = f"{problem}\n\nPut the final answer within \\boxed{{}}."
    return Question(str(number if name is None else name), text, answer, bare=problem)


def grade(asked: Question, answer: str) -> Verdict:
    """Grade by mathematical equivalence."""
    return grade_math(asked.expected, answer)


BENCHMARKS = (
    Benchmark("aime24", "AIME 2024", grade, 8, Hub("HuggingFaceH4/aime_2024", "train"), read, grades="box"),
    Benchmark("aime25", "AIME 2025", grade, 8, Hub("math-ai/aime25", "test"), read, grades="box"),
    Benchmark("math500", "MATH-500", grade, 1, Hub("HuggingFaceH4/MATH-500", "test"), read, grades="box"),
)
