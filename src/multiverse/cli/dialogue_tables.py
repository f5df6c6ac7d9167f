"""Tables of reports on dialogues, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation.dialogues.report import DialogueReport, Table


def print_dialogues(summed: DialogueReport) -> None:
    """The tables of a report."""
    from rich.console import Console
    from rich.text import Text

    from ..evaluation.dialogues.report import tables

    console = Console()
    for results in summed.results:
        run = results.run
        console.print(
            Text(f"{run.name} · {run.model} · {run.date} · judged by {results.judge or 'nobody'}", "bold"), soft_wrap=True
        )
        for table in tables(results, seed=summed.seed, every=False):
            _print(table)
    print_comparisons(summed)


def print_comparisons(summed: DialogueReport) -> None:
    """The comparisons of a report, and whose figures they are."""
    from rich.console import Console
    from rich.text import Text

    from ..evaluation.dialogues.report import OURS, comparison_table

    for compared in summed.comparisons:
        _print(comparison_table(compared))
    Console().print(Text(OURS, "dim"), soft_wrap=True)


def _print(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=None, pad_edge=False, title=Text(table.title, "bold"), title_justify="left")
    for number, heading in enumerate(table.head):
        text = number == 0 or heading in ("rule", "reason", "second")
        drawn.add_column(heading, overflow="fold", no_wrap=not text, justify="left" if text else "right")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console()
    console.print(drawn)
    console.print()
