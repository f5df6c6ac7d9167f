"""Reports of finished runs: every measure with its error by task and mode, and comparisons of runs on common questions.

`markdown.py` writes them and `plots.py` draws them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any, NamedTuple

from ..errors import DataError
from ..prompting import Mode
from .sample import Run, Sample
from .statistics import Difference, Estimate, mean_of, paired, pass_at, share_of

MODES: tuple[Mode, ...] = ("sequential", "parallel")
"""In the order of tables."""


class Measure(NamedTuple):
    """A number per sample, of which reports give the mean.

    Attributes:
        name: in JSON.
        title: in tables.
        of: its value.
        share: whether the value is 0 or 1, and the mean is written in percent.
        digits: after the decimal point.
    """

    name: str
    title: str
    of: Callable[[Sample], float]
    share: bool = False
    digits: int = 0


MEASURES = (
    Measure("pass@1", "pass@1, %", lambda sample: sample.right, share=True, digits=1),
    Measure("parallelism", "parallelism", lambda sample: sample.parallelism, digits=2),
    Measure("critical_path_tokens", "critical path", lambda sample: sample.critical_path_tokens),
    Measure("critical_path_steps", "steps", lambda sample: sample.critical_path_steps),
    Measure("total_tokens", "tokens", lambda sample: sample.total_tokens),
    Measure("seconds", "seconds", lambda sample: sample.seconds, digits=2),
    Measure("forks", "forks", lambda sample: sample.forks, digits=2),
    Measure("malformed", "malformed, %", lambda sample: sample.malformed, share=True, digits=1),
)


@dataclass(frozen=True)
class Group:
    """All samples of one run on one task, asked in one mode.

    Attributes:
        number: of the run in the report, from 0.
        run: name of the run, unique within the report.
    """

    number: int
    run: str
    task: str
    mode: Mode
    samples: tuple[Sample, ...] = field(repr=False)

    @property
    def title(self) -> str:
        """Run, task and mode."""
        return f"{self.run}, {self.task}, {self.mode}"

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Each measure's mean with its error, samples of one question being a cluster."""
        questions = [sample.id for sample in self.samples]
        return {
            measure.name: (share_of if measure.share else mean_of)([measure.of(sample) for sample in self.samples], questions)
            for measure in MEASURES
        }

    @cached_property
    def pass_at_k(self) -> tuple[int, Estimate] | None:
        """pass@k for the largest k that all questions have samples for; `None` if that is 1."""
        return max(self.passes.items(), default=None)

    @cached_property
    def passes(self) -> dict[int, Estimate]:
        """pass@k for k = 2, 4, 8, ... and for the largest k that all questions have samples for."""
        asked = Counter(sample.id for sample in self.samples)
        right = Counter(sample.id for sample in self.samples if sample.right)
        most = min(asked.values())
        ks = sorted({k for k in (*(2**power for power in range(1, most.bit_length())), most) if 2 <= k <= most})
        return {k: mean_of([pass_at(k, n, right[question]) for question, n in asked.items()], list(asked)) for k in ks}

    def values(self, measure: Measure) -> dict[Hashable, list[float]]:
        """A measure's values under each question; the same id with another text is another question."""
        values: dict[Hashable, list[float]] = {}
        for sample in self.samples:
            values.setdefault((sample.id, sample.question), []).append(float(measure.of(sample)))
        return values

    def summary(self) -> dict[str, Any]:
        """What `eval NAME --json` prints of it; the standard error of a single question is 0."""
        samples, error = self.samples, self.estimates["pass@1"].stderr
        means = {measure.name: fmean(measure.of(sample) for sample in samples) for measure in MEASURES}
        return {
            "benchmark": self.task,
            "mode": self.mode,
            "answers": len(samples),
            "accuracy": means["pass@1"],
            "stderr": 0.0 if math.isnan(error) else error,
            **{f"pass@{k}": estimate.mean for k, estimate in self.passes.items()},
            **{name: means[name] for name in ("parallelism", "critical_path_tokens", "critical_path_steps", "total_tokens")},
            "forked": fmean(sample.forked for sample in samples),
            "malformed": sum(sample.malformed for sample in samples),
            "cut_short": sum(sample.cut_short for sample in samples),
        }

    def to_json(self) -> dict[str, Any]:
        """All of it but the samples."""
        finished = Counter(sample.finish_reason for sample in self.samples)
        values: dict[str, Any] = {
            "run": self.run,
            "task": self.task,
            "mode": self.mode,
            "questions": len({sample.id for sample in self.samples}),
            "samples": len(self.samples),
            **{name: estimate_json(estimate) for name, estimate in self.estimates.items()},
            "finish_reasons": dict(finished.most_common()),
        }
        return values | {f"pass@{k}": estimate_json(estimate) for k, estimate in self.passes.items()}


@dataclass(frozen=True)
class Comparison:
    """The differences `second` - `first`, on the questions that both were asked.

    Attributes:
        differences: under each measure's name.
    """

    first: Group
    second: Group
    differences: dict[str, Difference]

    @property
    def questions(self) -> int:
        """Number of common questions."""
        return next(iter(self.differences.values())).questions

    def to_json(self) -> dict[str, Any]:
        """Plain objects."""
        sides = {
            name: {"run": group.run, "task": group.task, "mode": group.mode}
            for name, group in (("first", self.first), ("second", self.second))
        }
        return {**sides, **{name: difference._asdict() for name, difference in self.differences.items()}}


@dataclass(frozen=True)
class Report:
    """One or more runs, their groups in order, and comparisons."""

    runs: tuple[Run, ...]
    groups: tuple[Group, ...]
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain objects, without the samples."""
        return {
            "runs": [{name: value for name, value in vars(run).items() if name != "samples"} for run in self.runs],
            "results": [group.to_json() for group in self.groups],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }


def report(runs: Sequence[Run], *, seed: int = 0) -> Report:
    """Make the report of runs.

    The modes of a single run are compared; of several runs, each later one is compared with the first (see `compare`). Pairs
    with fewer than two common questions are left out.

    Args:
        seed: of the bootstrap in comparisons.

    Raises:
        DataError: a run holds no samples.
    """
    runs = _named(runs)
    groups = [group for number, run in enumerate(runs) for group in _groups(number, run)]
    first = [group for group in groups if group.number == 0]
    pairs = [
        pair for number in range(1, len(runs)) for pair in _pairs(first, [group for group in groups if group.number == number])
    ]
    if len(runs) == 1:
        pairs = [(a, b) for a in groups for b in groups if (a.task, a.mode, b.mode) == (b.task, *MODES)]
    found = [comparison for a, b in pairs if (comparison := _compared(a, b, seed)) is not None]
    return Report(runs, tuple(groups), tuple(found))


def compare(first: Run, second: Run, *, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare two runs on their common questions, by task and mode.

    Runs of one mode each are compared across modes.

    Raises:
        DataError: they have no task with two common questions.
    """
    comparisons = report([first, second], seed=seed).comparisons
    if not comparisons:
        names = f"{first.name!r} and {second.name!r}"
        raise DataError(
            f"{names} cannot be compared: no task was asked in both, in the same mode, with two questions in common"
        )
    return comparisons


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON; NaN is null."""
    return {name: None if math.isnan(value) else value for name, value in estimate._asdict().items()}


def _named(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs under unique names."""
    seen: Counter[str] = Counter()
    named = []
    for run in runs:
        if not run.samples:
            raise DataError(f"the run {run.name!r} holds no samples")
        seen[run.name] += 1
        named.append(replace(run, name=f"{run.name} ({seen[run.name]})") if seen[run.name] > 1 else run)
    return tuple(named)


def _groups(number: int, run: Run) -> list[Group]:
    parts: dict[tuple[str, Mode], list[Sample]] = {}
    for sample in run.samples:
        parts.setdefault((sample.task, sample.mode), []).append(sample)
    # Tasks in the order of the run's settings, the modes of one next to each other.
    found = dict.fromkeys(task for task, _ in parts)
    tasks = dict.fromkeys([*(name for name in run.settings.get("benchmarks", ()) if name in found), *found])
    return [
        Group(number, run.name, task, mode, tuple(parts[task, mode]))
        for task in tasks
        for mode in MODES
        if (task, mode) in parts
    ]


def _pairs(first: list[Group], second: list[Group]) -> list[tuple[Group, Group]]:
    same = [(a, b) for a in first for b in second if (a.task, a.mode) == (b.task, b.mode)]
    one_each = len({group.mode for group in first}) == len({group.mode for group in second}) == 1
    return same if same or not one_each else [(a, b) for a in first for b in second if a.task == b.task]


def _compared(first: Group, second: Group, seed: int) -> Comparison | None:
    sides = {measure.name: (first.values(measure), second.values(measure)) for measure in MEASURES}
    if len(sides[MEASURES[0].name][0].keys() & sides[MEASURES[0].name][1].keys()) < 2:
        return None
    return Comparison(first, second, {name: paired(a, b, seed=seed) for name, (a, b) in sides.items()})


def spread(group: Group) -> list[float]:
    """Parallelism of each question, the mean over its samples."""
    parallelism = next(measure for measure in MEASURES if measure.name == "parallelism")
    return [fmean(values) for values in group.values(parallelism).values()]
