"""Watch a generation on the terminal: a picture that fills while it is written, and stays when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine import Event
    from ..live import Moment
    from ..llm import LLM
    from .view import View


def moments(events: Iterable[Event], llm: LLM, *, prompt_thinking: bool = False) -> Iterator[Moment]:
    """What the events of a model's engine mean.

    Args:
        prompt_thinking: the prompt has opened the thinking.
    """
    from ..live import Reader

    reader = Reader(llm.engine.tokens, llm.engine.loaded.stop_ids, prompt_thinking=prompt_thinking)
    for event in events:
        yield from reader.feed(event)


def watch(moments: Iterable[Moment]) -> View:
    """Draw what happens; at the end, or when interrupted, the picture stays on the screen in full."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from .picture import Frame, ending, picture, usage_line
    from .view import View

    console = Console()
    view = View()
    try:
        with Live(Frame(view), console=console, auto_refresh=False, transient=True, redirect_stderr=False) as live:
            for _ in _paced(moments, view):
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


def _paced(moments: Iterable[Moment], view: View) -> Iterator[None]:
    """Feed the view, and yield whenever it is time to draw it: drawing takes a fifth of the time at most."""
    drawn = cost = 0.0
    for moment in moments:
        view.feed(moment)
        now = time.monotonic()
        if now - drawn > max(0.08, 4 * cost):
            yield
            drawn = time.monotonic()
            cost = drawn - now
