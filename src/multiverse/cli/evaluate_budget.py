"""`multiverse eval budget`: accuracy against a budget of critical path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .bars import bars
from .errors import InputError, known
from .loading import open_model
from .options import BOUNDS, MODEL, OUTPUT, SAMPLING, Device, Dtype, DtypeOption, Json, MaxTokens, Model, Temperature

if TYPE_CHECKING:
    from ..evaluation.budget import Curves, Plan, System
    from ..evaluation.sample import Sample
    from ..llm import LLM
    from ..prompting import Mode

PROBLEMS = "Problems"
AGAINST = "The other system"
MODES = ("parallel", "sequential")


def budget(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder of the comparison; what is finished in it is not run again.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ],
    model: Model = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="NAME", help="parallel or sequential.", rich_help_panel=MODEL)
    ] = "parallel",
    against_model: Annotated[
        str | None,
        typer.Option(
            "--against-model",
            metavar="PATH|ID",
            help="Folder or hub id of its model.",
            rich_help_panel=AGAINST,
            show_default="the same",
        ),
    ] = None,
    against_mode: Annotated[
        str, typer.Option("--against-mode", metavar="NAME", help="parallel or sequential.", rich_help_panel=AGAINST)
    ] = "sequential",
    budgets: Annotated[
        str,
        typer.Option(
            "--budgets", metavar="N,N,...", help="Bounds on the longest chain of generated tokens.", rich_help_panel=BOUNDS
        ),
    ] = "64,128,192,256,320,384,512",
    family: Annotated[
        str,
        typer.Option("--family", "-f", metavar="NAME,...", help="Families of problems, or all.", rich_help_panel=PROBLEMS),
    ] = "all",
    n: Annotated[
        int, typer.Option("--n", "-n", metavar="N", help="Questions per family.", min=1, rich_help_panel=PROBLEMS)
    ] = 40,
    seed: Annotated[
        int, typer.Option("--seed", metavar="S", help="Which problems, and what is drawn.", min=0, rich_help_panel=PROBLEMS)
    ] = 7,
    epochs: Annotated[
        int, typer.Option("--epochs", metavar="N", help="How often each question is asked.", min=1, rich_help_panel=SAMPLING)
    ] = 1,
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 2048,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    as_json: Json = False,
) -> None:
    """Which of two systems makes more of the same critical path.

    Both are asked the same questions under each budget: a bound on the longest
    chain of tokens, near which paths are closed and the answer is written. By
    default a model that thinks in parallel is set against itself in a line.
    Writes curves with bands, the mean gain with its interval, Markdown and JSON.

    [bold]Examples[/bold]
    multiverse eval budget --out runs/budget
    multiverse eval budget --out runs/budget -m my/model --against-model my/twin --n 100
    """
    from ..errors import require
    from ..evaluation.budget import curves, measure
    from ..evaluation.budget_report import BUDGET, write_budget

    for name in ("scipy", "matplotlib"):
        require(name, "eval")  # if it is missing, better told now than after all the work

    @cache
    def load(name: str | None) -> LLM:
        return open_model(name, device=device, dtype=dtype.value)

    other = model if against_model is None else against_model
    systems = _systems((model, mode), (other, against_mode), load)
    plan = _plan(family, n, seed, _budgets(budgets), epochs, temperature, max_tokens)
    with _progress(plan, systems) as watch:
        first, second = (measure(system, plan, out, watch(system)) for system in systems)
    names = (systems[0].name, systems[1].name)
    compared = curves(names, first, second, seed=seed)
    write_budget(compared, systems, plan, [*first.values(), *second.values()], out)
    cut = sum(sample.finish_reason == "length" for runs in (first, second) for run in runs.values() for sample in run.samples)
    if cut:
        print(f"{cut} answers ran into --max-tokens before their budget, and count as wrong: raise it", file=sys.stderr)
    if as_json:
        from .jsonio import dump

        typer.echo(dump(compared.to_json()))
    else:
        _print(compared)
        print(f"wrote {out / BUDGET}", file=sys.stderr)


def _systems(
    first: tuple[str | None, str], second: tuple[str | None, str], load: Callable[[str | None], LLM]
) -> tuple[System, System]:
    """Two systems, named by what tells them apart."""
    from ..evaluation.budget import System
    from ..evaluation.recording import slug

    if first == second:
        raise InputError("both systems are the same: give another --against-mode or --against-model")

    def system(model: str | None, mode: str) -> System:
        shown = "multiverse-mini" if model is None else model
        own = slug(Path(shown).name) if first[0] != second[0] else ""
        name = "-".join(filter(None, (own, known("mode", mode, MODES) if first[1] != second[1] else "")))
        return System(name, shown, cast("Mode", mode), lambda: load(model))

    made = system(*first), system(*second)
    if made[0].name == made[1].name:
        made = made[0]._replace(name=f"{made[0].name}-1"), made[1]._replace(name=f"{made[1].name}-2")
    return made


def _budgets(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--budgets {text!r} is not valid: give whole numbers with commas between, such as 128,256") from None


def _plan(family: str, n: int, seed: int, budgets: tuple[int, ...], epochs: int, temperature: float, max_tokens: int) -> Plan:
    from ..engine import SamplingParams
    from ..evaluation.budget import Plan, of_families
    from ..evaluation.machine import describe_machine
    from ..tasks import FAMILIES

    families = FAMILIES if family == "all" else tuple(known("family", name, FAMILIES) for name in family.split(","))
    return Plan(
        questions=of_families(families, n, seed),
        budgets=budgets,
        params=SamplingParams(temperature=temperature, top_p=1.0, max_tokens=max_tokens),
        epochs=epochs,
        seed=seed,
        description={"families": list(families), "n": n, "split": "test"},
        machine=describe_machine(),
    )


@contextmanager
def _progress(plan: Plan, systems: tuple[System, System]) -> Iterator[Callable[[System], Callable[[Sample], None]]]:
    """A bar for each system on a terminal's stderr."""
    with bars() as progress:
        by_system = {system.name: progress.add_task(system.name, total=plan.size * len(plan.budgets)) for system in systems}
        yield lambda system: lambda _: progress.advance(by_system[system.name])


def _print(compared: Curves) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..evaluation.markdown import PASS, changed, told

    first, second = compared.names
    table = Table(box=None, pad_edge=False)
    for heading in ("budget", f"{first}, %", f"{second}, %", "gain [95% interval]"):
        table.add_column(heading, justify="right")
    for a, b, gain in zip(*compared.points, compared.gains, strict=True):
        table.add_row(str(a.budget), told(PASS, a.right), told(PASS, b.right), changed(PASS, gain))
    table.add_section()
    table.add_row("mean", "", "", changed(PASS, compared.mean_gain))
    Console().print(table)
