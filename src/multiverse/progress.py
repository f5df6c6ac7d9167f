"""Progress bars of Python calls: on standard error, and only where someone watches. No torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def watched() -> bool:
    """Whether someone watches standard error: it is a terminal, or this is a notebook."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def counting(what: str, total: int, shown: bool | None = None) -> Iterator[Callable[[], None]]:
    """A bar of so many things; call what it gives for each that is done.

    Args:
        shown: `None` shows it if there are several, and someone watches.
    """
    if not (shown if shown is not None else total > 1 and watched()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # A notebook's own display where there is one; what the caller prints stays where it goes.
    console = Console(stderr=True, force_terminal=True if shown else None)
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def loading(shown: bool | None = None) -> Iterator[None]:
    """Context in which transformers shows its bars of weights that are loaded, or none.

    Args:
        shown: `None` shows them if someone watches.
    """
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    if before and not (shown if shown is not None else watched()):
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()
