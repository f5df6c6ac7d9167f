"""Evaluate a model on dialogues: ask every turn, have every answer judged, keep all of it in the folder of the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data import Fault
from ...errors import DiskError, first_line, require
from ..machine import describe_machine
from ..run import LOGS, EvaluationError, first_reason, installed_version, isolated
from .config import JudgeConfig, Setting
from .dialogue import Dialogue
from .judging import Judge, ModelJudge, RulesJudge, limits
from .store import DialogueRun, SetAside, Store, TurnKey

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog
    from inspect_ai.model import Model, ModelAPI

    from .inspecting import Work


@dataclass(frozen=True)
class Progress:
    """Callbacks of an evaluation.

    Attributes:
        image: called after the small copy of each image was made.
        begin: called once, with the numbers of turns to be answered, of those that are, and of those to be judged.
        answered: called after each turn that was answered.
        judged: called after each turn that the first judge has judged, with the items met and all items; also for known ones.
    """

    image: Callable[[], None] = lambda: None
    begin: Callable[[int, int, int], None] = lambda *_: None
    answered: Callable[[], None] = lambda: None
    judged: Callable[[int, int], None] = lambda *_: None


@dataclass(frozen=True)
class Judging:
    """Who judges, and what of the input could not be used.

    Attributes:
        source: the file or data set, for the run's settings.
        faults: rows of it that were left out.
        repeats: how often each judge judges.
    """

    judges: Sequence[Judge]
    repeats: int = 1
    source: str = ""
    faults: Sequence[Fault] = ()


def evaluate_dialogues(
    open_api: Callable[[], ModelAPI],
    model: str,
    dialogues: Sequence[Dialogue],
    setting: Setting,
    folder: Path,
    *,
    judging: Judging,
    concurrency: int = 32,
    progress: Progress | None = None,
) -> DialogueRun:
    """Ask every turn that has no answer in the folder yet, and have every answer judged that is not.

    A turn or judgement that fails for good is set aside with its reason; it is tried again when the run is started again. (A
    judge whose replies were all invalid is not: they are kept.)

    Args:
        open_api: makes the provider: `in_process`, `at_server`, or any of inspect's. Called if something is left to ask; it is
            closed in the end.
        model: name of the model in the run.
        folder: of the run; made, or resumed.
        judging: who judges, and what is known of the set.
        concurrency: most dialogues in flight, whose turns are asked in order.

    Raises:
        DataError: the folder holds another run.
        DiskError: the disk is full; all that was kept is there.
        EvaluationError: nothing could be asked, the endpoint refuses everything, or the judge's budget is spent.
        KeyboardInterrupt: on Ctrl-C; what was answered and judged is kept.
        ExtraError: inspect is not installed.
    """
    require("inspect_ai", "eval")
    from .inspecting import Work

    progress = progress or Progress()
    store = Store(folder, _describe(model, dialogues, setting, judging), progress.image)
    for fault in judging.faults:
        store.put_aside(SetAside("row", f"{fault.source}:{fault.line}", 0, 0, "", fault.problem))
    work = Work(setting, store, judging.judges, judging.repeats, progress.answered, progress.judged)
    keys = [
        TurnKey(one.id, number, sample)
        for one in dialogues
        for sample in range(setting.repeats)
        for number in range(len(one.turns))
    ]
    judged = sum(bool(turn.checklist) for one in dialogues for turn in one.turns) * setting.repeats if judging.judges else 0
    began = time.perf_counter()
    logs: list[EvalLog] = []
    try:
        missing = [key for key in keys if key not in store.answers]
        api = open_api() if missing else None
        progress.begin(len(keys), len(keys) - len(missing), judged)
        if missing or judging.judges:
            logs = _run_inspect(api, dialogues, work, concurrency)
    finally:
        run = store.close(time.perf_counter() - began)
    _check_ended(run, keys, work, logs)
    return run


def model_judges(
    names: Sequence[str], base_url: str, api_key: str | None, config: JudgeConfig, concurrency: int
) -> list[Judge]:
    """Models of an endpoint as judges.

    Args:
        base_url: up to ``/v1``.
    """
    require("inspect_ai", "eval")
    from inspect_ai.model import GenerateConfig, Model

    from ..server import at_server

    shared = limits(config)
    address = base_url.partition("://")[2].removesuffix("/").removesuffix("/v1").rpartition("@")[2]
    settings = GenerateConfig(max_connections=concurrency, max_retries=8)
    return [
        ModelJudge(f"{name} @ {address}", Model(at_server(name, base_url, api_key), settings), config, shared) for name in names
    ]


def rule_judges() -> list[Judge]:
    """The judge that is no model."""
    return [RulesJudge()]


def _run_inspect(api: ModelAPI | None, dialogues: Sequence[Dialogue], work: Work, concurrency: int) -> list[EvalLog]:
    from inspect_ai import eval as inspect_eval

    from .inspecting import build_task

    setting = work.setting
    try:
        with isolated(work.store.folder / LOGS) as logs:
            ended = inspect_eval(
                [build_task(dialogues, work)],
                model=_model(api, setting, concurrency),
                max_samples=concurrency,
                log_dir=str(logs),
                display="none",
                log_level="error",
                log_realtime=False,
                log_images=False,
                ctl_server=False,
                fail_on_error=False,
                score_display=False,
            )
    finally:
        if api is not None:
            asyncio.run(api.aclose())
    if not ended or any(log.status == "cancelled" for log in ended):
        raise KeyboardInterrupt  # inspect catches it and returns
    return ended


def _model(api: ModelAPI | None, setting: Setting, concurrency: int) -> Model:
    from inspect_ai.model import GenerateConfig, Model, get_model

    if api is None:
        return get_model("none/none")  # all turns are answered
    config = GenerateConfig(
        temperature=setting.temperature,
        top_p=setting.top_p if setting.temperature > 0 else None,
        max_tokens=setting.max_tokens,
        max_connections=concurrency,
        max_retries=8,
    )
    return Model(api, config)


def _check_ended(run: DialogueRun, keys: Sequence[TurnKey], work: Work, logs: list[EvalLog]) -> None:
    """Raise what has ended the run before its end."""
    full = next((error for error in (*work.stopped, *work.judging_stopped) if isinstance(error, DiskError)), None)
    if full is not None:
        raise full
    answered = {answer.key for answer in run.answers}
    missing = sum(key not in answered for key in keys)
    if work.stopped or (missing == len(keys)):
        why = first_line(work.stopped[0]) if work.stopped else next((one.reason for one in run.set_aside), "")
        why = f" ({why})" if why else first_reason(logs)
        raise EvaluationError(
            f"{missing} turns could not be asked{why}; the answers to the others are kept: run the command "
            "again to ask the rest"
        )
    if work.judging_stopped:
        raise EvaluationError(first_line(work.judging_stopped[0]))
    failed = [log for log in logs if log.status == "error"]
    if failed:
        raise EvaluationError(f"the evaluation broke off{first_reason(failed)}; what was answered and judged is kept")


def _describe(model: str, dialogues: Sequence[Dialogue], setting: Setting, judging: Judging) -> DialogueRun:
    """The run before anything is asked."""
    settings: dict[str, Any] = {
        "set": setting.name,
        "source": judging.source,
        **{name: value for name, value in setting.recorded().items() if name != "name"},
        "dialogues": len(dialogues),
        "turns": sum(len(one.turns) for one in dialogues),
        "versions": {library: installed_version(library) for library in ("multiverse-llm", "inspect-ai")},
    }
    name = Path(model).name if "://" not in model else model
    run = DialogueRun(f"{name} {setting.history}", model, settings, describe_machine(), date.today().isoformat())
    judges = judging.judges
    return replace(
        run,
        dialogues=tuple(dialogues),
        judge=judges[0].name if judges else "",
        prices={judge.name: list(judge.prices) for judge in judges if any(judge.prices)},
    )
