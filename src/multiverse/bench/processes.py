"""Processes that a benchmark starts, none of which outlives it.

    with started([sys.executable, "-m", "multiverse", "serve"], stderr=log) as server:
        ...

They end with their block: after an error, and when the benchmark itself is told to end (Ctrl-C, SIGTERM, SIGHUP).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

CLOSE_TIMEOUT = 30
"""Seconds after which a process that does not end is killed."""
_DEFAULT: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
_running: list[subprocess.Popen[Any]] = []


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process in a process group of its own, which ends with the block.

    Args:
        options: of `subprocess.Popen`.
    """
    _handle(ours=True)
    process = subprocess.Popen(command, process_group=0, **options)
    _running.append(process)
    try:
        yield process
    finally:
        stop(process)
        _running.remove(process)
        if not _running:
            _handle(ours=False)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process, by force after some time, and whatever is left of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            send(process, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(CLOSE_TIMEOUT)
    send(process, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def send(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal to the process and its children; also to a process that is stopped, which then continues to take it."""
    with suppress(ProcessLookupError):  # none is left
        os.killpg(process.pid, number)
        if number == signal.SIGTERM:
            os.killpg(process.pid, signal.SIGCONT)


def _handle(*, ours: bool) -> None:
    """Handle the signals that end a benchmark, or no longer; those for which the benchmark has a handler stay its own."""
    if threading.current_thread() is threading.main_thread():  # signals are its to handle
        for number, default in _DEFAULT.items():
            if signal.getsignal(number) is (default if ours else _end):
                signal.signal(number, _end if ours else default)


def _end(number: int, _frame: FrameType | None) -> None:
    # At once, not as the blocks end: those wait for threads that wait for answers of these processes.
    for process in _running:
        send(process, signal.SIGTERM)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
