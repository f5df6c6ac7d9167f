"""`multiverse eval dialogues`: a model on dialogues of several turns, judged by checklists."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..evaluation.dialogues.config import DialogueConfig, JudgeConfig, Setting
from .bars import bars
from .declared import Json, OnError, Out, expand_options
from .errors import InputError, check_url
from .evaluate import LocalModel, Source, provider
from .jsonio import print_json

if TYPE_CHECKING:
    from ..evaluation.dialogues.dialogue import Dialogue
    from ..evaluation.dialogues.judging import Judge
    from ..evaluation.dialogues.reader import Loaded
    from ..evaluation.dialogues.run import Judging, Progress

SET = "multiverse (KAIST's, from the hub), tasks (ours, made from --seed), a file or folder, or a hub id."


@expand_options
def dialogues(
    data_set: Annotated[str, typer.Argument(metavar="SET", help=SET, show_default=False)],
    config: DialogueConfig,
    judging: JudgeConfig,
    model: LocalModel,
    source: Source,
    out: Out = Path("runs/dialogues"),
    on_error: OnError = "stop",
    as_json: Json = False,
) -> None:
    """Ask a model dialogues of several turns, with images or without, and have its answers judged by their checklists.

    For MultiVerse (647 dialogues about images, CC-BY-NC-4.0) and sets like it; the judge, its prompt and the figures are ours.
    Every answer and every judgement is kept in DIR before it is used: the same command, run again, resumes; with another judge,
    it has the same answers judged again. DIR/report has a page on which dialogues are read.

    [bold]Examples[/bold]
    multiverse eval dialogues multiverse --server URL --model NAME --judge-url URL --judge-model NAME
    multiverse eval dialogues rows.jsonl --server URL --model NAME --history none --judge-by none
    multiverse eval dialogues tasks --limit 50
    """
    from ..evaluation.dialogues.page import PAGE, write_dialogue_report
    from ..evaluation.dialogues.report import report_dialogues, run_json
    from ..evaluation.dialogues.run import evaluate_dialogues

    loaded, setting = _load(data_set, config, on_error)
    if source.server is None and (seeing := next((one for one in loaded.dialogues if one.image is not None), None)):
        raise InputError(f"dialogue {seeing.id!r} has an image, which no model in this process reads: give --server URL")
    judges = _judges(loaded.dialogues, judging, source)
    found = provider(source, model, parallel=setting.mode == "parallel")
    with _progress(sum(one.image is not None for one in loaded.dialogues)) as progress:
        run = evaluate_dialogues(
            found.open_api,
            found.name,
            loaded.dialogues,
            setting,
            out,
            judging=_judging(judges, judging, data_set, loaded),
            concurrency=source.concurrency,
            progress=progress,
        )
    summed = report_dialogues([run])
    write_dialogue_report(summed, [out], out / "report")
    if as_json:
        print_json({"folder": str(out), **run_json(summed.results[0])})
    else:
        from .dialogue_tables import print_dialogues

        print_dialogues(summed)
        typer.echo(f"read them: {out / 'report' / PAGE}")
    if run.set_aside:
        print(f"{len(run.set_aside)} set aside, see {out / 'set_aside.jsonl'}", file=sys.stderr)


def _load(data_set: str, config: DialogueConfig, on_error: str) -> tuple[Loaded, Setting]:
    """The dialogues, cut to the turns that are asked, and the settings."""
    from ..evaluation.dialogues import generated
    from ..evaluation.dialogues.reader import Loaded, read_dialogues

    if data_set == generated.NAME:
        made = generated.generated(config.limit, config.seed, config.turns)
        return Loaded(made, []), Setting.of(data_set, config, own=True)
    with bars() as shown:
        bar = shown.add_task("rows", total=config.limit)
        loaded = read_dialogues(data_set, config.images, config.limit, lambda: shown.advance(bar))
    for fault in loaded.faults:
        typer.echo(" ".join(str(fault).split()), err=True)
    if loaded.faults and on_error == "stop":
        raise InputError(
            f"{len(loaded.faults):,} rows of {data_set!r} cannot be used: correct them, or leave them out with --on-error skip"
        )
    if not loaded.dialogues:
        raise InputError(f"{data_set!r} has no dialogues")
    cut = [replace(one, turns=one.turns[: config.turns]) for one in loaded.dialogues]
    name = data_set if data_set == "multiverse" or not Path(data_set).exists() else Path(data_set).stem
    return Loaded(cut, loaded.faults), Setting.of(name, config, own=False)


def _judges(dialogues: Sequence[Dialogue], judging: JudgeConfig, source: Source) -> list[Judge]:
    """Who judges."""
    from ..evaluation.dialogues.run import model_judges, rule_judges

    by = judging.judge_by
    if by == "auto":
        by = "rules" if not judging.judge_model and all(one.judged_by_code for one in dialogues) else "model"
    if by == "none":
        return []
    if by == "rules":
        return rule_judges()
    if not judging.judge_model:
        raise InputError(
            "the answers need a judge: give --judge-model NAME and --judge-url URL, or leave judging to a later run with "
            "--judge-by none"
        )
    address = judging.judge_url or source.server
    if address is None:
        raise InputError("--judge-model needs --judge-url: the address of its endpoint, up to /v1")
    from .remote import base_of

    check_url(address, "--judge-url")
    same = judging.judge_url is None or (source.server is not None and base_of(judging.judge_url) == base_of(source.server))
    key = judging.judge_key or (source.api_key if same else None)
    return model_judges(judging.judge_model, base_of(address), key, judging, source.concurrency)


def _judging(judges: list[Judge], config: JudgeConfig, data_set: str, loaded: Loaded) -> Judging:
    from ..evaluation.dialogues.run import Judging

    path = Path(data_set).expanduser()
    source = str(path.resolve()) if path.exists() else data_set
    return Judging(judges, config.judge_repeats, source, loaded.faults)


@contextmanager
def _progress(pictures: int) -> Iterator[Progress]:
    """Bars of the images that are copied, and of the turns that are answered and judged, on a terminal."""
    from ..evaluation.dialogues.run import Progress

    with bars("{task.fields[note]}") as shown:
        images = shown.add_task("images", total=pictures, note="", visible=bool(pictures))
        answers, judged = (shown.add_task(name, total=None, note="", visible=False) for name in ("answers", "judged"))
        met = items = 0
        if not pictures:
            shown.stop()  # until the model is loaded, which shows a spinner

        def begin(turns: int, done: int, to_judge: int) -> None:
            shown.update(answers, total=turns, completed=done, visible=True)
            shown.update(judged, total=to_judge, visible=bool(to_judge))
            shown.start()

        def count(own: int, of: int) -> None:
            nonlocal met, items
            met, items = met + own, items + of
            shown.update(judged, advance=1, note=f"{met} of {items} items")

        yield Progress(lambda: shown.advance(images), begin, lambda: shown.advance(answers), count)
