"""`multiverse eval NAME...`: benchmarks, asked of a model or a server, kept in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bars import bars
from .errors import InputError, known
from .loading import open_model
from .options import BOUNDS, MODEL, OUTPUT, SAMPLING, Device, Dtype, DtypeOption, Json, Model

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI

    from ..evaluation.run import Progress, Prompt, Settings
    from ..evaluation.sample import Sample
    from ..prompting import Mode

QUESTIONS = "Questions"


class PromptName(StrEnum):
    """How the questions are asked."""

    multiverse = "multiverse"
    zero = "zero"
    both = "both"


def run(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="aime24, aime25, math500, gpqa, ifeval, livecodebench; or a family of our own tasks: worksheet, cases, "
            "countdown, nested, chain.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the run; started again, it goes on there.", rich_help_panel=OUTPUT
        ),
    ] = Path("runs/eval"),
    prompt: Annotated[
        PromptName,
        typer.Option(
            "--prompt",
            help="Ask for parallel thinking (multiverse), the same weights sequentially (zero), or both in turn.",
            rich_help_panel=QUESTIONS,
        ),
    ] = PromptName.multiverse,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            help="Only the first questions of each.",
            min=1,
            rich_help_panel=QUESTIONS,
            show_default="all; 200 of our own",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            help="How often to ask each question.",
            min=1,
            rich_help_panel=QUESTIONS,
            show_default="8 on AIME, else 1",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME=FILE",
            help="Read a benchmark from JSON lines or Parquet in its own columns.",
            rich_help_panel=QUESTIONS,
            show_default="the hub",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="S", help="What is drawn, and which problems are made.", min=0, rich_help_panel=QUESTIONS
        ),
    ] = 7,
    model: Model = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    kv_memory: Annotated[
        float | None,
        typer.Option(
            "--kv-memory", metavar="GIB", help="Memory for keys and values.", rich_help_panel=MODEL, show_default="by device"
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL",
            help="Ask a server that speaks OpenAI's chat completions; --model is then its name there.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="OPENAI_API_KEY",
            show_envvar=False,
            help="The server's key.",
            rich_help_panel=MODEL,
            show_default="OPENAI_API_KEY",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", "-t", metavar="T", help="0 takes the likeliest token.", rich_help_panel=SAMPLING)
    ] = 0.6,
    top_p: Annotated[
        float,
        typer.Option("--top-p", metavar="P", help="Keep the likeliest tokens up to this share.", rich_help_panel=SAMPLING),
    ] = 0.95,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens", metavar="N", help="Most tokens of an answer, over all branches.", min=1, rich_help_panel=BOUNDS
        ),
    ] = 32_768,
    max_critical_path_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-critical-path-tokens",
            metavar="N",
            help="Longest chain of tokens of an answer.",
            min=1,
            rich_help_panel=BOUNDS,
            show_default="none",
        ),
    ] = None,
    thinking_budget: Annotated[
        int | None,
        typer.Option(
            "--thinking-budget",
            metavar="N",
            help="Longest chain of tokens that may be thought before answering.",
            min=0,
            rich_help_panel=BOUNDS,
            show_default="none",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", help="Most questions in flight.", min=1, rich_help_panel=BOUNDS)
    ] = 32,
    as_json: Json = False,
) -> None:
    """Ask a model the questions of benchmarks, and grade its answers.

    The settings are the Multiverse paper's unless you give others. Every answer is kept as soon as it is graded, in
    DIR/multiverse and DIR/zero (run.json and samples.jsonl): the same command, started again, goes on where it was stopped.
    [bold]run[/bold] may be left out.

    [bold]Examples[/bold]
    multiverse eval worksheet countdown --limit 50 --max-tokens 2048 --prompt both
    multiverse eval aime24 aime25 math500 gpqa --model ./multiverse-32b --out runs/32b
    multiverse eval math500 --server http://127.0.0.1:8000 --data math500=math500.jsonl
    """
    from ..evaluation.benchmarks import BENCHMARKS
    from ..evaluation.run import Settings, evaluate, load

    asked = tuple(dict.fromkeys(known("benchmark", name, BENCHMARKS) for name in names))
    bounds = {"max_critical_path_tokens": max_critical_path_tokens, "thinking_budget": thinking_budget}
    settings = Settings(
        benchmarks=asked,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        epochs=epochs,
        limit=limit,
        seed=seed,
        data=_data(data or []),
        bounds={name: value for name, value in bounds.items() if value is not None},
    )
    _check_sampling(settings)
    every: tuple[Prompt, ...] = ("multiverse", "zero")
    prompts = tuple(name for name in every if prompt in (PromptName.both, name))
    load(settings)  # what is wrong with the questions is told before a model is loaded
    if server is None:
        options = {"kv_memory": int(kv_memory * (1 << 30))} if kv_memory is not None else {}
        api, name = _local(model, device, dtype.value, options)
    else:
        api, name = _remote(server, model, api_key)
    with _closing(api), _bars() as progress:
        runs = evaluate(api, name, settings, out, prompts=prompts, concurrency=concurrency, progress=progress)
    from ..evaluation.summary import summarise

    rows = [row for run in runs for row in summarise(run)]
    if as_json:
        from .jsonio import dump

        told = [{"name": run.name, "model": run.model, "folder": str(out / str(run.settings["prompt"]))} for run in runs]
        typer.echo(dump({"runs": told, "results": [row._asdict() for row in rows]}))
    else:
        _print_table(rows, name, out, prompts)


def _data(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise InputError(f"--data {pair!r} is not valid: write it as math500=FILE")
        if not Path(path).expanduser().is_file():
            raise InputError(f"--data {name}: there is no file {path!r}")
        found[name] = path
    return found


def _check_sampling(settings: Settings) -> None:
    """Raise `RequestError` for values that no question could be asked with."""
    from ..engine import SamplingParams

    sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "max_tokens": settings.max_tokens}
    given: dict[str, Any] = {**sampling, **settings.bounds}
    SamplingParams(**given)


def _local(model: str | None, device: str, dtype: str, options: dict[str, int]) -> tuple[ModelAPI, str]:
    from ..evaluation.run import require_inspect

    require_inspect()
    from ..evaluation.providers import in_process

    llm = open_model(model, device=device, dtype=dtype, **options)
    name = model if model is not None else "multiverse-mini"
    return in_process(name, llm), name


def _remote(server: str, model: str | None, api_key: str | None) -> tuple[ModelAPI, str]:
    from ..evaluation.run import require_inspect
    from .remote import Remote

    require_inspect()
    from ..evaluation.providers import at_server

    found = Remote(server, model, api_key)  # says in one line what is wrong with the address, the key or the name
    return at_server(found.name, found.base, api_key), f"{found.base} {found.name}"


@contextmanager
def _closing(api: ModelAPI) -> Iterator[None]:
    from ..evaluation.run import close

    try:
        yield
    finally:
        close(api)


@contextmanager
def _bars() -> Iterator[Progress]:
    """A bar for each benchmark and prompt, on a terminal."""
    from ..evaluation.run import Progress

    with bars("{task.fields[right]} right, {task.fields[forked]} forked") as shown:
        known_bars: dict[tuple[str, str], Any] = {}

        def begin(name: str, mode: Mode, total: int, there: list[Sample]) -> None:
            known_bars[name, mode] = shown.add_task(
                f"{name} {mode}",
                total=total,
                completed=len(there),
                right=sum(sample.right for sample in there),
                forked=sum(sample.forked for sample in there),
            )

        def finish(sample: Sample) -> None:
            bar = known_bars[sample.task, sample.mode]
            fields = shown.tasks[bar].fields
            shown.update(bar, advance=1, right=fields["right"] + sample.right, forked=fields["forked"] + sample.forked)

        yield Progress(begin, finish)


def _print_table(rows: list[Any], model: str, out: Path, prompts: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, collapse_padding=True, pad_edge=False, title=Text(model, "bold"), title_justify="left")
    table.add_column("benchmark", no_wrap=True)
    table.add_column("prompt", no_wrap=True)
    # All of it fits in 80 columns.
    for heading in ("n", "pass@1", "paral-\nlelism", "critical\npath", "tokens", "forked", "mal-\nformed", "cut"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.benchmark,
            row.prompt,
            str(row.answers),
            f"{100 * row.accuracy:.1f}±{100 * row.stderr:.1f}",
            f"{row.parallelism:.2f}",
            f"{row.critical_path_tokens:.0f}",
            f"{row.total_tokens:.0f}",
            f"{row.forked:.0%}",
            str(row.malformed),
            str(row.cut_short),
        )
    console = Console()
    console.print(table)
    console.print(
        Text("every answer: " + ", ".join(str(out / prompt / "samples.jsonl") for prompt in prompts), "dim"), soft_wrap=True
    )
