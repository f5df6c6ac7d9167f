"""A run as a picture, written as SVG by hand: tokens per second against rows, and speed-up against parallelism."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.record import FORKED, LLAMA, PACKED, PLAIN, STOCK, VLLM, Case, Record

PANEL_WIDTH, PANEL_HEIGHT, GAP, LEFT, TOP, BOTTOM = 300, 280, 62, 56, 112, 92
INK, SOFT, GRID, PAPER = "#1f2328", "#59636e", "#e4e8ec", "#ffffff"


class Look(NamedTuple):
    """How a side is drawn."""

    colour: str
    width: float
    dashes: str = ""


LOOKS = {
    FORKED: Look("#0b62d6", 3),
    PLAIN: Look("#0b62d6", 1.8, "5 4"),
    LLAMA: Look("#d1690e", 2.2),
    VLLM: Look("#1a8754", 2.2),
    PACKED: Look("#8250a8", 1.8),
    STOCK: Look("#8c959f", 1.8),
}
IDEAL = Look("#8c959f", 1.4, "3 4")


class Point(NamedTuple):
    """Where a median lies, and how far the repeats went below and above it."""

    x: float
    y: float
    low: float
    high: float


@dataclass
class Panel:
    """One pair of axes; `x` and `y` turn values into places on the page."""

    title: str
    x_name: str
    y_name: str
    x: Callable[[float], float]
    y: Callable[[float], float]
    x_ticks: list[float]
    y_ticks: list[float]
    body: list[str] = field(default_factory=list)

    def line(self, points: list[Point], look: Look, *, marks: bool = True) -> None:
        """A line through medians, with a dot and a bar of the spread at each."""
        path = " ".join(f"{self.x(p.x):.1f},{self.y(p.y):.1f}" for p in points)
        self.body.append(
            f'<polyline points="{path}" fill="none" stroke="{look.colour}" stroke-width="{look.width}" '
            f'stroke-linejoin="round" stroke-linecap="round" stroke-dasharray="{look.dashes or "none"}"/>'
        )
        for p in points if marks else ():
            x = self.x(p.x)
            self.body.append(_segment(x, self.y(p.low), x, self.y(p.high), look.colour, 1.2))
            self.body.append(f'<circle cx="{x:.1f}" cy="{self.y(p.y):.1f}" r="3.4" fill="{look.colour}" stroke="{PAPER}"/>')

    def render(self, left: float) -> str:
        """The panel with its axes, `left` from the edge of the page."""
        out = [_text(left, TOP - 18, self.title, size=13.5, weight=600)]
        for tick in self.y_ticks:
            y = self.y(tick)
            out.append(_segment(left, y, left + PANEL_WIDTH, y, GRID if tick != self.y_ticks[0] else SOFT, 1))
            out.append(_text(left - 8, y + 4, f"{tick:g}", anchor="end", colour=SOFT))
        for tick in self.x_ticks:
            out.append(_text(self.x(tick), TOP + PANEL_HEIGHT + 18, f"{tick:g}", anchor="middle", colour=SOFT))
        middle = left + PANEL_WIDTH / 2
        out.append(_text(middle, TOP + PANEL_HEIGHT + 38, self.x_name, anchor="middle", colour=SOFT))
        out.append(_text(left, TOP - 1, self.y_name, colour=SOFT))
        return "\n".join(out + self.body)


def draw(record: Record, path: Path) -> None:
    """Write the picture."""
    count = len(record.prefixes) + bool(record.documents)
    lefts = [LEFT + index * (PANEL_WIDTH + GAP) for index in range(count)]
    panels = [_speed_panel(record, prefix, left) for prefix, left in zip(record.prefixes, lefts, strict=False)]
    if record.documents:
        panels.append(_document_panel(record, lefts[-1]))
    width, height = lefts[-1] + PANEL_WIDTH + 24, TOP + PANEL_HEIGHT + BOTTOM
    once = "One repeat." if record.repeats == 1 else f"Medians of {record.repeats} repeats; bars: lowest to highest."
    processor = ", ".join(record.machine.split(", ")[:2])
    note = f"{once} {processor}"
    sides = [side for side in LOOKS if any(case.side == side for case in record.speeds)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="ui-sans-serif, system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
        _text(LEFT - 32, 32, "Decoding on the shape of Qwen2.5-0.5B, bf16, random weights", size=16, weight=600),
        _legend(sides, LEFT - 32, 60),
        *(panel.render(left) for panel, left in zip(panels, lefts, strict=True)),
        _text(LEFT - 32, height - 18, note, colour=SOFT),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n")


def _speed_panel(record: Record, prefix: int, left: float) -> Panel:
    first, last = math.log2(record.rows[0]), math.log2(record.rows[-1])
    speeds = [speed for repeats in record.speeds.values() for speed in repeats]
    y, y_ticks = _logarithmic(min(speeds), max(speeds))
    panel = Panel(
        f"Prefix of {prefix:,} tokens",
        "branches, or sequences in the batch",
        "tokens per second",
        lambda rows: left + 14 + (math.log2(rows) - first) / (last - first or 1) * (PANEL_WIDTH - 28),
        y,
        [float(rows) for rows in record.rows],
        y_ticks,
    )
    for side in reversed(LOOKS):  # ours last, on top
        cases = [(rows, record.speeds.get(Case(side, rows, prefix), [])) for rows in record.rows]
        points = [_point(rows, speeds) for rows, speeds in cases if speeds]
        if points:
            panel.line(points, LOOKS[side])
    if record.rows[0] == 1 and record.bandwidth:
        x, height, label = panel.x(1), panel.y(record.limit), TOP + 34
        panel.body.append(_segment(x - 9, height, x + 9, height, INK, 1.8))
        panel.body.append(_segment(x, height - 2, x, label + 8, SOFT, 0.8))
        panel.body.append(_text(x - 4, label - 10, "limit of one row:", size=11, colour=SOFT))
        panel.body.append(_text(x - 4, label + 4, "all weights read once a step", size=11, colour=SOFT))
    return panel


def _document_panel(record: Record, left: float) -> Panel:
    wholes = [values for _, values in sorted(record.documents.items())]
    most = math.ceil(max(values[0].parallelism for values in wholes))
    y, y_ticks = _linear(1, max(most, *(whole.speedup for values in wholes for whole in values)))
    panel = Panel(
        "Whole documents: trunk, block, trunk",
        "parallelism: tokens over the longest chain",
        "times as fast as in sequence",
        lambda parallelism: left + 14 + (parallelism - 1) / (most - 1) * (PANEL_WIDTH - 28),
        y,
        [1 + step / 2 for step in range(2 * (most - 1) + 1)],
        y_ticks,
    )
    panel.line([Point(end, end, end, end) for end in (1, most)], IDEAL, marks=False)
    right, low = left + PANEL_WIDTH - 14, TOP + PANEL_HEIGHT - 16
    panel.body.append(_segment(right - 160, low - 4, right - 134, low - 4, IDEAL.colour, IDEAL.width, IDEAL.dashes))
    panel.body.append(_text(right, low, "as fast as it is parallel", size=11, anchor="end", colour=SOFT))
    panel.line([_point(values[0].parallelism, [whole.speedup for whole in values]) for values in wholes], LOOKS[FORKED])
    return panel


def _logarithmic(low: float, high: float) -> tuple[Callable[[float], float], list[float]]:
    """From values to heights on the page, and round ticks around the lowest and the highest."""
    rounds = [float(digit * 10**power) for power in range(-1, 6) for digit in (1, 2, 5)]
    first = max(index for index, value in enumerate(rounds) if value <= low)
    last = min(index for index, value in enumerate(rounds) if value >= high)
    ticks = rounds[first : last + 1]
    span = math.log(ticks[-1] / ticks[0])
    return lambda value: TOP + PANEL_HEIGHT - math.log(value / ticks[0]) / span * (PANEL_HEIGHT - 14), ticks


def _linear(low: float, high: float) -> tuple[Callable[[float], float], list[float]]:
    """From values to heights on the page, and round ticks that reach past the highest."""
    step = next(s for power in range(-2, 6) for s in (10**power, 2 * 10**power, 5 * 10**power) if (high - low) / s <= 6)
    ticks = [low + index * step for index in range(math.ceil((high - low) / step) + 1)]
    return lambda value: TOP + PANEL_HEIGHT - (value - low) / (ticks[-1] - low) * (PANEL_HEIGHT - 14), ticks


def _point(x: float, values: list[float]) -> Point:
    return Point(x, median(values), min(values), max(values))


def _legend(sides: list[str], left: float, y: float) -> str:
    out = []
    for side in sides:
        look = LOOKS[side]
        out.append(_segment(left, y - 4, left + 22, y - 4, look.colour, look.width, look.dashes))
        out.append(_text(left + 28, y, side))
        left += 28 + 6.6 * len(side) + 18
    return "\n".join(out)


def _segment(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}" '
        f'stroke-dasharray="{dashes or "none"}"/>'
    )


def _text(
    x: float, y: float, text: str, *, size: float = 12, weight: int = 400, anchor: str = "start", colour: str = INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
