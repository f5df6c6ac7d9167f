"""`multiverse eval tasks`: how right a model is, and how parallel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .bars import bars
from .errors import InputError, known
from .loading import open_model
from .options import OUTPUT, Depth, Device, Dtype, DtypeOption, Json, MaxTokens, Model, Temperature, Width

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..engine import SamplingParams
    from ..evaluation.sample import Sample
    from ..evaluation.tasks import TaskReport, TaskSet
    from ..llm import LLM
    from ..prompting import Mode

PROBLEMS = "Problems"


def tasks(
    family: Annotated[
        str,
        typer.Option(
            "--family",
            "-f",
            metavar="NAME",
            help="worksheet, cases, countdown, nested, chain, or all.",
            rich_help_panel=PROBLEMS,
        ),
    ] = "worksheet",
    n: Annotated[int, typer.Option("--n", "-n", metavar="N", help="Questions per family.", rich_help_panel=PROBLEMS)] = 200,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="S", help="Which problems (and what is drawn, when sampling).", min=0, rich_help_panel=PROBLEMS
        ),
    ] = 7,
    mode: Annotated[
        str,
        typer.Option(
            "--mode", metavar="NAME", help="How to ask: parallel, sequential, or both in turn.", rich_help_panel=PROBLEMS
        ),
    ] = "parallel",
    width: Width = None,
    depth: Depth = None,
    model: Model = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 2048,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FILE",
            help="Write every question and its generation as JSON lines.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a model the project's own problems and count the right answers.

    The problems come from the test split, which no training run has seen.
    Reported are accuracy, tokens, critical path, their ratio (parallelism) and
    the time it took. With --json, one object; for several families or modes, one
    object whose [bold]reports[/bold] has one per run.

    [bold]Examples[/bold]
    multiverse eval tasks --family worksheet --n 200 --seed 7
    multiverse eval tasks --family all --mode both --n 100
    multiverse eval tasks --family nested --depth 3 --save samples.jsonl --json
    """
    from ..engine import SamplingParams

    params = SamplingParams(temperature=temperature, top_p=1.0, max_tokens=max_tokens)
    runs = _runs(family, mode, n=n, seed=seed, width=width, depth=depth)
    if save is not None:
        _save(save, [])  # if it cannot be written, better now than after all the work
    llm = open_model(model, device=device, dtype=dtype.value)
    reports = _evaluate(llm, runs, params)
    if save is not None:
        _save(save, reports)
    if as_json:
        from .jsonio import dump

        summaries = [report.summary() for report in reports]
        typer.echo(dump(summaries[0] if len(summaries) == 1 else {"reports": summaries}))
    else:
        _print_table(reports)


def _runs(family: str, mode: str, *, n: int, seed: int, width: int | None, depth: int | None) -> list[TaskSet]:
    from ..evaluation.tasks import TaskSet
    from ..tasks import FAMILIES

    families = FAMILIES if family == "all" else (known("family", family, (*FAMILIES, "all")),)
    modes = ("parallel", "sequential") if mode == "both" else (known("mode", mode, ("parallel", "sequential", "both")),)
    runs = [TaskSet(name, n, seed, cast("Mode", way), width, depth) for name in families for way in modes]
    for run in runs:
        try:
            run.problems()
        except ValueError as error:
            raise InputError(str(error)) from None
    return runs


def _evaluate(llm: LLM, runs: list[TaskSet], params: SamplingParams) -> list[TaskReport]:
    from ..evaluation.tasks import evaluate

    with bars("{task.fields[right]} right") as progress:
        return [evaluate(llm, run, params, _counter(progress, run)) for run in runs]


def _counter(progress: Progress, run: TaskSet) -> Callable[[Sample], None]:
    """A bar for one run, and what moves it on."""
    bar = progress.add_task(f"{run.family} {run.mode}", total=run.n, right=0)
    right = 0

    def count(sample: Sample) -> None:
        nonlocal right
        right += sample.right
        progress.update(bar, advance=1, right=right)

    return count


def _save(path: Path, reports: list[TaskReport]) -> None:
    from .jsonio import dump

    lines = [
        dump({"family": report.family, **asdict(sample), "parallelism": sample.parallelism, "forked": sample.forked})
        for report in reports
        for sample in report.samples
    ]
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}): give --save a file that can be") from None


def _print_table(reports: list[TaskReport]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    first = reports[0]
    table = Table(
        box=None,  # so that all of it fits in 80 columns
        collapse_padding=True,
        pad_edge=False,
        title=Text(f"{first.model} · {first.n} questions each · seed {first.seed}", "bold"),
        title_justify="left",
    )
    table.add_column("family")
    table.add_column("mode")
    for heading in ("accuracy", "paral-\nlelism", "critical\npath", "tokens", "forked", "mal-\nformed", "seconds"):
        table.add_column(heading, justify="right")
    for report in reports:
        table.add_row(
            report.family,
            report.mode,
            f"{100 * report.accuracy:.1f} ± {report.stderr:.1%}",
            f"{report.parallelism:.2f}",
            f"{report.critical_path_tokens:.0f}",
            f"{report.total_tokens:.0f}",
            f"{report.forked:.0%}",
            str(report.malformed),
            f"{report.seconds:.1f}",
        )
    Console().print(table)
