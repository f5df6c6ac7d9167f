"""The scorer of questions with instructions that can be checked (those of IFEval), for a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....evaluation.graders.instructions import grade_instructions


def score(extra: Mapping[str, Any], text: str) -> float:
    """1 if a text follows all instructions of a question, else 0."""
    return float(grade_instructions(text, extra["names"], extra["arguments"]).right)
