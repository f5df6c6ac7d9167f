"""Callbacks of the trainer: the log file, the progress bar, and stopping on a signal with a checkpoint."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..errors import MultiverseError, writing
from ..threads import FreeCores, chosen
from .curve import read_log


class InterruptedRunError(MultiverseError):
    """A signal stopped the run before its end; its last checkpoint is of the step at which it stopped."""


class Log(TrainerCallback):
    """Log as JSON lines: step, loss per token, learning rate, gradient norm, seconds; and validation losses.

    Lines of steps that a resumed run repeats are dropped first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = self._began = 0.0

    def wants(self, name: str) -> bool:
        """Whether a figure is written, of those that the trainer logs."""
        return name in ("loss", "learning_rate", "grad_norm") or name.startswith("eval_")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero:
            return
        kept = read_log(self.path) if self.path.exists() else []
        kept = [record for record in kept if record["step"] <= state.global_step]
        with writing(self.path):
            self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._before = max((record["seconds"] for record in kept), default=0.0)
        self._began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        wanted = {name: value for name, value in (logs or {}).items() if self.wants(name)}
        if state.is_world_process_zero and wanted:
            seconds = round(self._before + time.monotonic() - self._began, 2)
            with writing(self.path), self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "seconds": seconds, **wanted}) + "\n")


class Progress(TrainerCallback):
    """A progress bar; without a terminal, a line of text about twenty times per run.

    Args:
        steps: steps of the whole run.
        console: a rich console, or `None` for no output.
    """

    def __init__(self, steps: int, console: Any) -> None:
        self.steps, self.console = steps, console
        self._bar: Any = None
        self._task: Any = None
        self._smooth: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        if self.console is None or not state.is_world_process_zero:
            return
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Bar(*columns, console=self.console, refresh_per_second=2)
        self._task = self._bar.add_task("", total=self.steps, completed=state.global_step)
        self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is None or not logs:
            return
        if "loss" in logs:
            self._smooth = logs["loss"] if self._smooth is None else 0.9 * self._smooth + 0.1 * logs["loss"]
            text = f"loss {self._smooth:.4f}"
            self._bar.update(self._task, completed=state.global_step, description=text)
            if not self.console.is_terminal and state.global_step % max(1, self.steps // 20) == 0:
                self.console.print(f"step {state.global_step} of {self.steps}  {text}", highlight=False)
        measured = {name: value for name, value in logs.items() if name.startswith("eval_") and name.endswith("_loss")}
        if measured:
            parts = (f"{name.removeprefix('eval_').removesuffix('_loss')} {value:.4f}" for name, value in measured.items())
            self.console.print(f"step {state.global_step}: validation loss  {'  '.join(parts)}", highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class FreeThreads(TrainerCallback):
    """On a CPU, each step is computed by as many threads as other processes leave cores (see `multiverse.threads`)."""

    def __init__(self) -> None:
        self._most = torch.get_num_threads()
        self._cores = None if chosen() else FreeCores()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if self._cores is not None and args.device.type == "cpu":
            torch.set_num_threads(min(self._most, self._cores.count()))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        torch.set_num_threads(self._most)


class GracefulStop(TrainerCallback):
    """While entered, SIGINT and SIGTERM end the run with a checkpoint after the current step; a second one ends it at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> GracefulStop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:  # noqa: ARG002
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if _any_process(self.requested):
            self.requested = control.should_save = control.should_training_stop = True


def _any_process(requested: bool) -> bool:
    """Whether any process got a signal: all stop together, since one that stopped alone would leave the others waiting."""
    if not torch.distributed.is_initialized():
        return requested
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, requested)
    return any(gathered)
