"""What `multiverse data` reads with a progress bar, and what it prints: faults, duplicates, tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from ..data import Duplicate, Fault, Loaded, Row, Statistics
    from ..structure import Dialect

Item = TypeVar("Item")

_LISTED = 10
"""Most duplicates that are listed one by one."""


def warn_of_duplicates(rows: list[Row], remedy: str = "") -> list[Duplicate]:
    """The rows that are the same as an earlier one; they are listed as warnings."""
    from ..data import duplicates
    from .style import clean

    found = duplicates(rows)
    for duplicate in found[:_LISTED]:
        typer.echo(f"warning: {' '.join(clean(str(duplicate)).split())}", err=True)
    if len(found) > _LISTED:
        typer.echo(f"warning: … and {len(found) - _LISTED:,} more", err=True)
    if found:
        are = "is an exact duplicate" if len(found) == 1 else "are exact duplicates"
        share = f"{count(len(found), 'document')} of {len(rows):,} {are}"
        typer.echo(f"warning: {share}{f'; {remedy}' if remedy else ''}", err=True)
    return found


def report(faults: Iterable[Fault]) -> None:
    """List faults with file and line."""
    from .style import clean

    for fault in faults:
        typer.echo(" ".join(clean(str(fault)).split()), err=True)


def summary(loaded: Loaded) -> str:
    """How many faults there are, and how many good documents."""
    return f"{count(len(loaded.faults), 'fault')} beside {count(len(loaded.rows), 'good document')}"


def count(number: int, one: str) -> str:
    """A number of things in words."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def headline(statistics: Statistics) -> str:
    """How many documents there are, and how many of them fork."""
    return f"{count(len(statistics.shapes), 'document')}, {statistics.forked:.0%} fork"


def print_table(statistics: Statistics, counted: str) -> None:
    """Statistics as a table.

    Args:
        counted: which tokens are counted.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from ..data.statistics import NAMES, cells

    console = Console()
    # Not the table's title, which would be wrapped to the width of the table.
    console.print(Text(f"{headline(statistics)} · {counted}", "bold"), soft_wrap=True)
    headings = (Column(name, justify="right") for name in ("mean", "median", "min", "p90", "max"))
    table = Table("a document has", *headings, box=None, collapse_padding=True, pad_edge=False)
    for name, title in NAMES.items():
        table.add_row(title, *cells(name, statistics.summaries.get(name)))
    console.print(table)


def load(sources: Sequence[str], dialect: Dialect, split: str | None) -> Loaded:
    """Documents of these sources, with a progress bar on a terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # read when the library is imported
    from ..data import Fault, Loaded, Row, scan

    found = [item for name in sources for item in with_progress(scan(name, dialect, split=split), f"reading {name}")]
    return Loaded([item for item in found if isinstance(item, Row)], [item for item in found if isinstance(item, Fault)])


def with_progress(items: Iterable[Item], what: str) -> Iterable[Item]:
    """The items, with a transient progress bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    total = len(items) if isinstance(items, list) else None
    console = Console(stderr=True)
    return track(items, what, total=total, console=console, transient=True, disable=not sys.stderr.isatty())
