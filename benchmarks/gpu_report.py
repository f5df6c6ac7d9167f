"""A run of `benchmarks.gpu` as one table per shape."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 120
# a and b, in milliseconds per token, that the paper reports for 32B on its own hardware.
PAPER = {"8192": (15.43, 0.60), "16384": (15.43, 1.06), "32768": (15.38, 2.14)}


def show(record: dict[str, Any], console: Console | None = None) -> None:
    """Print all tables and notes."""
    console = console or Console(width=WIDTH)
    for name, found in record["shapes"].items():
        console.print(_table(name, found))
    for note in record["notes"]:
        console.print(note, highlight=False)
    console.print(record["machine"], highlight=False)
    if not record["async_scheduling"]:
        console.print(
            "No forward started before the previous one's tokens were on the host (--no-async-scheduling).", highlight=False
        )
    if record["device"] != "cuda":
        console.print("Measured on a CPU: this shows only that the benchmark runs.", highlight=False)


def _table(name: str, found: dict[str, Any]) -> Table:
    table = Table(title=f"Qwen2.5 {name}, random bf16 weights", title_justify="left", width=WIDTH)
    table.add_column("what", no_wrap=True)
    for column in ("", "ms", "against"):
        table.add_column(column, justify="right", no_wrap=True)
    floor = found.get("floor_ms", 1e3 * found["weight_bytes"] / found["copy_bytes_per_second"])
    copied = f"{found['copy_bytes_per_second'] / 1e12:.2f} TB/s copied"
    table.add_row("floor: weights read once", f"{found['weight_bytes'] / 1e9:.2f} GB", f"{floor:.3f}", copied)
    table.add_section()
    for rows, step in found.get("generate", {}).items():
        table.add_row("transformers, static cache", f"{rows} rows", f"{step:.3f}", f"{floor / step:.1%} of the floor")
    for rows, step in found.get("plain", {}).items():
        table.add_row("step, separate requests", f"{rows} rows", f"{step:.3f}", f"{floor / step:.1%} of the floor")
    for rows, step in found.get("forked", {}).items():
        plain = found.get("plain", {}).get(rows)
        table.add_row(
            "step inside a block", f"{rows} branches", f"{step:.3f}", f"{step / plain - 1:+.1%} over plain" if plain else ""
        )
    table.add_section()
    for key, step in found.get("latency", {}).items():
        context, width = key.split()
        table.add_row(f"per token at context {context}", f"parallelism {width}", f"{step / int(width):.3f}", f"step {step:.3f}")
    for context, terms in found.get("fits", {}).items():
        paper = f"paper, 32B: {PAPER[context][0]}/x + {PAPER[context][1]}" if context in PAPER and name == "32b" else ""
        table.add_row(f"fit at context {context}", "", f"{terms['a']:.2f}/x + {terms['b']:.2f}", paper)
    table.add_section()
    for length, cost in found.get("join", {}).items():
        against = f"join is {cost['join'] / cost['plain']:+.2f} of a plain step"
        table.add_row("fork and join of 4", f"{length} tokens each", f"{cost['fork']:+.3f} {cost['join']:+.3f}", against)
    for key, whole in found.get("speedup", {}).items():
        batch, _ = key.split()
        ratio = whole["speedup"] / whole["parallelism"]
        what = f"{whole['speedup']:.2f}x, {ratio:.1%} of parallelism"
        table.add_row(f"speed-up at parallelism {whole['parallelism']:.2f}", f"batch {batch}", "", what)
    return table
