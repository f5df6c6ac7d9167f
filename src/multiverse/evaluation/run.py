"""Asks a model the questions of any number of benchmarks, and keeps every answer.

One folder per prompt is written (see `sample.py`), with inspect's own logs in it, for ``inspect view``. A run that was killed
goes on when it is started again with the same settings: what was finished is read from the folder and not asked again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError, MultiverseError, require
from ..prompting import INSTRUCTIONS, Mode
from .benchmarks import BENCHMARKS, Benchmark, Question, questions
from .journal import Journal
from .machine import describe_machine
from .sample import Run, Sample

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog
    from inspect_ai.model import GenerateConfig, ModelAPI

Prompt = Literal["multiverse", "zero"]
MODES: dict[Prompt, Mode] = {"multiverse": "parallel", "zero": "sequential"}
"""The two ways of asking the same weights: for parallel thinking, and as a sequential model is asked."""

LOGS = "inspect"
"""Folder of inspect's logs, within a run's."""


@dataclass(frozen=True)
class Settings:
    """What an evaluation depends on. The defaults are the paper's.

    Attributes:
        benchmarks: names of what is asked.
        temperature, top_p, max_tokens: of sampling.
        epochs: how often each question is asked; `None` takes each benchmark's own number (8 for AIME, else 1).
        limit: only the first questions of each benchmark.
        seed: what is drawn, and which questions where they are made.
        data: local files of benchmarks, instead of the hub.
        bounds: further bounds of each answer, as `SamplingParams` names them: `max_critical_path_tokens`, `thinking_budget`.
    """

    benchmarks: tuple[str, ...]
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32_768
    epochs: int | None = None
    limit: int | None = None
    seed: int = 7
    data: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Who is told how an evaluation gets on.

    Attributes:
        begin: a benchmark, how it is asked, how many samples it has, and those that are there from earlier.
        finish: a sample that is new.
    """

    begin: Callable[[str, Mode, int, list[Sample]], None] = lambda *_: None
    finish: Callable[[Sample], None] = lambda _: None


Sets = dict[str, list[Question]]


def load(settings: Settings) -> Sets:
    """The questions of an evaluation, by benchmark.

    Raises:
        DataError: a benchmark is not known, or its rows cannot be had.
    """
    for name in (*settings.benchmarks, *settings.data):
        if name not in BENCHMARKS:
            raise DataError(f"there is no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    unused = [name for name in settings.data if name not in settings.benchmarks]
    if unused:
        raise DataError(f"there are data for {unused[0]}, which is not asked: ask it, or leave its data out")
    return {
        name: questions(BENCHMARKS[name], path=settings.data.get(name), limit=settings.limit, seed=settings.seed)
        for name in settings.benchmarks
    }


def evaluate(
    api: ModelAPI,
    model: str,
    settings: Settings,
    out: Path,
    *,
    prompts: tuple[Prompt, ...] = ("multiverse",),
    concurrency: int = 32,
    progress: Progress | None = None,
) -> list[Run]:
    """Ask everything that is not in the folder yet.

    Args:
        api: who answers: `EngineAPI`, `ServerAPI`, or any provider of inspect's.
        model: what to call it in the run.
        out: the folder; a run is written to its sub-folder of each prompt's name.
        concurrency: most questions in flight.

    Returns:
        The finished runs, in the order of the prompts.

    Raises:
        DataError: questions cannot be had, or the folder holds other runs.
        EvaluationError: some questions could not be asked; what was answered is kept.
        KeyboardInterrupt: somebody pressed Ctrl-C; likewise.
        ExtraError: inspect is not installed.
    """
    require_inspect()
    sets = load(settings)
    return [
        _evaluate(api, model, settings, out / prompt, prompt, sets, concurrency, progress or Progress()) for prompt in prompts
    ]


class EvaluationError(MultiverseError, RuntimeError):
    """Some questions of an evaluation could not be asked or graded."""


def _evaluate(
    api: ModelAPI,
    model: str,
    settings: Settings,
    folder: Path,
    prompt: Prompt,
    sets: Sets,
    concurrency: int,
    progress: Progress,
) -> Run:
    mode = MODES[prompt]
    journal = Journal(folder, _describe(model, settings, prompt))
    _check_questions(journal, sets)
    began = time.perf_counter()
    try:
        _ask(api, settings, sets, mode, journal, concurrency, progress)
    finally:
        run = journal.close(time.perf_counter() - began)
    return run


def _ask(
    api: ModelAPI,
    settings: Settings,
    sets: Sets,
    mode: Mode,
    journal: Journal,
    concurrency: int,
    progress: Progress,
) -> None:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import Model

    from .inspecting import Asking, build

    def keep(sample: Sample) -> None:
        journal.add(sample)
        progress.finish(sample)

    tasks, wanted = [], set()
    for name, asked in sets.items():
        benchmark = BENCHMARKS[name]
        epochs = _epochs(settings, benchmark)
        keys = {(name, question.id, epoch) for question in asked for epoch in range(epochs)}
        there = [journal.finished[one] for one in keys if one in journal.finished]
        progress.begin(name, mode, len(keys), there)
        wanted |= keys
        if len(there) < len(keys):
            known = _known(journal, name)
            tasks.append(build(benchmark, asked, Asking(mode, epochs, settings.seed, known, keep)))
    if not tasks:
        return
    with _kept_at_home(journal.folder / LOGS) as logs:
        ended = inspect_eval(
            tasks,
            model=Model(api, _config(settings, concurrency)),
            max_tasks=len(tasks),
            max_samples=concurrency,
            log_dir=str(logs),
            display="none",
            log_level="error",
            log_realtime=False,
            ctl_server=False,
            fail_on_error=False,
            score_display=False,
        )
    if not ended or any(log.status == "cancelled" for log in ended):
        raise KeyboardInterrupt  # which inspect has taken for itself
    missing = len(wanted - journal.finished.keys())
    if missing:
        raise EvaluationError(
            f"{missing} of {len(wanted)} answers could not be had{_reason(ended)}; the others are kept: start it again to go on"
        )


def _known(journal: Journal, name: str) -> Callable[[str, int], Sample | None]:
    return lambda question, epoch: journal.finished.get((name, question, epoch))


def _epochs(settings: Settings, benchmark: Benchmark) -> int:
    return settings.epochs if settings.epochs is not None else benchmark.epochs


def _config(settings: Settings, concurrency: int) -> GenerateConfig:
    from inspect_ai.model import GenerateConfig

    return GenerateConfig(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_tokens,
        max_connections=concurrency,
        max_retries=8,
        extra_body={"multiverse": dict(settings.bounds)} if settings.bounds else None,
    )


def _check_questions(journal: Journal, sets: Sets) -> None:
    """Answers that are there must be answers to these questions."""
    for name, asked in sets.items():
        texts = {question.id: question.text for question in asked}
        for (task, question, _), sample in journal.finished.items():
            if task == name and texts.get(question) != sample.question:
                raise DataError(
                    f"{journal.folder} holds answers to other questions of {name} (such as {question!r}): choose another folder"
                )


def _describe(model: str, settings: Settings, prompt: Prompt) -> Run:
    """What the run is, before it has begun."""
    told: dict[str, Any] = asdict(settings) | {"benchmarks": list(settings.benchmarks), "data": dict(settings.data)}
    told["epochs"] = {name: _epochs(settings, BENCHMARKS[name]) for name in settings.benchmarks}
    told |= {"prompt": prompt, "instruction": INSTRUCTIONS[MODES[prompt]]}
    told["versions"] = {library: _version(library) for library in ("multiverse-llm", "inspect-ai", "math-verify")}
    name = Path(model).name if "://" not in model else model
    return Run(f"{name} {prompt}", model, told, describe_machine(), date.today().isoformat())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _reason(logs: list[EvalLog]) -> str:
    """The first thing that went wrong."""
    for log in logs:
        errors = [sample.error for sample in log.samples or () if sample.error is not None]
        error = errors[0] if errors else log.error
        if error is not None:
            return f" ({error.message.strip().partition(chr(10))[0]})"
    return ""


@contextmanager
def _kept_at_home(logs: Path) -> Iterator[Path]:
    """Keep what inspect writes beside its logs out of the user's home, and give the process its own logging back."""
    with tempfile.TemporaryDirectory(prefix="multiverse-inspect-") as home:
        before = {name: os.environ.get(name) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "INSPECT_TRACE_FILE")}
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]  # inspect sets both for the whole process
        os.environ |= {"XDG_DATA_HOME": home, "XDG_CACHE_HOME": home, "INSPECT_TRACE_FILE": str(Path(home) / "trace.log")}
        try:
            yield logs
        finally:
            root.setLevel(level)
            root.handlers[:] = handlers
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def require_inspect() -> None:
    """Raise `ExtraError` unless inspect is installed."""
    require("inspect_ai", "eval")


def close(api: ModelAPI) -> None:
    """Let go of what a provider holds: connections, the engine's thread."""
    asyncio.run(api.aclose())
