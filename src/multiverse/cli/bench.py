"""`multiverse bench`: how fast a model is on this machine, in branches and in a line, and beside other engines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bench.config import BenchConfig
from .bars import bars
from .declared import OUT, Fields, Json, expand_options
from .errors import InputError
from .jsonio import print_json
from .loading import ModelOptions

if TYPE_CHECKING:
    from rich.table import Table

    from ..bench.record import Record
    from ..bench.run import Progress

PAGE_SUFFIXES = (".html", ".htm")


@expand_options
def bench(
    model: Annotated[ModelOptions, Fields(leave_out=("upstream", "tokenizer", "malformed", "preset", "instruction_file"))],
    config: BenchConfig,
    out: Annotated[Path | None, OUT] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on this machine: decode speed in branches and in a line, time to the first token, and other engines.

    Beside ours are measured, with the same model and where they are here: transformers' generate, a llama-server on the path
    (with a GGUF file), vLLM, and servers that are named with --server-url. All are measured in turn, --rounds times; what is
    reported is the median. The tokens are dictated, so that the figures do not depend on what a model happens to write.
    Ctrl-C ends it and keeps what was measured. --out FILE.html writes a page, --out DIR report.html and report.json.

    [bold]Examples[/bold]
    multiverse bench
    multiverse bench --model ./my-model --prefixes 512 --prefixes 4096 --out bench.html
    multiverse bench --model my-model.gguf --against llama.cpp
    multiverse bench --model ./my-model --server-url http://127.0.0.1:8000/v1 --json
    """
    from ..bench.page import write_page
    from ..bench.run import measure, write

    if out is not None and out.is_file() and out.suffix.lower() not in PAGE_SUFFIXES:
        raise InputError(f"--out {str(out)!r} is a file: give an .html file, or a folder")
    llm = model.load()
    with llm, _progress() as told:
        record = measure(llm, config, model.name, on_task=told)
    if out is not None:
        page = out if out.suffix.lower() in PAGE_SUFFIXES else out / "report.html"
        write_page(record, page)
        if page != out:
            write(record, out / "report.json")
        print(f"wrote {page}", file=sys.stderr)
    if as_json:
        print_json(record.to_json())
    else:
        print_record(record)
    if record.interrupted:
        raise typer.Exit(130)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's stderr."""
    with bars() as progress:
        bar = progress.add_task("loading", total=None)

        def told(what: str, done: int, total: int) -> None:
            progress.update(bar, description=f"{what:<44.44}", completed=done, total=total if total > 1 else None)

        yield told


def print_record(record: Record) -> None:
    """Tables of decode speed, first tokens and documents; 80 columns are enough."""
    from statistics import median

    from rich.console import Console
    from rich.text import Text

    from ..bench.record import FORKED, Case

    console = Console(highlight=False)

    def said(title: str) -> None:  # not a title of the table, which would be broken where the table ends
        console.print(Text(f"\n{title}", "bold"), soft_wrap=True)

    console.print(Text(f"{record.model} on {record.machine}, {record.date}", "bold"))
    for prefix in record.prefixes:
        table = _table(
            f"\nDecode, tokens a second over all rows; {prefix:,} tokens read before", "rows", *map(str, record.rows)
        )
        for side in record.sides:
            speeds = [record.speeds.get(Case(side, rows, prefix), []) for rows in record.rows]
            if any(speeds):
                table.add_row(side, *(f"{median(cell):,.0f}" if cell else "" for cell in speeds))
        gains = [record.gains(rows, prefix) for rows in record.rows]
        if any(gains):
            table.add_section()
            table.add_row("branches, times a line", *(f"{median(cell):.1f}" if cell else "" for cell in gains))
        for side in record.sides:
            ratios = [record.ratios(Case(side, rows, prefix)) for rows in record.rows]
            if not side.startswith("multiverse, ") and any(ratios):
                table.add_row(f"ours over {side}", *(f"{median(cell):.2f}" if cell else "" for cell in ratios))
        console.print(table)
        first = [(side, record.first_tokens[side, prefix]) for side in record.sides if (side, prefix) in record.first_tokens]
        if first:
            said(f"First token of a prompt of {prefix:,} tokens")
            table = _table("engine", "ms")
            for side, seconds in first:
                table.add_row(
                    "multiverse" if side != FORKED and side.startswith("multiverse, ") else side,
                    f"{1000 * median(seconds):,.1f}",
                )
            console.print(table)
        documents = {paths: wholes for (paths, at), wholes in record.documents.items() if at == prefix}
        if documents:
            heads = ("tokens", "critical path", "parallelism", "seconds", "in a line", "times as fast")
            said("A document of one block, from fork to join, beside as many tokens in a line")
            table = _table("paths", *heads)
            for paths, wholes in documents.items():
                one = wholes[0]
                seconds, line = (median(getattr(whole, name) for whole in wholes) for name in ("seconds", "line_seconds"))
                ratio = median(whole.line_seconds / whole.seconds for whole in wholes)
                cells = (f"{one.tokens:,}", f"{one.critical_path_tokens:,}", f"{one.tokens / one.critical_path_tokens:.1f}")
                table.add_row(str(paths), *cells, f"{seconds:.3f}", f"{line:.3f}", f"{ratio:.1f}")
            console.print(table)
    for line in [*(f"{side}: {version}" for side, version in record.versions.items()), *record.notes]:
        console.print(Text(line, "dim"))
    if record.interrupted:
        console.print(Text("interrupted: these are the rounds that were finished, and parts of one", "yellow"))


def _table(first: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
