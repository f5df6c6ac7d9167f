"""What the samples of a run come to, in a line for each benchmark."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import fmean, variance
from typing import NamedTuple

from .sample import Run, Sample


class Summary(NamedTuple):
    """One benchmark of one run.

    Attributes:
        answers: samples; as many for each question.
        accuracy: share of right ones (pass@1); `stderr` is its standard error, the samples of a question being one cluster.
        parallelism, critical_path_tokens, total_tokens: means over answers.
        forked: share of answers that forked.
        malformed, cut_short: answers that broke the grammar, and that a bound ended.
    """

    benchmark: str
    prompt: str
    answers: int
    accuracy: float
    stderr: float
    parallelism: float
    critical_path_tokens: float
    total_tokens: float
    forked: float
    malformed: int
    cut_short: int


def summarise(run: Run) -> list[Summary]:
    """A line for each benchmark, in the order of the run's settings."""
    by_task: dict[str, list[Sample]] = defaultdict(list)
    for sample in run.samples:
        by_task[sample.task].append(sample)
    order = [name for name in run.settings.get("benchmarks", ()) if name in by_task]
    names = [*order, *(name for name in by_task if name not in order)]
    return [_line(name, str(run.settings.get("prompt", "")), by_task[name]) for name in names]


def _line(name: str, prompt: str, samples: list[Sample]) -> Summary:
    return Summary(
        benchmark=name,
        prompt=prompt,
        answers=len(samples),
        accuracy=fmean(sample.right for sample in samples),
        stderr=clustered_stderr(samples),
        parallelism=fmean(sample.parallelism for sample in samples),
        critical_path_tokens=fmean(sample.critical_path_tokens for sample in samples),
        total_tokens=fmean(sample.total_tokens for sample in samples),
        forked=fmean(sample.forked for sample in samples),
        malformed=sum(sample.malformed for sample in samples),
        cut_short=sum(sample.finish_reason not in ("stop", "malformed") for sample in samples),
    )


def clustered_stderr(samples: list[Sample]) -> float:
    """Standard error of the share of right answers; 0 for a single question, of which nothing can be said.

    With as many answers to every question, the share is the mean of the questions' own shares, and those are independent.
    """
    by_question: dict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        by_question[sample.id].append(sample.right)
    shares = [fmean(right) for right in by_question.values()]
    return math.sqrt(variance(shares) / len(shares)) if len(shares) > 1 else 0.0
