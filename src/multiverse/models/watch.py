"""Progress of a download, from how much of it is on disk. No torch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .places import Progress

_INTERVAL = 0.2  # seconds


@contextmanager
def watched(folder: Path, what: str, total: int | None, progress: Progress) -> Iterator[None]:
    """Context in which `progress` is told how many bytes the files below a folder have grown by."""
    before, done = _bytes_below(folder), threading.Event()

    def report() -> None:
        while not done.wait(_INTERVAL):
            grown = max(0, _bytes_below(folder) - before)
            progress(what, grown if total is None else min(grown, total), total)

    thread = threading.Thread(target=report, daemon=True)
    progress(what, 0, total)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # removed meanwhile
            continue
    return total


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on stderr, if that is a terminal; it appears when there is something to show, and disappears."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Bars(*columns, console=Console(stderr=True, quiet=not sys.stderr.isatty()), transient=True)
    task = bars.add_task("", total=None, visible=False)

    def progress(what: str, done: int, total: int | None) -> None:
        if not bars.live.is_started:
            bars.start()
        bars.update(task, description=what, completed=done, total=total, visible=True)

    try:
        yield progress
    finally:
        bars.stop()
