"""`multiverse eval budget`: accuracy of two systems under limits on the critical path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..engine.params import SamplingParams
from ..errors import require
from ..evaluation.config import EvaluationConfig
from ..options import Options, like
from ..prompting import Mode
from ..serving.config import ServerConfig
from .bars import bars
from .declared import Fields, Json, Out, expand_options
from .errors import InputError
from .evaluate import NAMES, Data, LocalModel, Source, benchmarks, parse_data, provider
from .jsonio import print_json
from .loading import ModelOptions

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI

    from ..evaluation.budget import Curves, System
    from ..evaluation.run import Progress
    from ..evaluation.sample import Sample

AGAINST = "The other system"


@dataclass(frozen=True)
class Systems(Options):
    """What two systems differ in."""

    mode: Mode = like(ServerConfig, "mode", group="Model")
    against_model: str | None = like(ModelOptions, "model", flag=None, group=AGAINST, show_default="the same")
    against_mode: Mode = like(ServerConfig, "mode", "sequential", group=AGAINST)


@expand_options
def budget(
    out: Out,
    config: Annotated[EvaluationConfig, Fields(defaults={"limit": 40}, show_default={"limit": "40"})],
    sampling: Annotated[
        SamplingParams,
        Fields(only=("temperature", "top_p", "max_tokens"), defaults={"temperature": 0.0, "top_p": 1.0, "max_tokens": 2048}),
    ],
    model: LocalModel,
    source: Source,
    compared: Systems,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help=NAMES, show_default="our own calculations")] = None,
    budgets: Annotated[
        str,
        typer.Option(
            "--budgets", metavar="N,N,...", help="Limits on the longest chain of generated tokens.", rich_help_panel="Limits"
        ),
    ] = "64,128,192,256,320,384,512",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Compare the accuracy of two systems at an equal critical path.

    Both are asked the same questions under each budget: a limit on the longest chain of tokens, near which paths are closed
    and the answer is written. By default a model that thinks in parallel is compared with itself asked sequentially. Writes
    curves with intervals, the mean gain with its interval, Markdown and JSON.

    [bold]Examples[/bold]
    multiverse eval budget --out runs/budget
    multiverse eval budget worksheet nested --out runs/budget -m my/model --against-model my/baseline --limit 100
    """
    from ..evaluation.budget import check_budgets, curves, sweep
    from ..evaluation.budget_report import BUDGET, write_budget
    from ..evaluation.run import load
    from ..tasks import CALCULATIONS

    for library in ("scipy", "matplotlib"):
        require(library, "eval")  # needed at the end only, but better found missing before the model has run
    config = replace(config, benchmarks=benchmarks(names or list(CALCULATIONS)), sampling=sampling, data=parse_data(data))
    limits = _parse_budgets(budgets)
    check_budgets(limits, config)
    other = model if compared.against_model is None else replace(model, model=compared.against_model)
    systems = _systems((model, compared.mode), (other, compared.against_mode), cache(lambda own: provider(source, own)[:2]))
    sets = load(config)
    with _progress(systems) as progress:
        first, second = (
            sweep(one, config, limits, out, sets=sets, concurrency=source.concurrency, progress=progress[one.name])
            for one in systems
        )
    found = curves((systems[0].name, systems[1].name), first, second, seed=config.seed)
    write_budget(found, systems, config, [*first.values(), *second.values()], out)
    cut = sum(sample.finish_reason == "length" for runs in (first, second) for run in runs.values() for sample in run.samples)
    if cut:
        print(f"{cut} answers reached --max-tokens before their budget, and count as wrong: raise it", file=sys.stderr)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
        print(f"wrote {out / BUDGET}", file=sys.stderr)


Opener = Callable[[ModelOptions], tuple[str, "Callable[[], ModelAPI]"]]


def _systems(first: tuple[ModelOptions, Mode], second: tuple[ModelOptions, Mode], opener: Opener) -> tuple[System, System]:
    """Two systems, named by what differs between them: model, mode, or both."""
    from ..evaluation.budget import System
    from ..evaluation.recording import slug

    if first == second:
        raise InputError("both systems are the same: give another --against-mode or --against-model")

    def system(model: ModelOptions, mode: Mode) -> System:
        name, open_api = opener(model)
        own = slug(Path(name).name) if first[0] != second[0] else ""
        label = "-".join(filter(None, (own, mode if first[1] != second[1] else "")))
        return System(label, name, mode, open_api)

    made = system(*first), system(*second)
    if made[0].name == made[1].name:
        made = made[0]._replace(name=f"{made[0].name}-1"), made[1]._replace(name=f"{made[1].name}-2")
    return made


def _parse_budgets(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--budgets {text!r} is not valid: give whole numbers with commas between, such as 128,256") from None


@contextmanager
def _progress(systems: tuple[System, System]) -> Iterator[dict[str, Progress]]:
    """A bar for each system on a terminal's stderr; its total grows as the points begin."""
    from ..evaluation.run import Progress

    shown = bars()

    def callbacks(system: System) -> Progress:
        bar, total = shown.add_task(system.name, total=0), 0

        def begin(_name: str, _mode: Mode, samples: int, done: list[Sample]) -> None:
            nonlocal total
            total += samples
            shown.update(bar, total=total, advance=len(done))
            shown.start()

        return Progress(begin, lambda _: shown.advance(bar))

    try:
        yield {system.name: callbacks(system) for system in systems}
    finally:
        shown.stop()


def _print(compared: Curves) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..evaluation.markdown import PASS, format_difference, format_mean

    first, second = compared.names
    table = Table(box=None, pad_edge=False)
    for heading in ("budget", f"{first}, %", f"{second}, %", "gain [95% interval]"):
        table.add_column(heading, justify="right")
    for a, b, gain in zip(*compared.points, compared.gains, strict=True):
        table.add_row(str(a.budget), format_mean(PASS, a.right), format_mean(PASS, b.right), format_difference(PASS, gain))
    table.add_section()
    table.add_row("mean", "", "", format_difference(PASS, compared.mean_gain))
    Console().print(table)
