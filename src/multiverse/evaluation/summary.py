"""What the samples of a run come to, in a line for each benchmark."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import NamedTuple

from .sample import Run, Sample
from .statistics import clustered_stderr


class Summary(NamedTuple):
    """One benchmark of one run.

    Attributes:
        answers: samples; as many for each question.
        accuracy: share of right ones (pass@1); `stderr` is its standard error, the samples of a question being one
            cluster; 0 for a single question, of which nothing can be said.
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
    asked = [sample.id for sample in samples]
    stderr = clustered_stderr([float(sample.right) for sample in samples], asked) if len(set(asked)) > 1 else 0.0
    return Summary(
        benchmark=name,
        prompt=prompt,
        answers=len(samples),
        accuracy=fmean(sample.right for sample in samples),
        stderr=stderr,
        parallelism=fmean(sample.parallelism for sample in samples),
        critical_path_tokens=fmean(sample.critical_path_tokens for sample in samples),
        total_tokens=fmean(sample.total_tokens for sample in samples),
        forked=fmean(sample.forked for sample in samples),
        malformed=sum(sample.malformed for sample in samples),
        cut_short=sum(sample.finish_reason not in ("stop", "malformed") for sample in samples),
    )
