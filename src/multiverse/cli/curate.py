"""`multiverse curate`: training data with parallel structure from sequential reasoning."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from ..curation.config import BudgetConfig, CurationConfig, EndpointConfig
from .curate_audit import audit
from .curate_compose import compose
from .curate_dataflow import dataflow
from .curate_distill import distill
from .curate_input import OPENAI_URL, Traces, api_key
from .curate_progress import print_estimate, print_stages, run_job
from .declared import DryRun, Fields, Fresh, Json, KeepXml, Limit, OnError, Out, Split, expand_options
from .errors import InputError, check_url
from .groups import HELP_OPTIONS, RunByDefault

curate = typer.Typer(
    cls=RunByDefault,
    context_settings=HELP_OPTIONS,
    rich_markup_mode="rich",
    subcommand_metavar="INPUT | COMMAND",
)


@curate.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Turn sequential reasoning into training data that thinks in parallel.

    [bold]run[/bold] may be left out: `curate run INPUT` and `curate INPUT` are the same.

    [bold]Examples[/bold]
    multiverse curate traces.jsonl --out curated -m my-model
    multiverse curate run --help
    multiverse curate compose questions.txt --out composed -m my-model
    multiverse curate distill --family worksheet --out distilled
    multiverse curate dataflow openai/gsm8k --out forked
    multiverse curate audit traces.jsonl --out audit -m my-model
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@curate.command("run")
@expand_options
def run(
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A .jsonl or .parquet file, a folder of them, or a hub id.", show_default=False),
    ],
    out: Out,
    endpoint: Annotated[EndpointConfig, Fields(leave_out=("api_key", "backoff"), defaults={"base_url": OPENAI_URL})],
    config: Annotated[CurationConfig, Fields(only=("rewrite", "judge", "attempts", "dialect", "max_tokens", "validation"))],
    budget: BudgetConfig,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            "--api-key-env",
            metavar="NAME",
            help="Environment variable that holds the API key.",
            rich_help_panel="Model",
            show_default="OPENAI_API_KEY, if it is set",
        ),
    ] = None,
    split: Split = None,
    limit: Limit = None,
    on_error: OnError = "stop",
    fresh: Fresh = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Start though the estimate exceeds a limit; the limit holds.", rich_help_panel="Cost")
    ] = False,
    dry_run: DryRun = False,
    keep_xml: KeepXml = False,
    as_json: Json = False,
) -> None:
    """Curate the traces of INPUT: requests to a model in stages, checks, and training data.

    A record has a [bold]question[/bold] and its [bold]reasoning[/bold], or [bold]messages[/bold] whose last one
    thinks. The folder gets data/ for `multiverse train`, outcomes.jsonl,
    set_aside.jsonl (rejected rows), report.html and manifest.json. Every completion is
    stored before it is used: a run that was stopped or killed continues when it is
    started again, and pays for nothing twice.

    [bold]Examples[/bold]
    multiverse curate traces.jsonl -o curated -m my-model --base-url http://localhost:8000/v1
    multiverse curate traces.jsonl -o curated -m name --price-in 1 --price-out 10 --dry-run
    multiverse curate owner/traces -o curated -m name --limit 100 --token-budget 5000000
    """
    from ..curation.budget import Budget
    from ..curation.estimate import CostEstimate
    from ..curation.job import Job

    check_url(endpoint.base_url)
    if budget.max_cost is not None and not budget.priced:
        raise InputError(f"--max-cost {budget.max_cost:g} needs prices: give --price-in and --price-out")
    endpoint = replace(endpoint, api_key=api_key(api_key_env))
    traces, estimate = Traces(source, limit, split), CostEstimate(config)
    _survey(traces, estimate)
    if not estimate.rows:
        raise InputError(f"{source!r} holds no trace: give a file, a folder or a hub id that does")
    if traces.faults and on_error == "stop":
        raise InputError(
            f"{len(traces.faults):,} of the input's rows cannot be read: nothing was requested; correct them, or skip them "
            "with --on-error skip"
        )
    if dry_run:
        print_stages(estimate, budget, as_json=as_json)
        return
    print_estimate(estimate, budget)
    exceeded = Budget(budget).exceeded(estimate.usage)
    if exceeded is not None and not yes:
        raise InputError(f"the estimate exceeds {exceeded}: raise it, take fewer rows (--limit), or start anyway with --yes")
    job = Job(out, endpoint, config, source, estimate.rows, budget, documents=keep_xml)
    run_job(job, traces.read, as_json=as_json, fresh=fresh, faults=traces.faults)


def _survey(traces: Traces, estimate: Any) -> None:
    """Read the input once, for the estimate and its faults."""
    from rich.console import Console

    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"reading {traces.source}"):
        for trace in traces.read():
            estimate.add(trace)
    traces.print_faults()


curate.command()(audit)
curate.command()(compose)
curate.command()(distill)
curate.command()(dataflow)
