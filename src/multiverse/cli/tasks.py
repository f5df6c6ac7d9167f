"""`multiverse tasks`: the problems that models are trained on and measured on, as JSON lines."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, cast

import typer

from ..evaluation.config import EvaluationConfig
from .declared import Fields, Limit, Seed, Split, expand_options
from .errors import InputError, known


@expand_options
def tasks(
    family: Annotated[
        str, typer.Argument(metavar="FAMILY", help="worksheet, cases, countdown, nested or chain.", show_default=False)
    ],
    shape: Annotated[dict[str, Any], Fields(of=EvaluationConfig, only=("width", "depth"))],
    limit: Limit = 10,
    seed: Seed = 0,
    split: Split = "test",
) -> None:
    """Print problems with their answers and both solutions, one JSON object a line.

    Each has [bold]question[/bold], [bold]answer[/bold], [bold]sequential[/bold] (the same solution without forks) and
    [bold]structured[/bold] (the solution that forks). The same arguments give
    the same problems everywhere.

    [bold]Families[/bold]
    worksheet   calculations and their sum        --width 2 to 6
    cases       one rule, tried on each case      --width 2 to 5
    countdown   reach a target from numbers       --width 3 or 4
    nested      blocks in blocks                  --width 2 or 3, --depth 2 or 3
    chain       step after step: nothing to fork

    [bold]Examples[/bold]
    multiverse tasks worksheet --limit 3 --seed 7
    multiverse tasks nested --depth 3 --limit 1 | jq -r .structured > document.xml
    """
    from ..structure import render
    from ..tasks import FAMILIES, problems
    from ..tasks import Split as Side
    from .jsonio import print_json

    known("family", family, FAMILIES)
    side = known("split", split or "test", ("train", "test"))
    try:
        stream = problems(family, seed=seed, split=cast(Side, side), **shape)
    except ValueError as error:
        raise InputError(str(error)) from None
    for problem in islice(stream, limit):
        line = {
            "question": problem.question,
            "answer": problem.answer,
            "sequential": render(problem.sequential),
            "structured": render(problem.structured),
        }
        print_json(line)
