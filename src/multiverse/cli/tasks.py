"""`multiverse tasks`: the problems that models are trained on and measured on, as JSON lines."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, cast

import typer

from ..evaluation.config import SHAPE, EvaluationConfig
from .complete import among, family_names
from .declared import Fields, Limit, Seed, Split, expand_options
from .errors import InputError, known


@expand_options
def tasks(
    family: Annotated[
        str,
        typer.Argument(metavar="FAMILY", help="One of those below.", show_default=False, autocompletion=among(family_names)),
    ],
    shape: Annotated[dict[str, Any], Fields(of=EvaluationConfig, only=SHAPE)],
    limit: Limit = 10,
    seed: Seed = 0,
    split: Split = "test",
) -> None:
    """Print problems with their answers and both solutions, one JSON object a line.

    Each has [bold]question[/bold], [bold]answer[/bold], [bold]sequential[/bold] (the same solution without forks) and
    [bold]structured[/bold] (the solution that forks). The same arguments give
    the same problems everywhere.

    [bold]Families[/bold]
    worksheet  calculations and their sum    --width 2-6, --steps 1-8
    cases      one rule, tried on each case  --width 2-5, --steps 1-6
    countdown  reach a target from numbers   --width 3-4
    nested     blocks in blocks              --width 2-3, --depth 2-3, --steps 1-8
    chain      step after step, no fork      --steps 2-16
    lookup     questions about one text      --width 2-8
    listing    small independent questions   --width 2-8
    sorting    items into classes by a rule  --width 2-8

    The last three have natural wording only. [bold]--wording natural[/bold] draws names, things and phrasings from large lists;
    a third of each, and a range of numbers, is held out from training questions ([bold]--split train[/bold]) and used in test
    questions, unless [bold]--vocabulary[/bold], [bold]--phrasings[/bold] or [bold]--numbers[/bold] say otherwise.

    [bold]Examples[/bold]
    multiverse tasks worksheet --limit 3 --seed 7
    multiverse tasks worksheet --wording natural --vocabulary train --phrasings heldout
    multiverse tasks nested --depth 3 --limit 1 | jq -r .structured > document.xml
    """
    from ..structure import render
    from ..tasks import FAMILIES, Wording, problems
    from ..tasks import Split as Side
    from .jsonio import print_json

    known("family", family, FAMILIES)
    side = known("split", split or "test", ("train", "test"))
    try:
        size = {name: shape.pop(name, None) for name in ("width", "depth")}
        wording = Wording(shape.pop("wording", None), **shape)
        stream = problems(family, seed=seed, split=cast(Side, side), wording=wording, **size)
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
