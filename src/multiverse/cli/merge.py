"""`multiverse merge`: an adapter and its base as one model, for engines that load no adapters."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from .declared import Json, Out
from .errors import InputError
from .loading import quietly


def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Folder of the adapter.", show_default=False)],
    out: Out,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option("--save-dtype", help="Type of the weights; auto is the one that the adapter's folder names."),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Merge LoRA adapters into the weights of their base, and write the result as an ordinary model folder.

    `multiverse` loads adapters as they are; other engines, and tensor parallelism,
    need the merged model.

    [bold]Examples[/bold]
    multiverse merge runs/mine/adapter --out runs/mine/model
    """
    from ..models.adapter import read_adapter

    if not adapter.is_dir() or read_adapter(adapter) is None:
        raise InputError(f"{str(adapter)!r} is no folder of an adapter: it has to hold adapter_config.json")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise InputError(f"--out {str(out)!r} is there already: name a new folder")
    with quietly(str(adapter)):
        from ..models.merge import write_merged

        write_merged(adapter, out, dtype)
    if as_json:
        from .jsonio import dump

        typer.echo(dump({"model": str(out)}))
    else:
        typer.echo(f"{out}: try it with  multiverse generate --model {shlex.quote(str(out))} '…'")
