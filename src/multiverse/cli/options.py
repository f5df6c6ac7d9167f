"""Options that several commands share, so that they are called and explained alike."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

MODEL = "Model"
OUTPUT = "Output"
SAMPLING = "Sampling"
BOUNDS = "Bounds"


class Dtype(StrEnum):
    """Types in which a model can be run."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PATH|ID",
        help="Folder or hub id of a model.",
        rich_help_panel=MODEL,
        show_default="multiverse-mini",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where to run it: auto (CUDA when there is one), cpu, cuda, cuda:1.",
        rich_help_panel=MODEL,
    ),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype", metavar="TYPE", help="auto (as it was saved), float32, bfloat16 or float16.", rich_help_panel=MODEL
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        "--temperature", "-t", metavar="T", help="0 takes the likeliest token; higher is more random.", rich_help_panel=SAMPLING
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option("--max-tokens", metavar="N", help="Most tokens to write, over all branches together.", rich_help_panel=BOUNDS),
]
ThinkingBudget = Annotated[
    int | None,
    typer.Option(
        "--thinking-budget",
        metavar="N",
        help="Longest chain of tokens that may be thought before answering.",
        rich_help_panel=BOUNDS,
        show_default="none",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.", rich_help_panel=OUTPUT)]
Width = Annotated[
    int | None,
    typer.Option(
        "--width", metavar="N", help="How wide each problem forks; the families know different widths.", show_default="drawn"
    ),
]
Depth = Annotated[
    int | None, typer.Option("--depth", metavar="N", help="How deep each problem nests (family nested).", show_default="drawn")
]
