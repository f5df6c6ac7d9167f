"""A run of `benchmarks.engine` as tables: decode speed, cost of fork and join, and whether the aims are met."""

from __future__ import annotations

from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.aims import aims, overhead
from benchmarks.record import FORKED, LLAMA, PACKED, PLAIN, STOCK, VLLM, Case, Record

WIDTH = 120
SIDES = (FORKED, PLAIN, LLAMA, VLLM, PACKED, STOCK)


def show(record: Record, console: Console | None = None) -> None:
    """Print all tables and notes."""
    console = console or Console(width=WIDTH)
    for table in (_speeds(record), _overheads(record), _joins(record), _documents(record), _aims(record)):
        console.print(table)
    best = max(record.bandwidth, key=lambda name: max(record.bandwidth[name]))
    console.print(
        f"Limit: {record.weight_bytes / 1e6:.0f} MB of weights a step; memory was read at up to "
        f"{max(record.bandwidth[best]) / 1e9:.1f} GB/s ({best}; "
        + ", ".join(f"{name} {max(speeds) / 1e9:.1f}" for name, speeds in record.bandwidth.items() if name != best)
        + ").",
        highlight=False,
    )
    for line in record.notes:
        console.print(line, highlight=False)
    console.print("; ".join([record.machine, *record.versions]), highlight=False)


def _speeds(record: Record) -> Table:
    title = f"Decode, tokens per second over all rows: median (lowest-highest) of {record.repeats} interleaved repeats"
    table = _table(title, "rows", *map(str, record.rows))
    for prefix in record.prefixes:
        table.add_section()
        table.add_row(f"[bold]prefix {prefix}[/bold]")
        for side in SIDES:
            cells = [record.speeds.get(Case(side, rows, prefix), []) for rows in record.rows]
            if any(cells):
                table.add_row(side, *(_spread(cell) for cell in cells))
    table.add_section()
    table.add_row("limit: weights read once", *(f"{record.limit:.1f}" if rows == 1 else "" for rows in record.rows))
    return table


def _overheads(record: Record) -> Table:
    title = "Step inside a block over a plain step of as many rows that see as many tokens: longer by, %"
    table = _table(title, "branches", *map(str, record.rows))
    for prefix in record.prefixes:
        cells = [[100 * (ratio - 1) for ratio in overhead(record, rows, prefix)] for rows in record.rows]
        table.add_row(f"prefix {prefix}", *(_spread(cell, "+.1f") for cell in cells))
    return table


def _joins(record: Record) -> Table:
    columns = ("plain step after, ms", "fork adds, ms", "join adds, ms", "with join / plain")
    table = _table("Fork and join of four branches", "tokens per branch", *columns)
    for length, joins in sorted(record.joins.items()):
        table.add_row(
            str(length),
            _spread([join.plain * 1e3 for join in joins]),
            _spread([join.fork * 1e3 for join in joins]),
            _spread([join.join * 1e3 for join in joins]),
            _spread([join.relative for join in joins], ".2f"),
        )
    return table


def _documents(record: Record) -> Table:
    columns = ("tokens", "branches", "speed-up", "speed-up / parallelism")
    table = _table("Whole documents (trunk, block, trunk) against as many tokens in sequence", "parallelism", *columns)
    for width, wholes in sorted(record.documents.items()):
        table.add_row(
            f"{wholes[0].parallelism:.2f}",
            str(wholes[0].tokens),
            str(width),
            _spread([whole.speedup for whole in wholes], ".2f"),
            _spread([whole.speedup / whole.parallelism for whole in wholes], ".2f"),
        )
    return table


def _aims(record: Record) -> Table:
    table = _table("Aims", "ratio", "aim", "measured", "")
    for aim in aims(record):
        verdict = {True: "[green]pass[/green]", False: "[red]fail[/red]", None: "not measured"}[aim.met]
        table.add_row(aim.text, f"{'≥' if aim.at_least else '≤'} {aim.limit:g}", _spread(aim.ratios, ".3f"), verdict)
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", width=WIDTH)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _spread(values: list[float], form: str = "") -> str:
    """Median, and lowest to highest if there is more than one value; to three digits without a `form`."""

    def text(value: float) -> str:
        return format(value, form or (".0f" if abs(value) >= 100 else ".1f"))

    if not values:
        return ""
    middle, between = text(median(values)), "…" if "+" in form else "–"
    return middle if len(values) == 1 else f"{middle} ({text(min(values))}{between}{text(max(values))})"
