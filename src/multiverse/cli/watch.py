"""Show a generation on the terminal: a picture that is updated live, and stays when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..streaming import WireEvent
    from .view import View


def watch(events: Iterable[WireEvent]) -> View:
    """Draw a generation live; at the end, or when interrupted, the whole picture stays on the screen."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from .picture import Frame, ending, picture, usage_line
    from .view import View

    console = Console()
    view = View()
    try:
        with Live(Frame(view), console=console, auto_refresh=False, transient=True, redirect_stderr=False) as live:
            for _ in _paced(events, view):
                live.refresh()
    finally:
        if view.trunk.items or view.answer or view.finish is not None:
            console.print(picture(view))
    if view.finish is not None:
        console.print()
        console.print(Text(usage_line(view.finish.usage or {}), "dim"))
        if ending(view.finish):
            console.print(Text(ending(view.finish), "yellow"))
    return view


def _paced(events: Iterable[WireEvent], view: View) -> Iterator[None]:
    """Feed the view, and yield whenever it is to be drawn: drawing takes a fifth of the time at most."""
    drawn = cost = 0.0
    for event in events:
        view.feed(event)
        now = time.monotonic()
        if now - drawn > max(0.08, 4 * cost):
            yield
            drawn = time.monotonic()
            cost = drawn - now
