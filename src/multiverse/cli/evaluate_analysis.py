"""`multiverse eval probe` and `multiverse eval prompting`: does a model know about structure before it writes it?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from ..engine.params import SamplingParams
from ..evaluation.analysis.options import CaseOptions, SiteOptions
from ..options import Options, like, option
from ..prompting import Mode
from ..serving.config import ServerConfig
from .bars import bars
from .declared import Fields, Json, Plot, Save, expand_options
from .errors import InputError
from .evaluate import Modes
from .jsonio import dump, print_json
from .loading import ModelOptions, quietly

if TYPE_CHECKING:
    from rich.progress import Progress

    from ..evaluation.analysis.cases import Case
    from ..evaluation.analysis.probing import ProbeReport
    from ..evaluation.analysis.prompting import PromptingSample, PromptingTest, PromptMode, Tally
    from ..evaluation.analysis.sites import Marker
    from ..evaluation.analysis.states import Reader

TEXTS, OUTPUT = "Texts", "Output"
GUARDS: dict[str | None, tuple[bool, ...]] = {None: (), "on": (True,), "off": (False,), "both": (True, False)}

Model = Annotated[ModelOptions, Fields(only=("model", "layout", "device", "dtype", "quantize"))]


@dataclass(frozen=True)
class Prompting(Options):
    """How models are asked for the format."""

    mode: tuple[Literal["parallel", "sequential", "both", "explained"], ...] = like(
        ServerConfig, "mode", (), group=TEXTS, show_default="both, or explained for a model without tags"
    )
    guards: Literal["on", "off", "both"] | None = option(
        None,
        "Whether only legal tags can be sampled; off shows the raw model.",
        group=TEXTS,
        show_default="both, where the model has tags",
    )

    @property
    def modes(self) -> tuple[PromptMode, ...]:
        """Each mode once."""
        each = [one for name in self.mode for one in (get_args(Mode) if name == "both" else (name,))]
        return tuple(dict.fromkeys(each))


@expand_options
def probe(
    source: CaseOptions,
    sites: SiteOptions,
    model: Model,
    texts: Annotated[dict[str, Any], Fields(of=Modes, show_default={"mode": "both, where the model has tags"})],
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--beside",
            metavar="FILE",
            help="Draw a stored --json output beside it.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Predict from hidden states whether a fork is about to start.

    A two-layer perceptron per layer is trained at places where a block may stand, half of them in front of a fork, and judged
    on documents that it has not seen (five folds). Baselines know the position or the last tokens only: where they are right,
    the text gives the fork away, and the test says nothing about the model. In mode parallel, texts are structured; in mode
    sequential, the same is written without forks.

    [bold]Examples[/bold]
    multiverse eval probe --at question
    multiverse eval probe --model ./my-model --documents traces.jsonl --limit 500 --plot probe.svg
    multiverse eval probe --model ./baseline --json > baseline.json
    """
    from ..data.plot import check_format
    from ..evaluation.analysis.cases import load_cases
    from ..evaluation.analysis.plots import plot_probes

    cases = load_cases(source)
    others = [_stored(path) for path in beside or ()]
    if plot is not None:
        check_format(plot)
    reader, marker = _open_reader(model, sites)
    modes = Modes(**{"mode": "both" if marker.tokens is not None else "sequential", **texts}).modes
    report = _probe(reader, cases, marker, modes, source.seed)
    if plot is not None:
        _write(plot, lambda path: plot_probes([report.as_json(), *others], path))
    if as_json:
        print_json(report.as_json())
    else:
        _print_probe(report)


@expand_options
def prompting(
    source: CaseOptions,
    sampling: Annotated[SamplingParams, Fields(only=("temperature", "max_tokens"))],
    model: Model,
    asked: Prompting,
    save: Save = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Ask for the format, and count how often the model writes it.

    An answer is [bold]formed[/bold] (its blocks are whole), [bold]broken[/bold] (it has tags of a block, but
    no whole one) or [bold]plain[/bold] (it has none). Beside it stands how often the question
    can be answered with a fork, by its own solution. --mode may be repeated; explained describes the format.

    [bold]Examples[/bold]
    multiverse eval prompting --family worksheet --guards off
    multiverse eval prompting --model Qwen/Qwen2.5-0.5B-Instruct --mode explained --limit 50
    multiverse eval prompting --documents documents.jsonl --save answers.jsonl --json
    """
    from ..data.plot import check_format
    from ..evaluation.analysis.cases import load_cases
    from ..evaluation.analysis.plots import plot_prompting
    from ..evaluation.analysis.prompting import PromptingTest

    cases = load_cases(source)
    if plot is not None:
        check_format(plot)
    if save is not None:
        _write(save, lambda path: path.write_text(""))  # raises before the model has run, not after
    llm = model.load()
    tagged = llm.tokens is not None
    if True in GUARDS[asked.guards] and not tagged:
        raise InputError(f"--guards {asked.guards}: the guard needs the tags in the tokenizer, and {llm.model_path!r} has none")
    tests = [
        PromptingTest(one, on)
        for one in asked.modes or (("parallel", "sequential") if tagged else ("explained",))
        for on in GUARDS[asked.guards] or ((True, False) if tagged else (False,))
    ]
    found = _ask(llm, cases, tests, sampling, source.seed)
    if save is not None:
        lines = [f"{dump({'mode': test.mode, 'guard': test.guard, **asdict(one)})}\n" for test, own in found for one in own]
        _write(save, lambda path: path.write_text("".join(lines), encoding="utf-8"))
    tallies = _tallies(found)
    settings = {"model": llm.model_path, "n": len(cases), "seed": source.seed}
    settings |= {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    if plot is not None:
        title = f"{Path(llm.model_path).name}: what answers were"
        over_all = [one.as_json() for one in tallies if one.group == "all" or len({t.group for t in tallies}) == 1]
        _write(plot, lambda path: plot_prompting(over_all, path, title=title))
    if as_json:
        print_json({**settings, "tallies": [one.as_json() for one in tallies]})
    else:
        _print_tallies(tallies, settings)


def _open_reader(model: ModelOptions, sites: SiteOptions) -> tuple[Reader, Marker]:
    from ..structure import bind

    with quietly(model.model):
        from ..evaluation.analysis.sites import Marker
        from ..evaluation.analysis.states import open_reader

        reader = open_reader(model.model, dtype=model.dtype, device=model.device, quantize=model.quantize)
        tokens = bind(reader.tokenizer, reader.model.config, layout=model.layout)
        return reader, Marker(reader.tokenizer, tokens, sites.at, sites.within)


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
    llm: Any, cases: list[Case], tests: list[PromptingTest], params: SamplingParams, seed: int
) -> list[tuple[PromptingTest, list[PromptingSample]]]:
    from ..evaluation.analysis.prompting import run_prompting

    with bars() as progress:
        return [
            (test, run_prompting(llm, cases, test, params, seed=seed, on_finish=_bar(progress, test, len(cases))))
            for test in tests
        ]


def _bar(progress: Progress, test: PromptingTest, total: int) -> Callable[[PromptingSample], None]:
    """A bar for one test; returns the callback that advances it."""
    bar = progress.add_task(f"asked {test.mode}, guard {'on' if test.guard else 'off'}", total=total)
    return lambda _: progress.advance(bar)


def _tallies(found: list[tuple[PromptingTest, list[PromptingSample]]]) -> list[Tally]:
    from ..evaluation.analysis.prompting import tally

    tallies = []
    for test, answers in found:
        groups = list(dict.fromkeys(answer.group for answer in answers))
        tallies += [tally([one for one in answers if one.group == group], test, group) for group in groups]
        if len(groups) > 1:
            tallies.append(tally(answers, test, "all"))
    return tallies


def _stored(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--beside {str(path)!r} cannot be read ({error}): give what --json printed") from None
    if not isinstance(report, dict) or not {"model", "at", "texts"} <= report.keys():
        raise InputError(f"--beside {str(path)!r} is not a report of this test: give what --json printed")
    return report


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
    table.add_column("known")
    for text in report.texts:
        name = "structured texts" if text.mode == "parallel" else "sequential texts"
        table.add_column(f"{name},\n{text.examples} places, right", justify="right")
    depth = len(report.texts[0].layers)
    for name, label in (("majority", "nothing"), ("position", "the position"), ("last_tokens", "the last 4 tokens")):
        table.add_row(label, *(_percent(getattr(text, name)) for text in report.texts))
    for layer in range(depth):
        label = f"layer {layer}" + (" (embeddings)" if layer == 0 else "")
        table.add_row(label, *(_percent(text.layers[layer]) for text in report.texts))
    Console().print(table)


def _print_tallies(tallies: list[Tally], settings: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = (
        f"{settings['model']} · {settings['n']} questions · seed {settings['seed']} · temperature {settings['temperature']:g}"
    )
    table = Table(box=None, pad_edge=False, collapse_padding=True, title=Text(title, "bold"), title_justify="left")
    for heading in ("family", "mode", "guard"):
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
            one.mode,
            "on" if one.guard else "off",
            str(one.n),
            *("-" if not value.n else f"{value.value:.0%}" for value in shares),
            f"{one.parallelism:.2f}",
        )
    Console().print(table)


def _percent(value: Any) -> str:
    return f"{100 * value.value:.1f} [{100 * value.low:.0f}, {100 * value.high:.0f}]"
