"""`multiverse rl`: reinforcement learning with rollouts that fork."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from .declared import DryRun, Fresh, Json
from .runs import GIB, ConfigFile, Devices, Settings, check_run, in_words, is_main_process, overrides_of, run_whole

if TYPE_CHECKING:
    from ..training.rl.config import RLConfig
    from ..training.rl.dryrun import RLReport


def rl(
    config: ConfigFile,
    settings: Settings = None,
    dry_run: DryRun = False,
    devices: Devices = None,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train a model that forks on what its answers are worth.

    The model answers questions several times, its answers are rewarded, and its
    weights are changed so that the better ones become likelier. The folder of the
    run holds checkpoints, the log, curves, samples and, at the end, the model. A run
    that was stopped or killed resumes from its newest checkpoint when it is started
    again. Use torchrun for several devices, and rollout_replicas for rollouts on
    others. With --dry-run, settings and questions are checked, memory and time
    estimated, and one step is taken with a tiny model.

    [bold]Examples[/bold]
    multiverse rl recipes/rl/quick.yaml
    multiverse rl recipes/rl/quick.yaml --dry-run
    multiverse rl recipes/rl/quick.yaml --set algorithm.name=dapo --set optimizer.lr=2e-5
    torchrun --nproc-per-node 2 -m multiverse rl recipes/rl/quick.yaml
    """
    from rich.console import Console
    from transformers.utils import logging

    from ..training.rl.config import load
    from ..training.rl.rewards import advice

    check_run(config, devices=devices, dry_run=dry_run, fresh=fresh)
    chosen = load(config, overrides_of(settings))
    logging.disable_progress_bar()
    console = Console(stderr=True, quiet=not is_main_process())
    for sentence in advice(chosen.rewards):
        console.print(f"note: {sentence}", style="yellow", highlight=False, soft_wrap=True)
    if dry_run:
        from ..training.rl.dryrun import dry_run as run_dry

        print_report(run_dry(chosen, devices=devices), as_json)
    else:
        _train(chosen, fresh, console, as_json)


def _train(config: RLConfig, fresh: bool, console: Any, as_json: bool) -> None:
    from ..training.rl.run import train

    run_whole(lambda: train(config, fresh=fresh, console=console), config.out, "multiverse chat --model {}", as_json)


def print_report(report: RLReport, as_json: bool) -> None:
    """Print what a dry run has found."""
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
    for line in report.questions:
        row("questions", line)
    row(
        "run",
        f"{report.steps:,} updates, {report.updates} for each batch of {report.rollouts:,} rollouts "
        f"({-(-report.steps // report.updates):,} batches)",
    )
    for name, size in report.memory.items():
        row(f"memory: {name}", f"{size / GIB:8.2f} GiB")
    row(
        "memory",
        f"{report.peak / GIB:8.2f} GiB at most on each of {report.devices} device{'s' * (report.devices > 1)} (estimate)",
    )
    for name, size in report.replica_memory.items():
        row(f"replica: {name}", f"{size / GIB:8.2f} GiB on each of {report.replicas}, beside the devices that train (estimate)")
    for name, seconds in report.seconds.items():
        row(f"time: {name}", f"{seconds:8.1f} s a step")
    hours = report.seconds_per_step * report.steps / 3600
    row("time", f"{hours:8.2f} h on this machine, if every answer is as long as it may be (estimate)")
    if report.tiny:
        row("tiny step", f"reward {report.tiny['reward']:.3f}, largest |ratio - 1| {report.tiny['first_ratio_deviation']:.1e}")
    console = Console()
    console.print(table)
    for note in report.notes:
        console.print(note, style="yellow", highlight=False)
