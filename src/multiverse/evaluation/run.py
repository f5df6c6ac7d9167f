"""Evaluate a model on benchmarks: ask every question, grade the answers, keep each in the folder of the run.

A run that was killed is resumed when it is started again with the same configuration: samples that are in its folder (see
`sample.py`) are not asked again. Beside them are inspect's own logs, for ``inspect view``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, DiskError, MultiverseError, require
from ..prompting import Mode
from .benchmarks import BENCHMARKS, Question, questions
from .config import FOLDERS, SHAPE, EvaluationConfig
from .journal import Journal, Key
from .machine import describe_machine
from .sample import Run, Sample

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog
    from inspect_ai.model import GenerateConfig, ModelAPI

LOGS = "inspect"
"""Folder of inspect's logs, within a run's."""


@dataclass(frozen=True)
class Progress:
    """Callbacks of an evaluation.

    Attributes:
        begin: called for each benchmark with its name, the mode, the number of samples, and the samples of earlier starts.
        finish: called with each new sample.
    """

    begin: Callable[[str, Mode, int, list[Sample]], None] = lambda *_: None
    finish: Callable[[Sample], None] = lambda _: None


class EvaluationError(MultiverseError, RuntimeError):
    """Some questions of an evaluation could not be asked or graded."""


QuestionSets = dict[str, list[Question]]


def load(config: EvaluationConfig) -> QuestionSets:
    """The questions of an evaluation, by benchmark.

    Raises:
        DataError: a benchmark is unknown, or its rows cannot be read.
        ExtraError: a library that reads them is not installed.
    """
    for name in (*config.benchmarks, *config.data):
        if name not in BENCHMARKS:
            raise DataError(f"there is no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    unused = [name for name in config.data if name not in config.benchmarks]
    if unused:
        raise DataError(f"data was given for {unused[0]}, which is not evaluated: name it, or leave its data out")
    return {name: questions(BENCHMARKS[name], config) for name in config.benchmarks}


def evaluate(
    open_api: Callable[[], ModelAPI],
    model: str,
    config: EvaluationConfig,
    folder: Path,
    mode: Mode = "parallel",
    *,
    sets: QuestionSets | None = None,
    concurrency: int = 32,
    progress: Progress | None = None,
) -> Run:
    """Ask every question that has no sample in the folder yet.

    Args:
        open_api: makes the provider: `in_process`, `at_server`, or any of inspect's. Called if something is left to ask;
            the provider is closed in the end.
        model: name of the model in the run.
        folder: of the run; made, or resumed.
        sets: the questions, if they are loaded already.
        concurrency: most questions in flight.

    Returns:
        The finished run.

    Raises:
        DataError: questions cannot be read, or the folder holds another run.
        DiskError: the disk is full; the answers so far are kept.
        EvaluationError: some questions could not be asked; the answers to the others are kept.
        KeyboardInterrupt: on Ctrl-C; finished samples are kept.
        ExtraError: inspect is not installed.
    """
    require("inspect_ai", "eval")
    sets = load(config) if sets is None else sets
    journal = Journal(folder, _describe(model, config, mode))
    _check_questions(journal, sets)
    began = time.perf_counter()
    logs: list[EvalLog] = []
    try:
        logs = _ask_missing(open_api, config, mode, sets, journal, concurrency, progress or Progress())
    finally:
        run = journal.close(time.perf_counter() - began)
    missing = [key for name in sets for key in _keys(config, name, sets[name]) if key not in journal.finished]
    if missing:
        raise EvaluationError(
            f"{len(missing)} questions could not be asked{first_reason(logs)}; the answers to the others are kept: run the "
            "command again to ask the rest"
        )
    return run


def _ask_missing(
    open_api: Callable[[], ModelAPI],
    config: EvaluationConfig,
    mode: Mode,
    sets: QuestionSets,
    journal: Journal,
    concurrency: int,
    progress: Progress,
) -> list[EvalLog]:
    """Run inspect on the benchmarks that have questions without a sample."""
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import Model

    from .inspecting import TaskConfig, build_task

    full: list[DiskError] = []

    def keep(sample: Sample) -> None:
        try:
            journal.add(sample)
        except DiskError as error:
            full.append(error)
            raise
        progress.finish(sample)

    def check() -> None:
        if full:
            raise full[0]  # inspect goes on after errors, but no more answers can be kept

    keys = {name: _keys(config, name, asked) for name, asked in sets.items()}
    tasks = [
        build_task(
            BENCHMARKS[name],
            asked,
            TaskConfig(
                mode,
                _epochs(config, name),
                config.seed,
                boxed=config.boxed,
                budgeted=config.budget is not None,
                finished=journal.finished,
                on_finish=keep,
                before_asking=check,
            ),
        )
        for name, asked in sets.items()
        if not keys[name] <= journal.finished.keys()
    ]
    api = open_api() if tasks else None
    for name in sets:
        progress.begin(name, mode, len(keys[name]), [journal.finished[key] for key in keys[name] & journal.finished.keys()])
    if api is None:
        return []
    try:
        with isolated(journal.folder / LOGS) as logs:
            ended = inspect_eval(
                tasks,
                model=Model(api, _generate_config(config, concurrency)),
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
    finally:
        asyncio.run(api.aclose())
    check()
    if not ended or any(log.status == "cancelled" for log in ended):
        raise KeyboardInterrupt  # inspect catches it and returns
    return ended


def _epochs(config: EvaluationConfig, name: str) -> int:
    return config.repeats if config.repeats is not None else BENCHMARKS[name].epochs


def _keys(config: EvaluationConfig, name: str, asked: list[Question]) -> set[Key]:
    """Keys of all samples of a benchmark."""
    return {(name, question.id, epoch) for question in asked for epoch in range(_epochs(config, name))}


def _generate_config(config: EvaluationConfig, concurrency: int) -> GenerateConfig:
    from inspect_ai.model import GenerateConfig

    return GenerateConfig(
        temperature=config.sampling.temperature,
        top_p=config.sampling.top_p,
        max_tokens=config.sampling.max_tokens,
        max_connections=concurrency,
        max_retries=8,
        extra_body={"multiverse": config.limits} if config.limits else None,
    )


def _check_questions(journal: Journal, sets: QuestionSets) -> None:
    """Raise `DataError` if the folder holds answers to other questions under the same ids."""
    for name, asked in sets.items():
        texts = {question.id: question.text for question in asked}
        for (task, question, _), sample in journal.finished.items():
            if task == name and texts.get(question) != sample.question:
                raise DataError(
                    f"{journal.folder} holds answers to other questions of {name} (such as {question!r}): choose another folder"
                )


def _describe(model: str, config: EvaluationConfig, mode: Mode) -> Run:
    """The run without its samples. Two runs with the same model and settings are the same run."""
    settings: dict[str, Any] = {
        "benchmarks": list(config.benchmarks),
        "temperature": config.sampling.temperature,
        "top_p": config.sampling.top_p,
        "max_tokens": config.sampling.max_tokens,
        "epochs": {name: _epochs(config, name) for name in config.benchmarks},
        "limit": config.limit,
        "seed": config.seed,
        "data": dict(config.data),
        "bounds": config.limits,
        "prompt": FOLDERS[mode],
        "instruction": config.prompting.instructions[mode],
        "versions": {library: installed_version(library) for library in ("multiverse-llm", "inspect-ai", "math-verify")},
    }
    settings |= {name: value for name in (*SHAPE, "budget", "preset") if (value := getattr(config, name)) is not None}
    name = Path(model).name if "://" not in model else model
    return Run(f"{name} {FOLDERS[mode]}", model, settings, describe_machine(), date.today().isoformat())


def installed_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def first_reason(logs: list[EvalLog]) -> str:
    """The first error in inspect's logs, in brackets."""
    for log in logs:
        errors = [sample.error for sample in log.samples or () if sample.error is not None]
        error = errors[0] if errors else log.error
        if error is not None:
            return f" ({error.message.strip().partition(chr(10))[0]})"
    return ""


@contextmanager
def isolated(logs: Path) -> Iterator[Path]:
    """Keep inspect's traces and caches out of the user's home, and restore the process's logging afterwards."""
    with tempfile.TemporaryDirectory(prefix="multiverse-inspect-") as home:
        before = {name: os.environ.get(name) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "INSPECT_TRACE_FILE")}
        root = logging.getLogger()
        level, handlers = root.level, root.handlers[:]  # inspect sets both
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
