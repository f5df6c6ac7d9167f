"""The commands and how they hang together."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .chat import chat
from .curate import curate
from .data import data
from .evaluate import tasks as eval_tasks
from .evaluate_analysis import probe, prompting
from .generate import generate
from .serve import serve
from .show import show
from .tasks import tasks
from .train import train

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Language models that decide for themselves when to think in parallel.

    Without --model, commands use multiverse-mini, the small model that comes with the package.

    [bold]Examples[/bold]
    multiverse tasks worksheet --n 1 | jq -r .question | multiverse generate -
    multiverse chat
    multiverse serve
    multiverse tasks worksheet --n 3
    multiverse eval tasks --family worksheet --n 50
    multiverse show document.xml
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


evaluations = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@evaluations.callback(invoke_without_command=True)
def measure(context: typer.Context) -> None:
    """Measure a model.

    [bold]Example[/bold]
    multiverse eval tasks --family all --mode both --n 100
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


evaluations.command("tasks")(eval_tasks)
evaluations.command()(probe)
evaluations.command()(prompting)
app.command()(generate)
app.command()(chat)
app.command()(serve)
app.add_typer(evaluations, name="eval")
app.add_typer(data, name="data")
app.add_typer(curate, name="curate")
app.command()(tasks)
app.command()(show)
app.command()(train)
