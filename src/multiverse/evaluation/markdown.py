"""A report as a folder: `report.md`, `report.json`, two plots, and the samples.

Each number in the tables of `report.md` links to the list of its samples; each line of a list links to a file that the page
opens.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .plots import draw_accuracy, draw_parallelism, save
from .recording import PAGE, file_name, link, recording, slug
from .report import MEASURES, Comparison, Group, Measure, Report
from .sample import Sample
from .statistics import LEVEL, Difference, Estimate

REPORT, JSON, LISTS = "report.md", "report.json", "samples"
PLOTS = {"accuracy.svg": draw_accuracy, "parallelism.svg": draw_parallelism}
PASS = MEASURES[0]
_WIDEST = 60  # characters of an answer in a list


def write_report(report: Report, out: Path, *, page: str = PAGE, on_sample: Callable[[], None] | None = None) -> None:
    """Write the folder; an earlier report in it is replaced.

    Args:
        page: where the page is served, for the links that open a sample in it.
        on_sample: called after each sample's file.

    Raises:
        DataError: it holds something else than a report, or cannot be written.
        ExtraError: matplotlib is not installed.
    """
    try:
        if out.exists() and any(out.iterdir()) and not (out / JSON).exists():
            raise DataError(f"{str(out)!r} holds something else than a report: give an empty folder, or one that is not there")
        shutil.rmtree(out / LISTS, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        for number, group in enumerate(report.groups):
            _write_samples(report, group, out / LISTS / _folder(number, group), page, on_sample)
        for name, draw in PLOTS.items():
            save(draw(report), out / name)
        (out / REPORT).write_text(to_markdown(report), encoding="utf-8")
        (out / JSON).write_text(json.dumps(_linked(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{str(out)!r} cannot be written ({error.strerror or error}): give a folder that can be") from error


def to_markdown(report: Report) -> str:
    """The text of `report.md`."""
    parts = [
        "# Report",
        table(
            ("run", "model", "samples", "began", "wall-clock, s", "machine"),
            [
                (
                    cell(run.name),
                    cell(run.model),
                    str(len(run.samples)),
                    run.date,
                    f"{run.seconds:,.1f}",
                    cell(run.machine, None),
                )
                for run in report.runs
            ],
        ),
        "## Results",
        _results(report),
        _legend(report),
        "![Accuracy against the critical path](accuracy.svg)",
        "![How parallel the answers are](parallelism.svg)",
    ]
    if report.comparisons:
        parts += ["## Compared", _comparisons(report), COMPARED]
    return "\n\n".join([*parts, "## Samples", SAMPLES]) + "\n"


COMPARED = (
    "Each entry is what the second has more than the first, as a mean over the questions that both were asked, with its "
    f"{LEVEL:.0%} interval in brackets and p: the probability of a difference as far from zero if there were none "
    "(bootstrap over questions)."
)
SAMPLES = (
    "Every number of the results links to the list of its samples. To open one in the page, start `multiverse serve`; then "
    "follow its link, or press *Open* (O) in the page and choose the sample's file."
)


def _results(report: Report) -> str:
    ks = sorted({group.pass_at_k[0] for group in report.groups if group.pass_at_k is not None})
    head = ["run", "task", "mode", "questions", "samples"]
    for measure in MEASURES:
        head.append(measure.title)
        if measure.name == "pass@1":
            head += [f"{LEVEL:.0%} interval", *(f"pass@{k}, %" for k in ks)]
    rows = []
    for number, group in enumerate(report.groups):
        to = f"{LISTS}/{_folder(number, group)}/list.md"
        first = group.estimates["pass@1"]
        row = [cell(group.run), cell(group.task), group.mode, str(first.questions), f"[{first.samples}]({to})"]
        for measure in MEASURES:
            row.append(f"[{format_mean(measure, group.estimates[measure.name])}]({to})")
            if measure.name == "pass@1":
                at = group.pass_at_k
                row.append(f"{100 * first.low:.1f} to {100 * first.high:.1f}")
                row += [f"[{format_mean(measure, at[1])}]({to})" if at is not None and at[0] == k else "" for k in ks]
        rows.append(row)
    return table(head, rows, right=3)


def _legend(report: Report) -> str:
    lines = [
        "Means over samples, ± standard error, the samples of one question being one cluster.",
        "*pass@1*: a right answer, in a generation that ended by itself (or was closed for the budget that it was given); "
        f"its {LEVEL:.0%} interval is Wilson's.",
        "*Critical path*: the longest chain of generated tokens; *steps*: the forwards on it, as tokens about which the "
        "grammar leaves no choice are computed together; *parallelism*: tokens over the critical path.",
        "*Seconds*: of one answer, with others running beside it.",
        "*Forks*: blocks opened in an answer.",
        "*Malformed*: broke the grammar, or ended by itself and does not parse.",
    ]
    if any(group.pass_at_k is not None for group in report.groups):
        lines.append("*pass@k*: chance that one of k samples is right (unbiased estimate).")
    return "\n".join(lines)


def _comparisons(report: Report) -> str:
    rows = [
        [
            *(cell(text) for text in labels(comparison)),
            str(comparison.questions),
            *(format_difference(measure, comparison.differences[measure.name]) for measure in MEASURES),
        ]
        for comparison in report.comparisons
    ]
    return table(("first", "second", "task", "questions", *(measure.title for measure in MEASURES)), rows, right=3)


def labels(comparison: Comparison) -> tuple[str, str, str]:
    """Labels of first, second and task of a comparison; run and mode are named where they differ."""
    first, second = comparison.first, comparison.second
    runs = (first.run, second.run) if first.run != second.run else ("", "")
    modes = (first.mode, second.mode) if first.mode != second.mode else ("", "")
    sides = [", ".join(filter(None, (run, mode))) for run, mode in zip(runs, modes, strict=True)]
    task = first.task if first.mode != second.mode else f"{first.task}, {first.mode}"
    return sides[0], sides[1], task


def format_mean(measure: Measure, estimate: Estimate) -> str:
    """A mean with its standard error, in the measure's digits."""
    mean = format_value(measure, estimate.mean)
    return mean if math.isnan(estimate.stderr) else f"{mean} ± {format_value(measure, estimate.stderr, finer=True)}"


def format_difference(measure: Measure, difference: Difference) -> str:
    """A difference with its interval and p."""
    mean, low, high = (format_value(measure, value, signed=True) for value in difference[:3])
    return f"{mean} [{low}, {high}], p {'<' if difference.p < 0.001 else '='} {max(difference.p, 0.001):.3f}"


def format_value(measure: Measure, value: float, *, signed: bool = False, finer: bool = False) -> str:
    """A value in the measure's digits; `finer` gives small errors of whole numbers a digit more."""
    value = 100 * value if measure.share else value
    digits = 1 if finer and not measure.digits and abs(value) < 10 else measure.digits
    return f"{value:{'+' if signed else ''},.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 99) -> str:
    """A Markdown table; columns from `right` on are set to the right."""
    rule = ["--:" if column >= right else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def cell(text: str, widest: int | None = _WIDEST) -> str:
    """Text for one table cell, Markdown escaped, cut after `widest` characters."""
    flat = " ".join(text.split())
    if widest is not None and len(flat) > widest:
        flat = flat[: widest - 1] + "…"
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#!~$" else letter for letter in flat)


def _folder(number: int, group: Group) -> str:
    return f"{number + 1:02d}-{slug(group.run)}-{slug(group.task)}-{group.mode}"


def _write_samples(report: Report, group: Group, folder: Path, page: str, on_sample: Callable[[], None] | None) -> None:
    """A group's list, and a file for each sample."""
    folder.mkdir(parents=True)
    rows = []
    for index, sample in enumerate(group.samples, 1):
        name = file_name(index, sample)
        recorded = recording(sample, report.runs[group.number].model)
        (folder / name).write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        rows.append(_row(sample, name, link(recorded, page)))
        if on_sample is not None:
            on_sample()
    foot = ["mean", "", "", "", ""]
    foot += [f"**{format_mean(measure, group.estimates[measure.name])}**" for measure in MEASURES] + ["", ""]
    head = ("question", "epoch", "ended", "answer", "expected", *(measure.title for measure in MEASURES), "file", "page")
    text = table(head, [*rows, foot], right=5)
    back = f"[Back to the report](../../{REPORT})"
    (folder / "list.md").write_text(f"# {cell(group.title, None)}\n\n{back}\n\n{text}\n", encoding="utf-8")


def _row(sample: Sample, name: str, address: str | None) -> list[str]:
    values = [format_value(measure, measure.of(sample)) for measure in MEASURES]
    return [
        cell(sample.id),
        str(sample.epoch),
        sample.finish_reason,
        cell(sample.answer) or "-",
        cell(sample.expected),
        *values,
        f"[file]({name})",
        f"[open]({address})" if address is not None else "",
    ]


def _linked(report: Report) -> dict[str, Any]:
    """The report as JSON, with the folder of each result's samples."""
    values = report.to_json()
    for number, (group, result) in enumerate(zip(report.groups, values["results"], strict=True)):
        result["list"] = f"{LISTS}/{_folder(number, group)}/list.md"
    return values
