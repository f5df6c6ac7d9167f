"""A report as a page that needs no network: one HTML file with results, plots, comparisons and every sample as a tree.

Large runs are cut, and the page says so: all figures above the samples are of all samples, but it holds the figures of at most
`MOST_ROWS` samples, and as many texts as fit in `TEXT_BUDGET`, by question, so that those of compared runs stand together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

from ..data.write import whole
from ..errors import DataError
from ..pages import embedded, fill, tree_json
from .markdown import PASS, format_mean, format_value, labels
from .recording import readable
from .report import MEASURES, Comparison, Group, Report
from .sample import Sample
from .statistics import LEVEL

PAGE_FILE = "report.html"
MOST_ROWS = 20_000
TEXT_BUDGET = 32_000_000
"""Most bytes of texts in a page; browsers open a page of this size without trouble."""

_EXCERPT = 160
_PLOTTED = ("pass@1", "parallelism", "critical_path_tokens", "total_tokens", "seconds", "malformed")

Question = tuple[str, str, str]
"""Task, id and text: the same id with another text is another question."""


@dataclass(frozen=True)
class _Row:
    """A sample with the number of its group and of its question."""

    group: int
    question: int
    sample: Sample


def write_page(report: Report, path: Path, *, on_sample: Callable[[], None] | None = None) -> None:
    """Write the page; a file of this name is replaced.

    Args:
        on_sample: called for each sample.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be written ({error.strerror or error}): give a path that can be") from error
    with whole(path) as part, part.open("w", encoding="utf-8", errors="replace") as stream:
        for piece in page(report, on_sample=on_sample):
            stream.write(piece)


def page(report: Report, *, on_sample: Callable[[], None] | None = None) -> Iterator[str]:
    """The page, in pieces."""
    rows, questions = _rows(report)
    kept = rows[:MOST_ROWS]
    texts, shown = _texts(kept, on_sample)
    data = {
        "level": f"{LEVEL:.0%}",
        "runs": [_run(report, number) for number in range(len(report.runs))],
        "groups": [_group(group) for group in report.groups],
        "measures": [_measure(report, name) for name in _PLOTTED],
        "comparisons": [_comparison(report, one, questions) for one in report.comparisons],
        "samples": len(rows),
        "shown": shown,
        "rows": [_figures(row) for row in kept],
    }
    title = embedded(", ".join(run.name for run in report.runs))[1:-1]
    template = (files(__package__) / "page.html").read_text(encoding="utf-8")
    return fill(template, {"title": title, "data": embedded(data), "texts": texts})


def _rows(report: Report) -> tuple[list[_Row], dict[Question, int]]:
    """All samples by question: the first question of each task in all groups, then the second, and so on."""
    numbers: dict[Question, int] = {}
    within: dict[Question, int] = {}
    asked: dict[str, int] = {}
    rows = []
    for index, group in enumerate(report.groups):
        for sample in group.samples:
            question = (sample.task, sample.id, sample.question)
            if question not in numbers:
                numbers[question] = len(numbers)
                within[question] = asked[sample.task] = asked.get(sample.task, -1) + 1
            rows.append((within[question], numbers[question], _Row(index, numbers[question], sample)))
    rows.sort(key=lambda row: row[:2])
    return [row for *_, row in rows], numbers


def _figures(row: _Row) -> list[Any]:
    """A line of the table, in the order of `COLUMNS` in the page."""
    sample = row.sample
    return [
        row.group,
        row.question,
        sample.id,
        sample.epoch,
        _excerpt(sample.question),
        _excerpt(sample.answer),
        _excerpt(sample.expected),
        int(sample.right),
        sample.finish_reason,
        int(sample.malformed),
        sample.forks,
        round(sample.parallelism, 4),
        sample.critical_path_tokens,
        sample.critical_path_steps,
        sample.total_tokens,
        round(sample.seconds, 3),
    ]


def _excerpt(text: str) -> str:
    flat = " ".join(text[: 8 * _EXCERPT].split())
    return flat if len(flat) <= _EXCERPT else f"{flat[:_EXCERPT]}…"


def _texts(rows: list[_Row], on_sample: Callable[[], None] | None) -> tuple[list[str], int]:
    """The elements with the texts, each question once, and for how many rows they are there."""
    found: list[str] = []
    asked: set[int] = set()
    room, shown = TEXT_BUDGET, 0
    for number, row in enumerate(rows):
        if room > 0:
            pieces = [_element(f"text-{number}", _text(row.sample))]
            if row.question not in asked:
                pieces.append(_element(f"question-{row.question}", row.sample.question))
            room -= sum(len(piece.encode()) for piece in pieces)
            # After the first that does not fit none is there, so that the page can say which are.
            if room > 0:
                asked.add(row.question)
                found += pieces
                shown += 1
        if on_sample is not None:
            on_sample()
    return found, shown


def _element(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{embedded(value)}</script>\n'


def _text(sample: Sample) -> dict[str, Any]:
    read = readable(sample.text)
    whole_text = {"tree": tree_json(read.document)} if read.document is not None else {"text": sample.text}
    return {**whole_text, "answer": sample.answer, "expected": sample.expected}


def _run(report: Report, number: int) -> dict[str, Any]:
    run = report.runs[number]
    facts = [("model", run.model), ("began", run.date), ("wall-clock, s", f"{run.seconds:,.1f}"), ("machine", run.machine)]
    facts += [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in run.settings.items()
    ]
    return {"name": run.name, "model": run.model, "samples": len(run.samples), "facts": facts}


def _group(group: Group) -> dict[str, Any]:
    summary = group.summary()
    passes = {f"pass@{k}": format_mean(PASS, estimate) for k, estimate in group.passes.items()}
    return {
        "run": group.number,
        "task": group.task,
        "mode": group.mode,
        "samples": len(group.samples),
        "questions": group.estimates[PASS.name].questions,
        "passes": passes,
        "forked": f"{summary['forked']:.0%}",
        "cut": summary["cut_short"],
    }


def _measure(report: Report, name: str) -> dict[str, Any]:
    """A measure of all groups: as text, and its mean and interval for the plot."""
    measure = next(one for one in MEASURES if one.name == name)
    estimates = [group.estimates[name] for group in report.groups]
    scale = 100 if measure.share else 1
    return {
        "name": name,
        "title": measure.title,
        "share": measure.share,
        "digits": measure.digits,
        "texts": [format_mean(measure, one) for one in estimates],
        "points": [[None if math.isnan(end) else scale * end for end in (one.mean, one.low, one.high)] for one in estimates],
    }


def _comparison(report: Report, comparison: Comparison, numbers: dict[Question, int]) -> dict[str, Any]:
    """A comparison: the differences as text, and of each question which side was right more often."""
    first, second, task = labels(comparison)
    rights = [_rights(comparison.first), _rights(comparison.second)]
    outcome = {}
    for question in rights[0].keys() & rights[1].keys():
        a, b = rights[0][question], rights[1][question]
        outcome[numbers[question]] = "second" if b > a else "first" if a > b else "both" if a >= 0.5 else "neither"
    groups = [report.groups.index(comparison.first), report.groups.index(comparison.second)]
    table = []
    for measure in MEASURES:
        own = comparison.differences[measure.name]
        mean, low, high = (format_value(measure, value, signed=True) for value in own[:3])
        error = format_value(measure, own.stderr, finer=True)
        p = "< 0.001" if own.p < 0.001 else f"{own.p:.3f}"
        table.append([measure.title, f"{mean} ± {error}", f"{low} to {high}", p])
    several = any(len(values) > 1 for group in (comparison.first, comparison.second) for values in group.values(PASS).values())
    sides = {"first": first, "second": second, "task": task, "groups": groups, "several": several}
    return {**sides, "questions": comparison.questions, "table": table, "outcome": dict(sorted(outcome.items()))}


def _rights(group: Group) -> dict[Question, float]:
    """The share of right answers to each question."""
    values = group.values(PASS)
    return {(group.task, *key): fmean(found) for key, found in values.items() if isinstance(key, tuple)}
