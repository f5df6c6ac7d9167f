"""A `View` drawn for a terminal: lanes side by side where they fit, one below the other where they do not.

Everything measures itself against the width it is given, so the same picture works in any terminal and inside a lane.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ..streaming import WireEvent
from .style import COLORS, clean
from .view import Lane, Split, Stage, View

MIN_LANE = 30
"""Narrowest lane that still reads well; what does not fit goes to another row."""

GAP = 1
FRAME = 4
"""Columns that a lane's border and padding take."""

CAPS = (None, 20, 12, 8, 4, 2)
"""Lines shown of each lane while the picture is taller than the terminal, tried in this order."""


def picture(view: View, cap: int | None = None) -> RenderableType:
    """Everything there is to see; `cap` bounds the lines shown of each lane."""
    parts = list(_body(view.trunk, cap, nested=False))
    if view.answer is not None and view.answer.forks:
        parts += [Text("Answer:", "bold green")] if parts else []
        parts += _body(view.answer, cap, nested=False)
    elif view.answer is not None:
        answer = view.finish.answer if view.finish is not None and view.finish.answer is not None else view.answer.text
        # Live, the answer still has its heading before it; we write our own.
        answer = clean(answer).removeprefix("Answer:").strip()
        if answer:
            parts.append(Text.assemble(("Answer: ", "bold green"), (answer, "bold")))
    if not parts:
        parts.append(Text("…", "dim"))
    return Group(*_spaced(parts))


@dataclass
class Frame:
    """The picture cut to the terminal's height: lanes show their ends, and the screen shows the picture's end."""

    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = max(3, console.size.height - 1)
        lines: list[list[Segment]] = []
        for cap in CAPS:
            lines = console.render_lines(picture(self.view, cap), options.update(height=None), pad=False)
            if len(lines) <= height:
                break
        yield from _joined(lines[-height:])


def usage_line(usage: Mapping[str, Any]) -> str:
    """Usage in words, as far as it is known."""
    forms = (
        ("total_tokens", "{} tokens"),
        ("critical_path_tokens", "critical path {}"),
        ("critical_path_steps", "{} steps"),
        ("parallelism", "parallelism {:.2f}"),
        ("seconds", "{:.2f} s"),
    )
    return " · ".join(form.format(usage[name]) for name, form in forms if usage.get(name) is not None)


def ending(finish: WireEvent) -> str:
    """Why a generation stopped early; empty if it came to its end."""
    if finish.finish_reason == "length":
        return "closed before its end: raise --max-tokens for more, within the model's context"
    if finish.finish_reason == "budget":
        return "closed before its end: it reached --thinking-budget or --max-critical-path-tokens"
    if finish.finish_reason == "deadline":
        return "closed before its end: it reached --max-seconds"
    if finish.finish_reason == "error":
        return f"stopped: {finish.structure_error}"
    if finish.finish_reason == "malformed":
        return f"stopped: the model broke the grammar ({finish.structure_error})"
    return ""


def _body(lane: Lane, cap: int | None, *, nested: bool) -> Iterator[RenderableType]:
    for item in lane.items:
        if isinstance(item, Split):
            if item.lanes:
                yield _Lanes(item, cap, nested)
            if clean(item.conclusion):
                yield Text.assemble(("⇒ ", "bold"), clean(item.conclusion))
        elif clean(item):
            yield Text(clean(item))


def _spaced(parts: list[RenderableType]) -> list[RenderableType]:
    """A blank line between paragraphs; borders need none around them."""
    out: list[RenderableType] = []
    for part in parts:
        if out and isinstance(part, Text) and isinstance(out[-1], Text):
            out.append(Text(""))
        out.append(part)
    return out


def columns(lanes: int, width: int) -> int:
    """How many lanes stand side by side: as many as fit, spread evenly over the rows that it takes."""
    most = max(1, (width + GAP) // (MIN_LANE + GAP))
    rows = -(-lanes // most)
    return -(-lanes // rows)


@dataclass
class _Lanes:
    split: Split
    cap: int | None
    nested: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lanes = self.split.lanes
        side_by_side = columns(len(lanes), options.max_width)
        # Where no two fit, boxes in a box would only cost width.
        if self.nested and columns(2, options.max_width) == 1:
            for number, lane in enumerate(lanes):
                yield _heading(lane, COLORS[number % len(COLORS)])
                yield _Bar(Group(*_spaced(list(_body(lane, None, nested=True)))), COLORS[number % len(COLORS)])
            return
        width = (options.max_width - GAP * (side_by_side - 1)) // side_by_side
        for start in range(0, len(lanes), side_by_side):
            yield self._row(console, options, start, lanes[start : start + side_by_side], width)

    def _row(self, console: Console, options: ConsoleOptions, start: int, lanes: list[Lane], width: int) -> RenderableType:
        contents = [_Tail(Group(*_inside(lane, width)), self.cap) for lane in lanes]
        inner = options.update(width=max(1, width - FRAME), height=None)
        height = max(len(console.render_lines(content, inner, pad=False)) for content in contents)
        grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for _ in lanes:
            grid.add_column(width=width)
        grid.add_row(
            *(
                _panel(lane, content, COLORS[(start + number) % len(COLORS)], width, height)
                for number, (lane, content) in enumerate(zip(lanes, contents, strict=True))
            )
        )
        return grid


def _panel(lane: Lane, content: RenderableType, color: str, width: int, height: int) -> Panel:
    heading = _heading(lane, color)
    title = heading if _fits(lane, width) else Text(lane.label, f"bold {color}")
    done = lane.stage is Stage.ENDED
    return Panel(
        content,
        title=title,
        title_align="left",
        subtitle=Text(f"{'✓ ' if done else ''}{lane.tokens} tokens", "dim") if lane.stage is not Stage.PLANNED else None,
        subtitle_align="right",
        border_style=f"dim {color}" if done else color,
        width=width,
        height=height + 2,
    )


def _inside(lane: Lane, width: int) -> list[RenderableType]:
    parts = _spaced(list(_body(lane, None, nested=True)))
    if _fits(lane, width):
        return parts
    return [Text(clean(lane.outline), "bold"), Text("─" * max(1, width - FRAME), "dim", no_wrap=True), *parts]


def _fits(lane: Lane, width: int) -> bool:
    """Whether the outline stands in the lane's border."""
    outline = clean(lane.outline)
    return "\n" not in outline and len(lane.label) + 1 + len(outline) <= width - FRAME - 2


def _heading(lane: Lane, color: str) -> Text:
    return Text.assemble((lane.label, f"bold {color}"), " " if lane.outline else "", (clean(lane.outline), "bold"))


@dataclass
class _Bar:
    """Content behind a line down its left edge: a lane that costs two columns."""

    content: RenderableType
    color: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update(width=max(1, options.max_width - 2), height=None)
        for line in console.render_lines(self.content, inner, pad=False):
            yield Segment("│ ", Style.parse(self.color))
            yield from line
            yield Segment.line()


@dataclass
class _Tail:
    """Content of which only the last lines are shown."""

    content: RenderableType
    limit: int | None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.content, options.update(height=None), pad=False)
        if self.limit is not None and len(lines) > self.limit:
            lines = [[Segment("⋮", Style(dim=True))], *lines[1 - self.limit :]] if self.limit > 1 else lines[-1:]
        yield from _joined(lines)


def _joined(lines: list[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()
