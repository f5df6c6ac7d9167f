"""Samples and runs made up for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiverse.evaluation.sample import Run, Sample
from multiverse.structure import Block, Document, render

TEXT = render(Document(("Two.", Block(("Mia", "Tom"), (("1+2=3.",), ("4+5=9.",)), "3+9=12.")), "Answer: 12"))


def sample(number: int, right: bool, **changes: Any) -> Sample:
    """The answer to question `number`."""
    values: dict[str, Any] = {
        "task": "worksheet",
        "id": str(number),
        "epoch": 0,
        "mode": "parallel",
        "question": f"What is {number}?",
        "expected": "12",
        "answer": "12" if right else "13",
        "text": TEXT,
        "right": right,
        "finish_reason": "stop",
        "malformed": False,
        "forks": 1,
        "total_tokens": 100 + number,
        "critical_path_tokens": 50,
        "critical_path_steps": 40,
        "seconds": 2.0,
    }
    return Sample(**{**values, **changes})


def run(name: str, samples: Sequence[Sample], **changes: Any) -> Run:
    """A finished run."""
    values: dict[str, Any] = {"model": "some/model", "settings": {"seed": 7}, "machine": "a machine", "date": "2026-11-27"}
    return Run(name, **{**values, "seconds": 12.0, **changes}, samples=tuple(samples))
