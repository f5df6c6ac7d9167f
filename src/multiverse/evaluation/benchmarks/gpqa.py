"""GPQA-Diamond: questions with four choices, in an order that is the same every time."""

from __future__ import annotations

from random import Random

from ..graders.choice import LETTERS, grade_choice
from ..graders.verdict import Verdict
from .base import Benchmark, Hub, Question, Row, cell, optional

WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def read(row: Row, number: int) -> Question:
    """A row with a question, the right answer and three wrong ones."""
    text = str(cell(row, number, "Question")).strip()
    right = str(cell(row, number, "Correct Answer")).strip()
    choices = [right, *(str(cell(row, number, name)).strip() for name in WRONG)]
    order = list(range(len(choices)))
    # Shuffled by the question's text, not its number, so that the order does not depend on `limit`.
    Random(f"gpqa/{text}").shuffle(order)
    shuffled = tuple(choices[index] for index in order)
    listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, shuffled, strict=False))
    return Question(
        id=str(optional(row, "Record ID") or number),
        text=f"{text}\n\n{listed}\n\nOne of these is right. Put its letter within \\boxed{{}}.",
        expected=LETTERS[order.index(0)],
        data={"choices": shuffled},
    )


def grade(asked: Question, answer: str) -> Verdict:
    """Grade by the choice that the answer names."""
    return grade_choice(asked.expected, answer, asked.data["choices"])


BENCHMARKS = (
    Benchmark("gpqa", "GPQA-Diamond", grade, hub=Hub("Idavidrein/gpqa", "train", "gpqa_diamond"), read=read, grades="box"),
)
