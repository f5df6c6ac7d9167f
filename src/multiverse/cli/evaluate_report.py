"""`multiverse eval report` and `compare`: results of finished runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bars import bars
from .declared import OUT, Json, Seed
from .errors import InputError
from .jsonio import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..evaluation.report import Comparison, Report

RunFolder = "Folder of a finished run (run.json and samples.jsonl)."


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help=RunFolder, show_default=False)],
    out: Annotated[Path | None, OUT] = None,
    page_url: Annotated[
        str,
        typer.Option(
            "--page-url", metavar="URL", help="Where multiverse serve has its page, for links that open a sample in it."
        ),
    ] = "http://127.0.0.1:8000/",
    judged_by: Annotated[
        str | None,
        typer.Option(
            "--judged-by",
            metavar="NAME",
            help="Of runs on dialogues, the judge whose verdicts are taken.",
            show_default="the one that the run names",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Report runs: accuracy, parallelism, critical path, tokens, time; of runs on dialogues, what share of checklists succeeds.

    Every number has its standard error, the samples of one question being one cluster. The modes of a single run are compared;
    of several runs, each later one is compared with the first, by a bootstrap with --seed. With --out DIR, a folder gets
    report.html, a page with plots, comparisons and every sample as a tree, and Markdown, JSON, plots and the samples behind
    every number; with --out FILE.html, the page is all that is written. The page needs no network and can be sent to somebody.

    [bold]Examples[/bold]
    multiverse eval report runs/aime24
    multiverse eval report runs/before runs/after --out report
    multiverse eval report runs/before runs/after --out compared.html
    """
    from ..evaluation.report import report as summarize
    from ..evaluation.sample import read_run

    if _on_dialogues(runs):
        if out is not None and _is_page(out):
            raise InputError(f"--out {out}: the page of runs on dialogues has images beside it: give a folder")
        _report_dialogues(runs, out, judged_by, seed, as_json=as_json)
        return
    if judged_by is not None:
        raise InputError("--judged-by is for runs on dialogues: leave it out")
    summed = summarize([read_run(run) for run in runs], seed=seed)
    if out is not None:
        _write(summed, out, page_url)
    if as_json:
        print_json(summed.to_json())
    else:
        print_results(summed)
        _print_comparisons(summed.comparisons)


def _write(summed: Report, out: Path, page_url: str) -> None:
    """The folder with everything, or the page alone."""
    from ..evaluation.markdown import REPORT, write_report
    from ..evaluation.page import PAGE_FILE, write_page

    alone = _is_page(out)
    page = out if alone else out / PAGE_FILE
    with _bar("samples", sum(len(group.samples) for group in summed.groups) * (1 if alone else 2)) as advance:
        if not alone:
            write_report(summed, out, page=page_url, on_sample=advance)
        write_page(summed, page, on_sample=advance)
    print(f"wrote {page}" if alone else f"wrote {out / REPORT} and {page}", file=sys.stderr)


def _is_page(out: Path) -> bool:
    return out.suffix.lower() in (".html", ".htm") and not out.is_dir()


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help=RunFolder, show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help=RunFolder, show_default=False)],
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare run B with run A, on the questions that both were asked.

    A paired bootstrap over questions, with --seed: difference, interval, p. Runs of one mode each are compared across modes.

    [bold]Example[/bold]
    multiverse eval compare runs/sequential runs/parallel
    """
    from ..evaluation.report import compare as compare_runs
    from ..evaluation.sample import read_run

    if _on_dialogues([first, second]):
        _compare_dialogues(first, second, seed, as_json=as_json)
        return
    comparisons = compare_runs(read_run(first), read_run(second), seed=seed)
    if as_json:
        print_json({"comparisons": [comparison.to_json() for comparison in comparisons]})
    else:
        _print_comparisons(comparisons)


def _on_dialogues(folders: Sequence[Path]) -> bool:
    """Whether runs are on dialogues; all of them, or none."""
    from ..evaluation.dialogues.store import is_dialogue_run

    found = [is_dialogue_run(folder) for folder in folders]
    if any(found) and not all(found):
        raise InputError(f"{str(folders[found.index(False)])!r} is no run on dialogues, and others are: report them apart")
    return any(found)


def _report_dialogues(runs: Sequence[Path], out: Path | None, judge: str | None, seed: int, *, as_json: bool) -> None:
    from ..evaluation.dialogues.page import PAGE, write_dialogue_report
    from ..evaluation.dialogues.report import report_dialogues
    from ..evaluation.dialogues.store import read_dialogue_run
    from .dialogue_tables import print_dialogues

    read = [read_dialogue_run(run) for run in runs]
    summed = report_dialogues(read, judge=judge, seed=seed)
    if out is not None:
        with _bar("dialogues", len({dialogue.id for run in read for dialogue in run.dialogues})) as advance:
            write_dialogue_report(summed, runs, out, on_dialogue=advance)
        print(f"wrote {out / PAGE}", file=sys.stderr)
    if as_json:
        print_json(summed.to_json())
    else:
        print_dialogues(summed)


def _compare_dialogues(first: Path, second: Path, seed: int, *, as_json: bool) -> None:
    from ..evaluation.dialogues.report import report_dialogues
    from ..evaluation.dialogues.store import read_dialogue_run
    from .dialogue_tables import print_comparisons

    summed = report_dialogues([read_dialogue_run(first), read_dialogue_run(second)], seed=seed)
    if as_json:
        print_json({"note": summed.to_json()["note"], "comparisons": summed.to_json()["comparisons"]})
    else:
        print_comparisons(summed)


def print_results(summed: Report) -> None:
    """A table for each run: a line for each benchmark and mode. Fits in 80 columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..evaluation.markdown import PASS, format_mean, format_value
    from ..evaluation.report import MEASURES

    console = Console()
    measures = [measure for measure in MEASURES if measure.name not in ("pass@1", "forks")]
    for number, run in enumerate(summed.runs):
        title = Text(f"{run.name} · {run.model} · {run.date} · {run.seconds:,.0f} s", "bold")
        table = Table(box=None, collapse_padding=True, pad_edge=False, title=title, title_justify="left")
        table.add_column("task", no_wrap=True)
        table.add_column("mode", no_wrap=True)
        headings = ("paral-\nlelism", "critical\npath", "tokens", "sec-\nonds", "mal-\nformed", "forked", "cut")
        for heading in ("n", "pass@1, %", *headings):
            table.add_column(heading, justify="right", no_wrap=True)
        for group in summed.groups:
            if group.number == number:
                means = [format_value(measure, group.estimates[measure.name].mean) for measure in measures]
                right = format_mean(PASS, group.estimates[PASS.name])
                row = group.summary()
                shares = f"{row['forked']:.0%}", str(row["cut_short"])
                table.add_row(Text(group.task), group.mode, str(row["answers"]), right, *means, *shares)
        console.print(table)
        for group in summed.groups:
            if group.number == number and group.passes:
                passes = (f"pass@{k} {format_mean(PASS, estimate)}%" for k, estimate in group.passes.items())
                console.print(Text(f"{group.task} {group.mode}: {', '.join(passes)}"), soft_wrap=True)
        console.print()


def _print_comparisons(comparisons: Sequence[Comparison]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..evaluation.markdown import format_value, labels
    from ..evaluation.report import MEASURES

    console = Console()
    for comparison in comparisons:
        first, second, task = labels(comparison)
        # No title of the table, which would be broken where the table ends.
        console.print(Text(f"{task}: {second} less {first}, {comparison.questions} questions", "bold"), soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        table.add_column("measure")
        for heading in ("difference", "95% interval", "p"):
            table.add_column(heading, justify="right")
        for measure in MEASURES:
            difference = comparison.differences[measure.name]
            mean, low, high = (format_value(measure, value, signed=True) for value in difference[:3])
            table.add_row(measure.title, mean, f"{low} to {high}", f"{difference.p:.4f}")
        console.print(table)
        console.print()


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal's stderr; yields the callback that advances it."""
    with bars() as progress:
        bar = progress.add_task(what, total=total)
        yield lambda: progress.advance(bar)
