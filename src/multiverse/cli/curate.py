"""`multiverse curate`: sequential reasoning in, parallel training data out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from .curate_audit import audit
from .curate_distill import distill
from .curate_progress import Live, leave, print_estimate, print_stages, print_summary
from .errors import InputError, check_url, known
from .groups import HELP_OPTIONS, RunByDefault
from .options import (
    BOUNDS,
    MODEL,
    OPENAI,
    OUTPUT,
    SAMPLING,
    AnswerTokens,
    BaseUrl,
    Concurrency,
    DialectName,
    FirstRows,
    FolderTokens,
    Fresh,
    Json,
    Out,
    Validation,
)

if TYPE_CHECKING:
    from ..curation.estimate import Estimate
    from ..curation.types import Trace
    from ..data import Fault

CURATION = "Curation"
COST = "Cost"


curate = typer.Typer(
    cls=RunByDefault,
    context_settings=HELP_OPTIONS,
    rich_markup_mode="rich",
    subcommand_metavar="INPUT | COMMAND",
)


@curate.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Turn sequential reasoning into training data that thinks in parallel.

    What names no command is what [bold]run[/bold] is to read: `curate run INPUT` and
    `curate INPUT` are the same.

    [bold]Examples[/bold]
    multiverse curate traces.jsonl --out curated -m my-model
    multiverse curate run --help
    multiverse curate distill --family worksheet --out distilled
    multiverse curate audit traces.jsonl --out audit -m my-model
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@curate.command("run")
def run(
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A .jsonl or .parquet file, a folder of them, or a hub id.", show_default=False),
    ],
    out: Out,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME", help="Which model to ask.", rich_help_panel=MODEL, show_default=False),
    ],
    base_url: BaseUrl = OPENAI,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env",
            metavar="NAME",
            help="Variable of the environment that holds the key.",
            rich_help_panel=MODEL,
            show_default="OPENAI_API_KEY, if it is set",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            "-t",
            metavar="T",
            help="Sent with every call.",
            min=0,
            rich_help_panel=SAMPLING,
            show_default="the endpoint's",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="S",
            help="Sent with every call; also decides which questions are kept for validation.",
            rich_help_panel=SAMPLING,
            show_default="none is sent",
        ),
    ] = None,
    dialect: DialectName = "multiverse",
    rewrite: Annotated[
        bool,
        typer.Option(
            "--rewrite/--no-rewrite", help="Have every path rewritten so that it stands alone.", rich_help_panel=CURATION
        ),
    ] = True,
    judge: Annotated[
        bool,
        typer.Option("--judge", help="Also ask the model whether paths depend on each other.", rich_help_panel=CURATION),
    ] = False,
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts", metavar="N", help="How often a stage may ask, told what was wrong.", min=1, rich_help_panel=CURATION
        ),
    ] = 3,
    answer_tokens: AnswerTokens = 4096,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Read only this split of a hub data set.", show_default="all of them"),
    ] = None,
    n: FirstRows = None,
    validation: Validation = 0.05,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave faulty rows of the input out, and list them in faults.jsonl.")
    ] = False,
    fresh: Fresh = False,
    price_in: Annotated[
        float,
        typer.Option("--price-in", metavar="X", help="Price of a million prompt tokens.", min=0, rich_help_panel=COST),
    ] = 0.0,
    price_out: Annotated[
        float,
        typer.Option("--price-out", metavar="X", help="Price of a million answered tokens.", min=0, rich_help_panel=COST),
    ] = 0.0,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost",
            metavar="X",
            help="Most that the folder may cost, all starts together.",
            min=0,
            rich_help_panel=COST,
            show_default="no limit",
        ),
    ] = None,
    max_tokens: FolderTokens = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Begin though the estimate is above a cap; the cap holds.", rich_help_panel=COST),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only estimate; ask nothing.", rich_help_panel=COST)] = False,
    concurrency: Concurrency = 16,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds that a call may take.", min=0.01, rich_help_panel=BOUNDS)
    ] = 300.0,
    tries: Annotated[
        int,
        typer.Option(
            "--tries", metavar="N", help="How often a call is made that fails in passing.", min=1, rich_help_panel=BOUNDS
        ),
    ] = 8,
    keep_xml: Annotated[
        bool,
        typer.Option("--keep-xml", help="Also write each document to a file of its own.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: Json = False,
) -> None:
    """Curate the traces of INPUT: stages of questions to a model, checks, and data to train on.

    A record has a [bold]question[/bold] and its [bold]reasoning[/bold], or [bold]messages[/bold] whose last one
    thinks. The folder gets data/ for `multiverse train`, outcomes.jsonl,
    set_aside.jsonl, report.html and manifest.json. Every answer is stored before
    it is used: a run that was stopped or killed goes on when it is started again,
    and pays for nothing twice.

    [bold]Examples[/bold]
    multiverse curate traces.jsonl -o curated -m my-model --base-url http://localhost:8000/v1
    multiverse curate traces.jsonl -o curated -m name --price-in 1 --price-out 10 --dry-run
    multiverse curate owner/traces -o curated -m name --n 100 --max-tokens 5000000
    """
    from ..curation.budget import Budget, Prices
    from ..curation.client import EndpointConfig
    from ..curation.config import CurationConfig
    from ..curation.estimate import Estimate
    from ..curation.job import Caps, Job
    from ..structure import DIALECTS

    settings = CurationConfig(
        attempts=attempts,
        judge=judge,
        rewrite=rewrite,
        dialect=known("dialect", dialect, DIALECTS),
        max_tokens=answer_tokens,
    )
    check_url(base_url)
    if max_cost is not None and not (price_in or price_out):
        raise InputError(f"--max-cost {max_cost:g} needs prices: give --price-in and --price-out")
    endpoint = EndpointConfig(
        base_url, model, _key(api_key_env), temperature, seed, concurrency=concurrency, timeout=timeout, tries=tries
    )
    prices = Prices(price_in, price_out)
    estimate, faults = _survey(source, split, n, Estimate(settings))
    for fault in faults:
        typer.echo(" ".join(str(fault).split()), err=True)
    if not estimate.rows:
        raise InputError(f"{source!r} holds no trace: give a file, a folder or a hub id that does")
    if faults and not keep_going:
        told = f"{len(faults):,} of the input's rows cannot be read"
        raise InputError(f"{told}: nothing is asked; mend them, or leave them out with --keep-going")
    if dry_run:
        if as_json:
            print_estimate(estimate, prices, as_json=True)
        else:
            print_stages(estimate, prices)
        return
    print_estimate(estimate, prices)
    over = Budget(prices, max_cost=max_cost, max_tokens=max_tokens).over(estimate.usage)
    if over is not None and not yes:
        raise InputError(f"the estimate is above {over}: raise it, take fewer rows (--n), or begin all the same with --yes")
    job = Job(
        out=out,
        endpoint=endpoint,
        settings=settings,
        source=source,
        rows=estimate.rows,
        validation=validation,
        prices=prices,
        documents=keep_xml,
    )
    caps = Caps(max_cost, max_tokens)
    with Live(estimate.rows, prices) as live:
        result = job.start(lambda: _traces(source, split, n), caps=caps, fresh=fresh, faults=faults, watch=live.watch)
    print_summary(result, as_json=as_json)
    leave(result.ended)


def _key(variable: str | None) -> str:
    if variable is None:
        return os.environ.get("OPENAI_API_KEY") or "EMPTY"
    key = os.environ.get(variable)
    if not key:
        raise InputError(f"--api-key-env {variable!r} is not set in the environment: set it to the key")
    return key


def _survey(source: str, split: str | None, n: int | None, estimate: Estimate) -> tuple[Estimate, list[Fault]]:
    """The input, gone through once: what it will take, and what cannot be read of it."""
    from rich.console import Console

    from ..curation.types import Trace

    faults: list[Fault] = []
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"reading {source}"):
        for item in _items(source, split, n):
            if isinstance(item, Trace):
                estimate.add(item)
            else:
                faults.append(item)
    return estimate, faults


def _items(source: str, split: str | None, n: int | None) -> Iterable[Trace | Fault]:
    from ..curation.trace import read_traces

    return islice(read_traces(source, split=split), n)


def _traces(source: str, split: str | None, n: int | None) -> Iterator[Trace]:
    from ..curation.types import Trace

    return (item for item in _items(source, split, n) if isinstance(item, Trace))


curate.command()(audit)
curate.command()(distill)
