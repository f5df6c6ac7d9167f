"""`multiverse train`: fine-tune a model to think in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from .declared import DryRun, Fresh, Json
from .runs import GIB, ConfigFile, Devices, Settings, check_run, in_words, is_main_process, overrides_of, reading, run_whole

if TYPE_CHECKING:
    from ..training.config import Config
    from ..training.dryrun import Report
    from ..training.loading import ProgressCallback


def train(
    config: ConfigFile,
    settings: Settings = None,
    dry_run: DryRun = False,
    devices: Devices = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a causal language model to think in parallel.

    The folder of the run holds checkpoints, the log, the loss curve and, at the
    end, the model. A run that was stopped or killed resumes from its newest
    checkpoint when it is started again. Use torchrun for several devices. With
    --dry-run, data and settings are checked, steps and memory printed, and one step
    is taken with a tiny model.

    [bold]Examples[/bold]
    multiverse train recipes/lora-0.5b.yaml --dry-run
    multiverse train recipes/lora-0.5b.yaml --set optimizer.lr=2e-5
    torchrun --nproc-per-node 8 -m multiverse train recipes/32b.yaml
    """
    from rich.console import Console
    from transformers.utils import logging

    from ..training.config import load

    check_run(config, devices=devices, dry_run=dry_run, fresh=fresh)
    chosen = load(config, overrides_of(settings))
    logging.disable_progress_bar()
    console = Console(stderr=True, quiet=not is_main_process())
    with reading(console) as on_progress:
        if dry_run:
            from ..training.dryrun import dry_run as run_dry

            _print_report(run_dry(chosen, devices=devices, on_progress=on_progress), as_json)
        else:
            _train(chosen, fresh, on_progress, console, as_json)


def _train(config: Config, fresh: bool, on_progress: ProgressCallback, console: Any, as_json: bool) -> None:
    from ..training.run import train as run

    run_whole(
        lambda: run(config, fresh=fresh, on_progress=on_progress, console=console),
        config.out,
        "multiverse generate --model {} '…'",
        as_json,
    )


def _print_report(report: Report, as_json: bool) -> None:
    if as_json:
        from .jsonio import dump

        typer.echo(dump(report.as_dict()))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    row: Callable[[str, str], None] = table.add_row
    row("model", f"{report.model}, {in_words(report.parameters)} parameters, {in_words(report.trained)} trained")
    row("data", f"{report.documents:,} documents, {report.validation:,} for validation, {report.faulty:,} faulty")
    row("epochs", "  ".join(f"{share:.0%}" for share in report.epochs) + "  parallel")
    row("run", f"{report.steps:,} steps, {report.rows:,} rows, {report.tokens:,} tokens, {report.learned:,} with loss")
    row("padding", f"{report.padding:.0%} of all positions computed")
    for name, size in report.memory._asdict().items():
        row(f"memory: {name}", f"{size / GIB:8.1f} GiB")
    row(
        "memory",
        f"{report.memory.total / GIB:8.1f} GiB on each of {report.devices} device{'s' * (report.devices > 1)} (estimate)",
    )
    row("tiny step", f"loss {report.loss[0]:.3f} before, {report.loss[1]:.3f} after")
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(note, style="yellow")
