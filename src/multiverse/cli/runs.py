"""What `train` and `rl` share: a configuration with overrides, progress while data is read, and counts in words."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import InputError
from .recipes import hint as recipe_hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..training.loading import ProgressCallback

GIB = 1 << 30
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Settings of the run.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Override a setting, such as optimizer.lr=2e-5. May be repeated.",
        show_default=False,
    ),
]
Devices = Annotated[
    int | None,
    typer.Option(
        "--devices", metavar="N", help="With --dry-run: number of devices to estimate for.", min=1, show_default=False
    ),
]


def overrides_of(settings: list[str] | None) -> dict[str, Any]:
    """Values of ``--set NAME=VALUE`` by name."""
    import yaml

    overrides: dict[str, Any] = {}
    for setting in settings or []:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InputError(f"--set {setting!r} is not valid: write NAME=VALUE, such as --set optimizer.lr=2e-5")
        try:
            overrides[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"--set {setting!r} is not valid: its value is not YAML") from None
    return overrides


def is_main_process() -> bool:
    """Whether this is the first of torchrun's processes, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def reading(console: Any) -> Iterator[ProgressCallback]:
    """A progress bar while the data is read; it disappears when it is full."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def advance(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=what, completed=done, total=total, visible=total != done)
            if total == done:
                bar.stop()

        yield advance


def in_words(number: int) -> str:
    """A count with three digits: ``494M``."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def check_run(config: Path, *, devices: int | None, dry_run: bool, fresh: bool) -> None:
    """Raise `InputError` if options of a run do not go together, or its configuration is a recipe that is not at hand."""
    if devices is not None and not dry_run:
        raise InputError(f"--devices {devices} has no effect without --dry-run: a run uses the processes that torchrun starts")
    if fresh and dry_run:
        raise InputError("--fresh has no effect with --dry-run: leave it out")
    if not config.exists() and (remedy := recipe_hint(config)):
        raise InputError(f"there is no {str(config)!r}: {remedy}")


def run_whole(run: Callable[[], Path], out: str, trial: str, as_json: bool) -> None:
    """Carry out a run, and say where its model is.

    Args:
        run: returns the finished model's folder.
        trial: a command that tries the model, with ``{}`` for its folder.
    """
    from ..training.callbacks import InterruptedRunError

    began = time.monotonic()
    try:
        folder = run()
    except InterruptedRunError as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(130) from None
    if not is_main_process():
        return
    if as_json:
        from .jsonio import dump

        typer.echo(dump({"model": str(folder), "out": out, "seconds": round(time.monotonic() - began, 1)}))
    else:
        typer.echo(f"{folder}: try it with  {trial.format(shlex.quote(str(folder)))}")
