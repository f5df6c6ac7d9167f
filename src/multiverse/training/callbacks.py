"""What stands beside the training loop: a log in a file, a progress bar, and a way to stop without losing anything."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..errors import MultiverseError
from .corpus import Plan
from .curve import read_log


class InterruptedRunError(MultiverseError):
    """A signal ended the run early; its checkpoint is where it stopped."""


class Log(TrainerCallback):
    """A file of JSON lines: step, loss per token, learning rate, length of the gradient, seconds; and validation losses.

    Lines of steps that a resumed run does again are dropped first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = self._began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero:
            return
        kept = read_log(self.path) if self.path.exists() else []
        kept = [record for record in kept if record["step"] <= state.global_step]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._before = max((record["seconds"] for record in kept), default=0.0)
        self._began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        wanted = {
            name: value
            for name, value in (logs or {}).items()
            if name in ("loss", "learning_rate", "grad_norm") or name.startswith("eval_")
        }
        if state.is_world_process_zero and wanted:
            seconds = round(self._before + time.monotonic() - self._began, 2)
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, "seconds": seconds, **wanted}) + "\n")


class Progress(TrainerCallback):
    """A progress bar; where there is no terminal, a line now and then.

    Args:
        plan: the run.
        console: a rich console, or `None` for silence.
    """

    def __init__(self, plan: Plan, console: Any) -> None:
        self.plan, self.console = plan, console
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
        self._task = self._bar.add_task("", total=self.plan.steps, completed=state.global_step)
        self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is None or not logs:
            return
        if "loss" in logs:
            self._smooth = logs["loss"] if self._smooth is None else 0.9 * self._smooth + 0.1 * logs["loss"]
            text = f"loss {self._smooth:.4f}"
            self._bar.update(self._task, completed=state.global_step, description=text)
            if not self.console.is_terminal and state.global_step % max(1, self.plan.steps // 20) == 0:
                self.console.print(f"step {state.global_step} of {self.plan.steps}  {text}", highlight=False)
        held = {name: value for name, value in logs.items() if name.startswith("eval_") and name.endswith("_loss")}
        if held:
            parts = (f"{name.removeprefix('eval_').removesuffix('_loss')} {value:.4f}" for name, value in held.items())
            self.console.print(f"step {state.global_step}: validation loss  {'  '.join(parts)}", highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Watch(TrainerCallback):
    """While entered, Ctrl-C and SIGTERM end the run with a checkpoint behind the running step; a second one ends it at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Watch:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:  # noqa: ARG002
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if _anyone(self.asked):
            self.asked = control.should_save = control.should_training_stop = True


def _anyone(asked: bool) -> bool:
    """Whether any process was asked: one that stopped alone would leave the others waiting for it."""
    if not torch.distributed.is_initialized():
        return asked
    answers: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(answers, asked)
    return any(answers)
