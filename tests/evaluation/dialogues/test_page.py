"""The page of a report, in a real browser: a dialogue with its image, answers, references and verdicts side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("scipy", reason="the extra [eval] is not installed")
pytest.importorskip("PIL", reason="the extra [eval] is not installed")

from multiverse.errors import DataError
from multiverse.evaluation.dialogues.images import ImageLimits
from multiverse.evaluation.dialogues.page import PAGE, page, write_dialogue_report
from multiverse.evaluation.dialogues.reader import dialogue_of
from multiverse.evaluation.dialogues.report import report_dialogues
from multiverse.evaluation.dialogues.store import (
    Answer,
    Decision,
    DialogueRun,
    Judgement,
    SetAside,
    Store,
    read_dialogue_run,
)
from tests.needs import missing

from . import made

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NASTY = (
    "</script><script>document.title = 'broken'</script><img src=x onerror=alert(1)> {{ data }} {{ title }} \u2028 \ud83d &amp;"
)


def a_run(folder: Path, name: str, met: bool) -> DialogueRun:
    """A run of four dialogues in a folder; one answer is missing, and one is nasty."""
    dialogues = [dialogue_of(made.row(number), None, ImageLimits()) for number in range(4)]
    settings = {"set": "made", "history": "own", "repeats": 1}
    run = DialogueRun(name, "seer", settings, "machine", "2026-11-30", judge="judge", dialogues=tuple(dialogues))
    store = Store(folder, run)
    for dialogue in dialogues:
        for number, turn in enumerate(dialogue.turns):
            if (dialogue.id, number) == ("made-3", 2):
                store.put_aside(SetAside("answer", dialogue.id, number, 0, "", "the endpoint refused (400): no"))
                continue
            text = NASTY if (dialogue.id, number) == ("made-0", 0) else f"I see shape {number} of {dialogue.id}."
            store.add_answer(
                Answer(dialogue.id, number, 0, f"Hm. {text}", text, text, "stop", False, 0, 100, 40, 20, 20, 20, 1.0)
            )
            for judge, own in (("judge", met), ("second", not met)):
                decisions = tuple(Decision(own or bool(at % 2), f"reason {at} of {judge}") for at in range(len(turn.checklist)))
                key = f"{dialogue.id}{number}{judge}"
                store.add_judgement(Judgement(dialogue.id, number, 0, judge, 0, 0, key, "", "", decisions))
    return store.close(1.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs."""
    folder = tmp_path_factory.mktemp("page")
    runs = [a_run(folder / "a", "first model", True), a_run(folder / "b", "second <b>model", False)]
    assert read_dialogue_run(folder / "b") == runs[1]
    write_dialogue_report(report_dialogues(runs), [folder / "a", folder / "b"], folder / "report")
    return folder / "report"


def test_the_files_of_a_report(written: Path, tmp_path: Path) -> None:
    text = (written / PAGE).read_text()
    assert "<b>model" not in text
    assert text.count("</script>") == 2
    assert "http" not in text.partition("<script type")[0].replace("http-equiv", "")
    assert len(list((written / "images").glob("*.jpg"))) == 4
    report = json.loads((written / "report.json").read_text())
    assert report["runs"][0]["overall"]["items"]["mean"] == 1
    assert report["comparisons"][0]["differences"]["items"]["mean"] < 0
    assert report["runs"][1]["agreement"][0]["items"] == report["runs"][1]["overall"]["items"]["samples"]
    assert "this project's" in report["note"]
    write_dialogue_report(
        report_dialogues([read_dialogue_run(written.parent / "a")]), [written.parent / "a"], written
    )  # replaced
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else than a report"):
        write_dialogue_report(report_dialogues([read_dialogue_run(written.parent / "a")]), [written.parent / "a"], tmp_path)


def test_texts_that_do_not_fit_are_left_out(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiverse.evaluation.dialogues.page.TEXT_BUDGET", 1500)
    text = page(report_dialogues([read_dialogue_run(written.parent / "a")]))
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert [one["turns"] is None for one in data["dialogues"]] == [True] * 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="playwright is not installed")
    from tests.serving.browser import chromium, find_chromium

    path = find_chromium()
    if path is None:
        missing("Chromium is not installed (apt-get install chromium)")
    with chromium(path) as own:
        yield own


@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
def test_reading_a_dialogue(browser: Browser, tmp_path: Path, phone: bool) -> None:
    from tests.serving.browser import new_page

    runs = [a_run(tmp_path / name, f"model {name}", name == "a") for name in ("a", "b")]
    write_dialogue_report(report_dialogues(runs), [tmp_path / "a", tmp_path / "b"], tmp_path / "report")
    errors: list[str] = []
    width, height = (390, 844) if phone else (1440, 900)
    with new_page(browser, errors, width, height, phone=phone) as opened:
        opened.goto((tmp_path / "report" / PAGE).as_uri())
        assert opened.title() == "model a, model b · dialogues"
        assert opened.locator("#list tbody tr").count() == 4
        assert "this project's" in opened.locator("#note").inner_text()
        opened.select_option("#outcome", "passed")
        assert opened.locator("#list tbody tr").count() == 0
        opened.select_option("#outcome", "")
        opened.fill("#search", "no such text")
        assert opened.locator("#list tbody tr").count() == 0
        opened.fill("#search", "onerror")
        opened.locator("#list tbody tr").first.click()
        assert opened.locator(".turn").count() == 3
        first = opened.locator(".turn").first
        assert "<img src=x onerror=alert(1)>" in first.locator(".side .text").first.inner_text()
        assert first.locator(".side").count() == 3  # two models and the reference
        assert opened.locator("aside img").evaluate("image => image.complete && image.naturalWidth") == 64
        assert first.locator(".check li").count() == 4
        assert "second: no (disagrees), reason 0 of second" in first.locator(".check").first.inner_text()
        boxes = [box for own in first.locator(".side").all() if (box := own.bounding_box()) is not None]
        if phone:
            assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]
        else:
            assert boxes[0]["y"] == boxes[1]["y"] == boxes[2]["y"]
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        opened.locator("#close").click()
        opened.fill("#search", "")
        opened.locator("#list tbody tr").last.click()
        assert "the endpoint refused (400): no" in opened.locator(".turn").last.inner_text()
        opened.keyboard.press("ArrowLeft")
        assert opened.locator("#title").inner_text().startswith("made-2")
        opened.keyboard.press("Escape")
        assert opened.locator("#overview").is_visible()
    assert errors == []
