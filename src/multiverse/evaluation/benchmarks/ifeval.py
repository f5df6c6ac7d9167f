"""IFEval: instructions that a program can check."""

from __future__ import annotations

import inspect
from typing import Any

from ...errors import DataError
from ..graders.instructions import CHECKS, grade_instructions
from ..graders.verdict import Verdict
from .base import Benchmark, Hub, Question, Row, cell


def read(row: Row, number: int) -> Question:
    """A row with a prompt, the kinds of its instructions, and the arguments of each."""
    names = [str(name) for name in cell(row, number, "instruction_id_list")]
    # Parquet has all columns in every row, those of other instructions without a value.
    given = [{name: value for name, value in (own or {}).items() if value is not None} for own in cell(row, number, "kwargs")]
    if len(names) != len(given):
        raise DataError(f"row {number + 1} has {len(names)} instructions and arguments for {len(given)}")
    for name, own in zip(names, given, strict=True):
        _check(name, own, number)
    return Question(
        id=str(cell(row, number, "key")),
        text=str(cell(row, number, "prompt")).strip(),
        expected=f"an answer that follows {', '.join(names)}",
        data={"names": names, "arguments": given},
    )


def grade(asked: Question, answer: str) -> Verdict:
    """Grade by all of its instructions."""
    return grade_instructions(answer, asked.data["names"], asked.data["arguments"])


def _check(name: str, arguments: dict[str, Any], number: int) -> None:
    if name not in CHECKS:
        raise DataError(f"row {number + 1} has an instruction {name!r}, which is none of the {len(CHECKS)} kinds")
    try:
        inspect.signature(CHECKS[name]).bind("", **arguments)
    except TypeError as error:
        raise DataError(f"row {number + 1} has wrong arguments for {name}: {error}") from None


BENCHMARKS = (Benchmark("ifeval", "IFEval", grade, hub=Hub("google/IFEval", "train"), read=read, grades="content"),)
