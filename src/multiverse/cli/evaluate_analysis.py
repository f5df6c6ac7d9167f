"""`multiverse eval probe` and `multiverse eval prompting`: what a model knows about structure before it shows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..engine.params import SamplingParams
from .bars import bars
from .declared import Family, Fields, Json, Limit, Plot, Save, Seed, expand_options
from .errors import InputError, known
from .jsonio import dump, print_json
from .loading import ModelOptions, quietly

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..evaluation.analysis.cases import Case
    from ..evaluation.analysis.probing import ProbeReport
    from ..evaluation.analysis.prompting import Answer, Asking, PromptingTest, Tally
    from ..evaluation.analysis.sites import At, Marker
    from ..evaluation.analysis.states import Reader
    from ..prompting import Mode

Source = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Take questions and documents from here: .xml, .jsonl, .json, .parquet, a folder, or a hub id.",
        rich_help_panel="Texts",
        show_default="the task families",
    ),
]


@expand_options
def probe(
    model: Annotated[ModelOptions, Fields(only=("model", "device", "dtype"))],
    family: Family = "all",
    data: Source = None,
    limit: Limit = 100,
    seed: Seed = 7,
    at: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="PLACE",
            help="Where to ask: sentence (ends of sentences), token (all tokens of them), question (its last token).",
            rich_help_panel="Texts",
        ),
    ] = "sentence",
    within: Annotated[
        int,
        typer.Option(
            "--within",
            metavar="K",
            help="With --at token: so many tokens ahead count as about to.",
            min=1,
            rich_help_panel="Texts",
        ),
    ] = 8,
    mode: Annotated[
        str,
        typer.Option(
            "--mode",
            metavar="NAME",
            help="Which texts: parallel (structured), sequential (the same in a line), both.",
            rich_help_panel="Texts",
            show_default="both, where the model has tags",
        ),
    ] = "",
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside",
            metavar="FILE",
            help="Draw a stored --json output beside it.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Read off hidden states whether a fork is about to start.

    A two-layer perceptron per layer is asked at places where a block may stand,
    half of them in front of a fork, and judged on documents that it has not seen
    (five folds). Beside it stands what the position and the last tokens alone
    tell: text that gives the fork away says nothing about the model.

    [bold]Examples[/bold]
    multiverse eval probe --at question
    multiverse eval probe --model ./my-model --data traces.jsonl --limit 500 --plot probe.svg
    multiverse eval probe --model ./twin --json > twin.json
    """
    from ..data.plot import check_format
    from ..evaluation.analysis.plots import plot_probes
    from ..evaluation.analysis.sites import PLACES

    place = cast("At", known("place", at, PLACES))
    modes = _modes(mode)
    cases = _cases(family or "all", data, limit or 100, seed)
    others = [report for path in beside or () for report in _stored(path)]
    if plot is not None:
        check_format(plot)
    reader, marker = _open_reader(model, place, within)
    if not modes:
        modes = ("parallel", "sequential") if marker.tokens is not None else ("sequential",)
    report = _probe(reader, cases, marker, modes, seed)
    if plot is not None:
        _write(plot, lambda path: plot_probes([report.as_json(), *others], path))
    if as_json:
        print_json(report.as_json())
    else:
        _print_probe(report)


@expand_options
def prompting(
    model: ModelOptions,
    sampling: Annotated[SamplingParams, Fields(only=("temperature", "max_tokens"))],
    family: Family = "all",
    data: Source = None,
    limit: Limit = 100,
    seed: Seed = 7,
    asking: Annotated[
        list[str] | None,
        typer.Option(
            "--ask",
            metavar="HOW",
            help="parallel, sequential, or explained (the format described); may be given several times.",
            rich_help_panel="Texts",
            show_default="parallel and sequential, or explained for a model without tags",
        ),
    ] = None,
    guard: Annotated[
        str,
        typer.Option(
            "--guard",
            metavar="on|off|both",
            help="Whether only legal tags can be sampled; off shows the raw model.",
            rich_help_panel="Texts",
            show_default="both, where the model has tags",
        ),
    ] = "",
    save: Save = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Ask for the format, and count how often it comes.

    An answer is [bold]formed[/bold] (its blocks are whole), [bold]broken[/bold] (it has tags of a block, but
    no whole one) or [bold]plain[/bold] (it has none). Beside it stands how often the question
    had structure to use, which its own solution tells.

    [bold]Examples[/bold]
    multiverse eval prompting --family worksheet --guard off
    multiverse eval prompting --model Qwen/Qwen2.5-0.5B-Instruct --ask explained --limit 50
    multiverse eval prompting --data documents.jsonl --save answers.jsonl --json
    """
    from ..data.plot import check_format
    from ..evaluation.analysis.plots import plot_prompting
    from ..evaluation.analysis.prompting import ASKINGS, PromptingTest

    askings = tuple(cast("Asking", known("way of asking", name, ASKINGS)) for name in asking or ())
    guards = {"": (), "on": (True,), "off": (False,), "both": (True, False)}[known("guard", guard, ("on", "off", "both", ""))]
    cases = _cases(family or "all", data, limit or 100, seed)
    if plot is not None:
        check_format(plot)
    if save is not None:
        _write(save, lambda path: path.write_text(""))  # if it cannot be written, better now than after all the work
    llm = model.load()
    tagged = llm.engine.tokens is not None
    if True in guards and not tagged:
        raise InputError(f"--guard {guard}: the guard needs the tags in the tokenizer, and {llm.model_path!r} has none")
    tests = [
        PromptingTest(way, on)
        for way in askings or (("parallel", "sequential") if tagged else ("explained",))
        for on in guards or ((True, False) if tagged else (False,))
    ]
    found = _ask(llm, cases, tests, sampling, seed)
    if save is not None:
        lines = [
            f"{dump({'asking': test.asking, 'guard': test.guard, **asdict(answer)})}\n" for test, own in found for answer in own
        ]
        _write(save, lambda path: path.write_text("".join(lines), encoding="utf-8"))
    tallies = _tallies(found)
    settings = {"model": llm.model_path, "n": len(cases), "seed": seed}
    settings |= {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    if plot is not None:
        title = f"{Path(llm.model_path).name}: what answers were"
        over_all = [one.as_json() for one in tallies if one.group == "all" or len({t.group for t in tallies}) == 1]
        _write(plot, lambda path: plot_prompting(over_all, path, title=title))
    if as_json:
        print_json({**settings, "tallies": [one.as_json() for one in tallies]})
    else:
        _print_tallies(tallies, settings)


def _modes(mode: str) -> tuple[Mode, ...]:
    if not mode:
        return ()
    known("mode", mode, ("parallel", "sequential", "both"))
    return ("parallel", "sequential") if mode == "both" else (cast("Mode", mode),)


def _cases(family: str, data: str | None, n: int, seed: int) -> list[Case]:
    from ..evaluation.analysis.cases import from_tasks
    from ..tasks import FAMILIES

    if data is not None:
        return _from_data(data, n, seed)
    return from_tasks(FAMILIES if family == "all" else (known("family", family, (*FAMILIES, "all")),), n, seed)


def _from_data(source: str, n: int, seed: int) -> list[Case]:
    from random import Random

    from ..data import read
    from ..evaluation.analysis.cases import Case
    from ..structure import twin

    loaded = read(source)
    if loaded.faults:
        raise InputError(f"{len(loaded.faults)} rows of {source!r} cannot be read, the first: {loaded.faults[0]}")
    rows = {row.question: row for row in loaded.rows if row.question}
    if not rows:
        raise InputError(f"{source!r} holds no document with a question: give a source that has questions")
    drawn = Random(seed).sample(list(rows.values()), min(n, len(rows)))
    name = Path(source).name
    return [Case(name, row.question, row.document, row.sequential or twin(row.document, conclusions=True)) for row in drawn]


def _open_reader(model: ModelOptions, at: At, within: int) -> tuple[Reader, Marker]:
    from ..structure import DIALECTS, detect, read_dialect, resolve

    with quietly(model.model):
        from ..evaluation.analysis.sites import Marker
        from ..evaluation.analysis.states import open_reader

        reader = open_reader(model.model, dtype=model.dtype, device=model.device)
        noted = read_dialect(reader.model.config)
        tokenizer = reader.tokenizer
        tokens = resolve(tokenizer, noted) if noted is not None else detect(tokenizer, tuple(DIALECTS.values()))
        return reader, Marker(tokenizer, tokens, at, within)


def _probe(reader: Reader, cases: list[Case], marker: Marker, modes: tuple[Mode, ...], seed: int) -> ProbeReport:
    from ..evaluation.analysis.probing import run_probe

    with bars() as progress:
        by_step: dict[str, Any] = {}

        def step(what: str, done: int, of: int) -> None:
            if what not in by_step:
                by_step[what] = progress.add_task(what, total=of)
            progress.update(by_step[what], completed=done, total=of)

        return run_probe(reader, cases, marker, modes=modes, seed=seed, on_step=step)


def _ask(
    llm: Any, cases: list[Case], tests: list[PromptingTest], params: Any, seed: int
) -> list[tuple[PromptingTest, list[Answer]]]:
    from ..evaluation.analysis.prompting import run_prompting

    with bars() as progress:
        return [
            (test, run_prompting(llm, cases, test, params, seed=seed, on_finish=_mover(progress, test, len(cases))))
            for test in tests
        ]


def _mover(progress: Progress, test: PromptingTest, total: int) -> Callable[[Answer], None]:
    """A bar for one way of asking, and what moves it on."""
    bar = progress.add_task(f"asked {test.asking}, guard {'on' if test.guard else 'off'}", total=total)
    return lambda _: progress.advance(bar)


def _tallies(found: list[tuple[PromptingTest, list[Answer]]]) -> list[Tally]:
    from ..evaluation.analysis.prompting import tally

    tallies = []
    for test, answers in found:
        groups = list(dict.fromkeys(answer.group for answer in answers))
        tallies += [tally([one for one in answers if one.group == group], test, group) for group in groups]
        if len(groups) > 1:
            tallies.append(tally(answers, test, "all"))
    return tallies


def _stored(path: Path) -> list[dict[str, Any]]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--beside {str(path)!r} cannot be read ({error}): give what --json printed") from None
    if not isinstance(report, dict) or not {"model", "at", "texts"} <= report.keys():
        raise InputError(f"--beside {str(path)!r} is no report of this test: give what --json printed")
    return [report]


def _write(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written ({error.strerror}): give a file that can be") from None


def _print_probe(report: ProbeReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    where = {"sentence": "at the end of this sentence", "token": f"within {report.within} tokens", "question": "in the answer"}
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = Text(f"{report.model} · a fork, {where[report.at]}? · {report.cases} questions · seed {report.seed}", "bold")
    table.add_column("known is")
    for text in report.texts:
        name = "structured texts" if text.mode == "parallel" else "told in a line"
        table.add_column(f"{name},\n{text.examples} places, right", justify="right")
    depth = len(report.texts[0].layers)
    for name, label in (("majority", "nothing"), ("position", "the position"), ("last_tokens", "the last 4 tokens")):
        table.add_row(label, *(_percent(getattr(text, name)) for text in report.texts))
    for layer in range(depth):
        label = f"layer {layer}" + (" (embeddings)" if layer == 0 else "")
        table.add_row(label, *(_percent(text.layers[layer].accuracy) for text in report.texts))
    Console().print(table)


def _print_tallies(tallies: list[Tally], settings: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = (
        f"{settings['model']} · {settings['n']} questions · seed {settings['seed']} · temperature {settings['temperature']:g}"
    )
    table = Table(box=None, pad_edge=False, collapse_padding=True, title=Text(title, "bold"), title_justify="left")
    for heading in ("family", "asked", "guard"):
        table.add_column(heading)
    for heading in (
        "n",
        "structure\nthere",
        "formed",
        "formed\nif there",
        "formed\nif not",
        "broken",
        "plain",
        "paral-\nlelism",
    ):
        table.add_column(heading, justify="right")
    for one in tallies:
        shares = (one.possible, one.formed, one.formed_where_possible, one.formed_where_not, one.broken, one.plain)
        table.add_row(
            one.group,
            one.asking,
            "on" if one.guard else "off",
            str(one.n),
            *("-" if not value.n else f"{value.value:.0%}" for value in shares),
            f"{one.parallelism:.2f}",
        )
    Console().print(table)


def _percent(value: Any) -> str:
    return f"{100 * value.value:.1f} [{100 * value.low:.0f}, {100 * value.high:.0f}]"
