"""`multiverse eval NAME...`: evaluate a model or a server on benchmarks; the answers are kept in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import typer

from ..common import CommonOptions
from ..engine.params import SamplingParams
from ..evaluation.config import FOLDERS, MAX_TOKENS, QUESTIONS, EvaluationConfig
from ..families import Family
from ..options import Options, like, option
from ..prompting import DEFAULT, Mode, Prompting
from ..serving.config import ServerConfig
from .bars import bars
from .complete import among, benchmark_names
from .declared import Fields, Json, Out, expand_options
from .errors import InputError, known
from .introduce import warn_tagless
from .jsonio import print_json
from .loading import BY_PRESET, ONE_PROCESS, ModelOptions

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI

    from ..evaluation.run import Progress
    from ..evaluation.sample import Sample
    from ..llm import LLM

NAMES = (
    "aime24, aime25, math500, gpqa, ifeval, livecodebench; "
    "or a family of our own tasks: worksheet, cases, countdown, nested, chain, lookup, listing, sorting."
)

LocalModel = Annotated[
    ModelOptions,
    Fields(
        only=(
            "kv_memory",
            *ONE_PROCESS,
        )
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=FILE",
        help="Read a benchmark from JSON lines or Parquet in its own columns.",
        rich_help_panel=QUESTIONS,
        show_default="the hub",
    ),
]


@dataclass(frozen=True)
class Source(Options):
    """A server to ask instead of a model in this process, and how many questions at once."""

    server: str | None = option(
        None,
        "Ask a server that speaks OpenAI's chat completions; --model is then its name there.",
        metavar="URL",
        group="Model",
        show_default="in this process",
    )
    api_key: str | None = like(CommonOptions, "api_key")
    concurrency: int = like(CommonOptions, "concurrency")


@dataclass(frozen=True)
class Modes(Options):
    """The modes in which questions are asked."""

    mode: Literal["parallel", "sequential", "both"] = like(ServerConfig, "mode", group=QUESTIONS)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Each mode, in the order in which they run."""
        return get_args(Mode) if self.mode == "both" else (self.mode,)


@expand_options
def run(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help=NAMES, show_default=False, autocompletion=among(benchmark_names))
    ],
    config: EvaluationConfig,
    sampling: Annotated[
        dict[str, Any],
        Fields(
            of=SamplingParams,
            only=("temperature", "top_p", "max_tokens", "max_critical_path_tokens", "thinking_budget"),
            show_default={**BY_PRESET, "max_tokens": f"{MAX_TOKENS}, or the preset's"},
        ),
    ],
    model: LocalModel,
    source: Source,
    asked: Modes,
    out: Out = Path("runs/eval"),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Ask a model the questions of benchmarks, and grade its answers.

    The defaults are the Multiverse paper's; --mode both asks in one mode after the other. Every answer is kept as soon as it
    is graded, in DIR/multiverse (mode parallel) and DIR/zero (sequential): the same command, run again, resumes where it was
    stopped. [bold]run[/bold] may be left out.

    [bold]Examples[/bold]
    multiverse eval worksheet countdown --limit 50 --temperature 0 --max-tokens 2048 --mode both
    multiverse eval aime24 aime25 math500 gpqa --model ./multiverse-32b --out runs/32b
    multiverse eval math500 --server http://127.0.0.1:8000 --data math500=math500.jsonl
    """
    from ..evaluation.report import report
    from ..evaluation.run import evaluate, load

    config = replace(config, benchmarks=benchmarks(names), sampling=_sampling(None, sampling), data=parse_data(data))
    modes = asked.modes
    sets = load(config)  # errors in the questions are found before a model is loaded
    found = provider(source, model, parallel="parallel" in modes)
    config = by_preset(config, found, sampling)
    with _progress() as progress:
        runs = [
            evaluate(
                found.open_api,
                found.name,
                config,
                out / FOLDERS[one],
                one,
                sets=sets,
                concurrency=source.concurrency,
                progress=progress,
            )
            for one in modes
        ]
    summed = report(runs)
    folders = [out / FOLDERS[one] for one in modes]
    if as_json:
        listed = [
            {"name": own.name, "model": own.model, "folder": str(folder)} for own, folder in zip(runs, folders, strict=True)
        ]
        print_json({"runs": listed, "results": [group.summary() for group in summed.groups]})
    else:
        from .evaluate_report import print_results

        print_results(summed)
        typer.echo(f"samples: {', '.join(str(folder / 'samples.jsonl') for folder in folders)}")


def tasks() -> None:
    """Replaced by `eval NAME...`."""
    raise InputError(
        "`eval tasks` is now `eval NAME...`: multiverse eval worksheet --limit 200 --temperature 0 --max-tokens 2048"
    )


def benchmarks(names: list[str]) -> tuple[str, ...]:
    """Names of benchmarks, each once.

    Raises:
        InputError: there is no such benchmark.
    """
    from ..evaluation.benchmarks import BENCHMARKS

    return tuple(dict.fromkeys(known("benchmark", name, BENCHMARKS) for name in names))


def parse_data(pairs: list[str] | None) -> dict[str, str]:
    """Files by benchmark, from ``NAME=FILE``.

    Raises:
        InputError: a pair is not valid, or there is no such file.
    """
    found = {}
    for pair in pairs or ():
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise InputError(f"--data {pair!r} is not valid: write it as math500=FILE")
        if not Path(path).expanduser().is_file():
            raise InputError(f"--data {name}: there is no file {path!r}")
        found[name] = path
    return found


class Asked(NamedTuple):
    """A model that is to be evaluated.

    Attributes:
        name: of the model, in the run.
        open_api: makes its provider.
        family: whose preset it has; `None` if it is of none.
        prompting: its instructions.
    """

    name: str
    open_api: Callable[[], ModelAPI]
    family: Family | None
    prompting: Prompting


def _sampling(family: Family | None, given: dict[str, Any]) -> SamplingParams:
    """How answers are sampled: what was given, then the preset's, then the paper's."""
    return SamplingParams(**{"max_tokens": MAX_TOKENS, **(family.sampling if family is not None else {}), **given})


def by_preset(config: EvaluationConfig, asked: Asked, given: dict[str, Any]) -> EvaluationConfig:
    """The configuration for a model: sampled and asked as those of its family are, where nothing else was given."""
    if asked.prompting == DEFAULT:
        return replace(config, sampling=_sampling(asked.family, given))
    name = asked.family.name if asked.family is not None else None
    return replace(config, sampling=_sampling(asked.family, given), preset=name, prompting=asked.prompting)


def provider(source: Source, model: ModelOptions, *, parallel: bool = False) -> Asked:
    """The model to be evaluated; it is loaded once, when its provider is first made.

    Args:
        parallel: whether questions are asked in parallel mode: then a model without tags is said to have none.

    Raises:
        ExtraError: inspect is not installed.
        ServerError: the server does not answer, or has no such model.
    """
    from ..errors import require

    require("inspect_ai", "eval")
    if source.server is not None:
        from .remote import Remote

        model.check_remote()
        if model.upstream is not None or model.tokenizer is not None:
            raise InputError("--server is asked for chats, --upstream runs the model for us: give one of them")
        found = Remote(source.server, model.model, source.api_key)

        def open_server() -> ModelAPI:
            from ..evaluation.server import at_server

            return at_server(found.name, found.base, source.api_key)

        return Asked(f"{found.base} {found.name}", open_server, found.family, found.prompting)

    name, there = model.name, None
    if model.upstream is not None:
        from ..stock.server import ServerOptions

        there = model.connect(source.api_key, source.concurrency)
        name = f"{ServerOptions(model.upstream).address} {there.model_path}"

    @cache
    def llm() -> LLM:
        loaded = there if there is not None else model.load()
        if parallel:
            warn_tagless(loaded, name)
        return loaded

    def open_engine() -> ModelAPI:
        from ..evaluation.providers import in_process

        return in_process(name, llm())

    family, prompting = (there.family, there.prompting) if there is not None else model.asked()
    return Asked(name, open_engine, family, prompting)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each benchmark and mode, on a terminal."""
    from ..evaluation.run import Progress

    shown = bars("{task.fields[right]} right, {task.fields[forked]} forked")
    by_key: dict[tuple[str, str], Any] = {}

    def begin(name: str, mode: Mode, total: int, done: list[Sample]) -> None:
        right, forked = sum(sample.right for sample in done), sum(sample.forked for sample in done)
        by_key[name, mode] = shown.add_task(f"{name} {mode}", total=total, completed=len(done), right=right, forked=forked)
        shown.start()  # after the model is loaded, which shows a spinner

    def finish(sample: Sample) -> None:
        bar = by_key[sample.task, sample.mode]
        fields = shown.tasks[bar].fields
        shown.update(bar, advance=1, right=fields["right"] + sample.right, forked=fields["forked"] + sample.forked)

    try:
        yield Progress(begin, finish)
    finally:
        shown.stop()
