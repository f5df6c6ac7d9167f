"""Callbacks of a run: its log, live progress, and what ends it early."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from ..callbacks import GracefulStop, Log, Progress
from .collapse import CollapseDetector
from .metrics import Metrics

_SHOWN: Mapping[str, tuple[str, str]] = {
    "reward": ("reward", ".3f"),
    "right": ("right", ".0%"),
    "parallelism": ("parallelism", ".2f"),
    "critical_path_tokens": ("path", ".0f"),
    "malformed": ("malformed", ".0%"),
    "entropy": ("entropy", ".3f"),
    "first_ratio_deviation": ("|ratio-1|", ".1e"),
    "tokens_per_second": ("tokens/s", ",.0f"),
}
_LINE_SECONDS = 10.0


def summary(metrics: Metrics, prefix: str = "") -> str:
    """The figures that tell how a run goes, in one line."""
    parts = ((label, form, metrics.get(f"{prefix}{name}")) for name, (label, form) in _SHOWN.items())
    return "  ".join(f"{label} {value:{form}}" for label, form, value in parts if value is not None)


class StepLog(Log):
    """Log as JSON lines: every figure of a step in one, and those of each validation in another."""

    def wants(self, name: str) -> bool:
        return name not in ("epoch", "total_flos") and not name.startswith("train_")


class Live(Progress):
    """A bar of the steps, with the figures of the last one, and a bar of the phase of the present one.

    Without a terminal, a line for each step, or one in ten seconds where steps are faster.
    """

    def __init__(self, steps: int, console: Any) -> None:
        super().__init__(steps, console)
        self._phase: Any = None
        self._printed = -_LINE_SECONDS

    def phase(self, what: str, done: int, total: int) -> None:
        """What the present step does, and how much of it is done."""
        if self._bar is None:
            return
        if self._phase is None:
            self._phase = self._bar.add_task("")
        self._bar.update(self._phase, description=what, completed=done, total=total, visible=done < total)

    def say(self, text: str) -> None:
        """A sentence beside the bars."""
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self._bar is None or not logs:
            return
        if "loss" in logs:
            text = summary(logs)
            self._bar.update(self._task, completed=state.global_step, description=text)
            due = time.monotonic() - self._printed >= _LINE_SECONDS or state.global_step == self.steps
            if not self.console.is_terminal and due:
                self._printed = time.monotonic()
                self.console.print(f"step {state.global_step} of {self.steps}  {text}", highlight=False, soft_wrap=True)
        elif any(name.startswith("eval_") for name in logs):
            self.console.print(
                f"step {state.global_step}: validation  {summary(logs, 'eval_')}", highlight=False, soft_wrap=True
            )


class StopRollouts(GracefulStop):
    """A signal ends a run after the present update, or, while rollouts are decoded, at once: none of them were trained on yet.

    With several processes it is always after the update: all have to stop at the same one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._interruptible = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Context in which the first signal raises KeyboardInterrupt."""
        self._interruptible = not torch.distributed.is_initialized()
        if self._interruptible and self.requested:  # it came in between
            raise KeyboardInterrupt
        try:
            yield
        finally:
            self._interruptible = False

    def _on_signal(self, number: int, frame: object) -> None:
        if self._interruptible:
            self.requested = True
            raise KeyboardInterrupt
        super()._on_signal(number, frame)


class StopEarly(TrainerCallback):
    """Ends a run that has collapsed, with a checkpoint.

    Args:
        detector: decides it.
    """

    def __init__(self, detector: CollapseDetector) -> None:
        self.detector = detector
        self.reason: str | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:  # noqa: ARG002
        if logs and "loss" in logs:
            self.reason = self.detector.feed(logs)
            if self.reason is not None:
                control.should_save = control.should_training_stop = True
