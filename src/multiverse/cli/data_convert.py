"""`multiverse data convert`: documents of one dialect in another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from .data_output import count, load, report, summary
from .declared import DialectName, Json, MalformedPolicy, OnError, Out, Split
from .errors import InputError, known
from .jsonio import print_json

if TYPE_CHECKING:
    from ..data import Fault, Row
    from ..structure import Dialect

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="An .xml, .jsonl, .json or .parquet file, a folder, or a hub id.", show_default=False
    ),
]
To = Annotated[str, typer.Option("--to", metavar="DIALECT", help="Dialect to write the documents in.", show_default=False)]


def convert(
    sources: Sources,
    to: To,
    out: Out,
    dialect: DialectName = "multiverse",
    malformed: MalformedPolicy = "refuse",
    split: Split = None,
    on_error: OnError = "stop",
    as_json: Json = False,
) -> None:
    """Write documents of one dialect in another.

    Nothing is lost that both can express. What the other cannot, such as a block
    in a path, too many paths or a conclusion, is a fault that names it. White
    space beside tags becomes that of the other dialect.

    [bold]Examples[/bold]
    multiverse data convert npr.jsonl --dialect npr --to multiverse --out data.jsonl
    multiverse data convert npr.jsonl --dialect npr --to npr --out canonical.jsonl
    """
    from ..data import Loaded
    from ..data.write import check_rows_format, write_faults, write_rows
    from ..structure import DIALECTS

    source = replace(DIALECTS[known("dialect", dialect, DIALECTS)], malformed=malformed)
    target = DIALECTS[known("to", to, DIALECTS)]
    check_rows_format(out)
    read = load(sources, source, split)
    rows, faults = _converted(read.rows, source, target)
    loaded = Loaded(rows, [*read.faults, *faults])
    report(loaded.faults)
    if loaded.faults and on_error == "stop":
        raise InputError(f"{summary(loaded)}: nothing is written; correct them, or skip them with --on-error skip")
    if not rows:
        raise InputError("no document is left to write")
    write_rows(rows, out, target)
    if loaded.faults:
        write_faults(loaded.faults, out.with_name("faults.jsonl"))
    if as_json:
        print_json({"out": str(out), "documents": len(rows), "faults": len(loaded.faults)})
        return
    left_out = f", {count(len(loaded.faults), 'fault')} in faults.jsonl" if loaded.faults else ""
    typer.echo(f"{out}: {count(len(rows), 'document')} in dialect {target.name}{left_out}")


def _converted(rows: Iterable[Row], source: Dialect, target: Dialect) -> tuple[list[Row], list[Fault]]:
    from ..data import Fault
    from ..structure import convert as convert_document

    kept: list[Row] = []
    faults: list[Fault] = []
    for row in rows:
        try:
            document = convert_document(row.document, source, target)
            baseline = row.sequential
            kept.append(replace(row, document=document, sequential=baseline and convert_document(baseline, source, target)))
        except ValueError as error:
            faults.append(Fault(row.source, row.line, str(error)))
    return kept, faults
