"""From a question, its answer and the grader's verdict to the sample that is kept."""

from __future__ import annotations

from ..prompting import Mode
from .answer import Answer
from .benchmarks.base import Question
from .graders.verdict import Verdict
from .sample import Sample


def graded(task: str, asked: Question, answer: Answer, verdict: Verdict, mode: Mode, epoch: int = 0) -> Sample:
    """The sample. An answer that did not end by itself is wrong, whatever the grader found in it."""
    return Sample(
        task=task,
        id=asked.id,
        epoch=epoch,
        mode=mode,
        question=asked.text,
        expected=asked.expected,
        answer=verdict.answer if verdict.answer else answer.answer,
        text=answer.text,
        right=answer.ended and verdict.right,
        finish_reason=answer.finish_reason,
        malformed=answer.malformed,
        forks=answer.forks,
        total_tokens=answer.total_tokens,
        critical_path_tokens=answer.critical_path_tokens,
        seconds=answer.seconds,
    )
