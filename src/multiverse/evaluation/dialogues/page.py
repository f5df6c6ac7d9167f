"""A report as a page that needs no network: figures, and every dialogue with its image, answers, references and verdicts.

The page is one HTML file with the texts in it as data, never as markup, and a folder of small images beside it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import DataError, writing
from .dialogue import CATEGORIES, Dialogue
from .report import OURS, TITLES, DialogueReport, comparison_table, tables
from .results import Judged, Rater, Results
from .store import IMAGES, Answer, SetAside, TurnKey

PAGE, JSON = "report.html", "report.json"
TEXT_BUDGET = 48_000_000
"""Most characters of texts in a page; browsers open one of this size without trouble."""

_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def write_dialogue_report(
    report: DialogueReport, folders: Sequence[Path], out: Path, *, on_dialogue: Callable[[], None] = lambda: None
) -> None:
    """Write `report.html`, `report.json` and the images into a folder; an earlier report in it is replaced.

    Args:
        folders: of the runs, which hold the images.
        on_dialogue: called after each dialogue.

    Raises:
        DataError: the folder holds something else, or cannot be written.
        DiskError: the disk is full.
    """
    try:
        if out.exists() and any(out.iterdir()) and not (out / JSON).exists():
            raise DataError(f"{str(out)!r} holds something else than a report: give an empty folder, or one that is not there")
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            _copy_images(report, folders, out)
            (out / PAGE).write_text(page(report, on_dialogue), encoding="utf-8")
            (out / JSON).write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{str(out)!r} cannot be written ({error.strerror or error}): give a folder that can be") from error


def page(report: DialogueReport, on_dialogue: Callable[[], None] = lambda: None) -> str:
    """The text of the page."""
    runs = []
    for results in report.results:
        run = results.run
        about = f"{run.model} · history {run.settings.get('history', '')} · {run.date} · judged by {results.judge or 'nobody'}"
        listed = [vars(table) for table in tables(results, seed=report.seed)]
        runs.append({"name": run.name, "about": about, "tables": listed, "cards": list(_cards(results))})
    data = {
        "note": OURS,
        "runs": runs,
        "comparisons": [vars(comparison_table(one)) for one in report.comparisons],
        "categories": {name: TITLES[name] for name in CATEGORIES},
        "dialogues": _fitting(report, on_dialogue),
    }
    title = ", ".join(results.run.name for results in report.results)
    template = (files(__package__) / "page.html").read_text(encoding="utf-8")
    # ASCII alone, so that half a character or a line separator in an answer cannot break the page.
    head, _, tail = template.replace("{{ title }}", _escaped(title).replace("{{", "{ {")).partition("{{ data }}")
    return f"{head}{json.dumps(data).translate(_ESCAPED)}{tail}"


def _cards(results: Results) -> Iterator[tuple[str, str, str]]:
    overall = results.overall
    if overall is None:
        return
    for name, own in (
        ("items", overall.items),
        ("turns", overall.turns),
        ("dialogues", overall.dialogues),
        ("score", overall.score),
    ):
        if own is not None:
            yield name, f"{100 * own.mean:.1f}%", f"{100 * own.low:.1f} to {100 * own.high:.1f}, {own.questions} dialogues"


def _fitting(report: DialogueReport, on_dialogue: Callable[[], None]) -> list[dict[str, Any]]:
    """The dialogues of all runs, each once; those that no longer fit are without their turns."""
    views = [_View(results) for results in report.results]
    found: dict[str, Dialogue] = {}
    for results in report.results:
        for dialogue in results.run.dialogues:
            found.setdefault(dialogue.id, dialogue)
    room, listed = TEXT_BUDGET, []
    for dialogue in found.values():
        picture = next((view.pictures[dialogue.id] for view in views if dialogue.id in view.pictures), "")
        turns = [
            {
                "utterance": turn.utterance,
                "reference": turn.reference,
                "checklist": [[item.question, item.main_criteria, item.sub_criteria] for item in turn.checklist],
                "answers": [view.answers(dialogue.id, number) for view in views],
            }
            for number, turn in enumerate(dialogue.turns)
        ]
        room -= len(json.dumps(turns)) if room > 0 else 0
        shares = [view.share(dialogue.id) for view in views]
        listed.append(
            {
                "id": dialogue.id,
                "first": dialogue.turns[0].utterance[:300],
                "persona": dict(dialogue.persona),
                "categories": {name: text for name, text in dialogue.categories.items() if text},
                "image": picture,
                "shares": shares,
                "turns": turns if room > 0 else None,
            }
        )
        on_dialogue()
    return listed


class _View:
    """What the page shows of a run."""

    def __init__(self, results: Results) -> None:
        run = results.run
        self.pictures = run.pictures
        self._answers: dict[tuple[str, int], list[Answer]] = {}
        for answer in run.answers:
            self._answers.setdefault((answer.dialogue, answer.turn), []).append(answer)
        first = Rater(results.judge, 0)
        self._judged: dict[TurnKey, Judged] = {one.answer.key: one for one in results.judged}
        many = any(rater.repeat for rater in results.raters)
        self._others = [
            (rater.title(many), {one.answer.key: one for one in results.by(rater)})
            for rater in results.raters
            if rater != first
        ]
        self._aside: dict[TurnKey, list[SetAside]] = {}
        for item in run.set_aside:
            self._aside.setdefault(TurnKey(item.dialogue, item.turn, item.sample), []).append(item)
        self._samples = int(run.settings.get("repeats", 1))

    def answers(self, dialogue: str, turn: int) -> list[dict[str, Any]]:
        """Each sample's answer to a turn, with its verdicts."""
        given = {answer.sample: answer for answer in self._answers.get((dialogue, turn), ())}
        return [self._shown(TurnKey(dialogue, turn, sample), given.get(sample)) for sample in range(self._samples)]

    def share(self, dialogue: str) -> list[int] | None:
        """Items met, and all items with a verdict."""
        own = [one for key, one in self._judged.items() if key.dialogue == dialogue]
        if not own:
            return None
        return [sum(decision.met for one in own for decision in one.decisions), sum(len(one.decisions) for one in own)]

    def _shown(self, key: TurnKey, answer: Answer | None) -> dict[str, Any]:
        judged = self._judged.get(key)
        return {
            "answer": answer.answer if answer is not None else None,
            "text": answer.text if answer is not None and answer.text != answer.answer else "",
            "ended": answer.finish_reason if answer is not None else "",
            "verdicts": [[one.met, one.reason] for one in judged.decisions] if judged is not None else None,
            "others": [
                [title, [[one.met, one.reason] for one in found[key].decisions]]
                for title, found in self._others
                if key in found
            ],
            "aside": [f"{one.what}: {one.reason}" for one in self._aside.get(key, ())],
        }


def _copy_images(report: DialogueReport, folders: Sequence[Path], out: Path) -> None:
    shutil.rmtree(out / IMAGES, ignore_errors=True)
    for results, folder in zip(report.results, folders, strict=True):
        for picture in results.run.pictures.values():
            source, target = folder / picture, out / IMAGES / Path(picture).name
            if source.is_file() and not target.exists() and source.resolve() != target.resolve():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, target)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").encode(errors="replace").decode()
