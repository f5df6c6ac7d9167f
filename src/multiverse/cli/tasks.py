"""`multiverse tasks`: the problems that models are trained on and measured on, as JSON lines."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, cast

import typer

from .errors import InputError, known
from .options import Depth, Width


def tasks(
    family: Annotated[
        str, typer.Argument(metavar="FAMILY", help="worksheet, cases, countdown, nested or chain.", show_default=False)
    ],
    n: Annotated[int, typer.Option("--n", "-n", metavar="N", help="How many.", min=0)] = 10,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Which stream of problems.")] = 0,
    width: Width = None,
    depth: Depth = None,
    split: Annotated[
        str, typer.Option("--split", metavar="train|test", help="Which side of the split they come from.")
    ] = "test",
) -> None:
    """Print problems with their answers and both solutions, one JSON object a line.

    Each has [bold]question[/bold], [bold]answer[/bold], [bold]sequential[/bold] (the solution in a line) and
    [bold]structured[/bold] (the solution that forks). The same arguments give
    the same problems everywhere.

    [bold]Families[/bold]
    worksheet   calculations and their sum        --width 2 to 6
    cases       one rule, tried on each case      --width 2 to 5
    countdown   reach a target from numbers       --width 3 or 4
    nested      blocks in blocks                  --width 2 or 3, --depth 2 or 3
    chain       step after step: nothing to fork

    [bold]Examples[/bold]
    multiverse tasks worksheet --n 3 --seed 7
    multiverse tasks nested --depth 3 --n 1 | jq -r .structured > document.xml
    """
    from ..structure import render
    from ..tasks import FAMILIES, Split, problems
    from .jsonio import dump

    known("family", family, FAMILIES)
    known("split", split, ("train", "test"))
    try:
        stream = problems(family, seed=seed, split=cast(Split, split), width=width, depth=depth)
    except ValueError as error:
        raise InputError(str(error)) from None
    for problem in islice(stream, n):
        line = {
            "question": problem.question,
            "answer": problem.answer,
            "sequential": render(problem.sequential),
            "structured": render(problem.structured),
        }
        typer.echo(dump(line))
