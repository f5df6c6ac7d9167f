"""All commands, as one typer application."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from ..errors import preferred_extra
from .bench import bench
from .chat import chat
from .curate import curate
from .data import data
from .evaluate import run as eval_run
from .evaluate import tasks as eval_tasks
from .evaluate_analysis import probe, prompting
from .evaluate_budget import budget as eval_budget
from .evaluate_dialogues import dialogues as eval_dialogues
from .evaluate_report import compare as eval_compare
from .evaluate_report import report as eval_report
from .generate import generate
from .groups import HELP_OPTIONS, RunByDefault
from .merge import merge
from .models import models, pull
from .recipes import recipes
from .rl import rl
from .serve import serve
from .show import show
from .tasks import tasks
from .tour import tour
from .train import train

_EXTRAS = {
    "train": "train",
    "rl": "rl",
    "data": "train",
    "curate": "curate",
    "serve": "serve",
    "chat": "chat",
    "eval": "eval",
    "bench": "chat",
}
"""The extra that each command needs, where it needs one."""

app = typer.Typer(
    context_settings=HELP_OPTIONS,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"multiverse {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def multiverse(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Language models that decide for themselves when to think in parallel.

    Without --model, commands use multiverse-mini, the small model that comes with the package;
    `multiverse models` lists others.

    [bold]Examples[/bold]
    multiverse tour
    multiverse tasks worksheet --limit 1 | jq -r .question | multiverse generate -
    multiverse chat
    multiverse serve
    multiverse tasks worksheet --limit 3
    multiverse eval worksheet --limit 50
    multiverse show document.xml
    """
    token = preferred_extra.set(_EXTRAS.get(context.invoked_subcommand or ""))
    context.call_on_close(lambda: preferred_extra.reset(token))
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


evaluations = typer.Typer(cls=RunByDefault, context_settings=HELP_OPTIONS)


@evaluations.callback(invoke_without_command=True, subcommand_metavar="NAME... | COMMAND [ARGS]...")
def measure(context: typer.Context) -> None:
    """Evaluate a model on benchmarks, and report, compare and analyse what was measured.

    [bold]Examples[/bold]
    multiverse eval aime24 gpqa --model ./multiverse-32b --out runs/32b
    multiverse eval worksheet nested --limit 50 --mode both
    multiverse eval report runs/32b/multiverse
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


evaluations.command("run")(eval_run)
evaluations.command("tasks", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
    eval_tasks
)
evaluations.command("report")(eval_report)
evaluations.command("compare")(eval_compare)
evaluations.command("budget")(eval_budget)
evaluations.command("dialogues")(eval_dialogues)
evaluations.command()(probe)
evaluations.command()(prompting)
app.command()(tour)
app.command()(generate)
app.command()(chat)
app.command()(serve)
app.add_typer(evaluations, name="eval")
app.add_typer(data, name="data")
app.add_typer(curate, name="curate")
app.command()(tasks)
app.command()(show)
app.command()(bench)
app.command()(train)
app.add_typer(recipes, name="recipes")
app.command()(rl)
app.command()(models)
app.command()(pull)
app.command()(merge)
