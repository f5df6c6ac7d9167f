"""The report as one page: its data, that nothing in it is markup or comes from elsewhere, and a reader who works with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from multiverse.errors import DataError
from multiverse.evaluation import page as module
from multiverse.evaluation.page import page, write_page
from multiverse.evaluation.report import Report, report
from multiverse.structure import MULTIVERSE
from tests.evaluation.samples import run, sample
from tests.needs import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser

EVIL = "</script><script>alert('x')</script><!--<img src=http://evil.example/x onerror=alert(1)>&amp;\u2028\ud83d"


def two_runs(**changes: Any) -> Report:
    """Eight questions in two runs: the second is right where the first is, and on 0, 2 and 4."""
    first = [sample(number, number % 2 > 0, **changes) for number in range(8)]
    second = [replace(one, right=number != 6, total_tokens=200 + number) for number, one in enumerate(first)]
    return report([run("before", first), run("after", second)])


def read(text: str) -> dict[str, Any]:
    """The JSON elements of a page, by id."""
    found = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text)
    return {name: json.loads(value) for name, value in found}


def written(made: Report) -> dict[str, Any]:
    return read("".join(page(made)))


def test_the_figures_are_those_of_the_report() -> None:
    made = two_runs()
    data = written(made)["data"]
    assert [group["samples"] for group in data["groups"]] == [8, 8]
    right = data["measures"][0]
    assert right["texts"] == ["50.0 ± 18.9", "87.5 ± 12.5"]
    estimate = made.groups[1].estimates["pass@1"]
    assert right["points"][1] == [100 * estimate.mean, 100 * estimate.low, 100 * estimate.high]
    assert len(data["rows"]) == data["samples"] == data["shown"] == 16


def test_of_compared_runs_it_says_who_is_right_where_the_other_is_not() -> None:
    (compared,) = written(two_runs())["data"]["comparisons"]
    assert (compared["first"], compared["second"], compared["groups"]) == ("before", "after", [0, 1])
    kinds = [compared["outcome"][str(number)] for number in range(8)]
    assert kinds == ["second", "both", "second", "both", "second", "both", "neither", "both"]
    # Three differences of 1 and five of 0: 0.375 with a standard error of sqrt(0.375 * 0.625 / 7).
    measure, difference, *_ = compared["table"][0]
    assert (measure, difference) == ("pass@1, %", "+37.5 ± 18.3")


def test_a_sample_is_a_tree_and_one_that_does_not_parse_is_text() -> None:
    broken = f"x{MULTIVERSE.path.open}y"
    found = written(report([run("a", [sample(0, True), sample(1, False, text=broken, malformed=True)])]))
    (begin, block), answer = found["text-0"]["tree"]["thinking"], found["text-0"]["tree"]["answer"]
    assert (begin, answer) == ("Two.", "Answer: 12")
    assert [path["outline"] for path in block["paths"]] == ["Mia", "Tom"]
    assert found["text-1"]["text"] == broken
    assert "tree" not in found["text-1"]
    assert found["question-1"] == "What is 1?"


def test_what_a_model_wrote_is_never_markup_and_nothing_is_loaded() -> None:
    made = report([run(EVIL, [sample(0, True, id=EVIL, question=EVIL, answer=EVIL, expected=EVIL, text=EVIL)], model=EVIL)])
    text = "".join(page(made))
    assert "alert('x')" not in re.sub(r"\\u003c[^<]*", "", text)
    data = read(text)
    assert data["name"] == data["data"]["runs"][0]["name"] == EVIL
    assert data["text-0"]["text"] == data["question-0"] == EVIL
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_a_large_report_is_cut_by_question_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 12)
    whole = written(two_runs())
    data = whole["data"]
    assert (data["samples"], len(data["rows"]), data["shown"]) == (16, 12, 12)
    # Both runs' answers to the first six questions.
    assert sorted((row[0], row[2]) for row in data["rows"]) == [(group, str(n)) for group in (0, 1) for n in range(6)]
    size = sum(len(json.dumps(whole[f"text-{number}"])) for number in range(3))
    monkeypatch.setattr(module, "TEXT_BUDGET", size)
    cut = written(two_runs())
    assert 0 < cut["data"]["shown"] < 4
    assert f"text-{cut['data']['shown']}" not in cut
    assert cut["data"]["measures"] == data["measures"]


def test_the_page_replaces_a_file_and_says_where_it_cannot_be(tmp_path: Path) -> None:
    told: list[None] = []
    write_page(two_runs(), tmp_path / "new" / "report.html", on_sample=lambda: told.append(None))
    assert len(told) == 16
    assert (tmp_path / "new" / "report.html").read_text().startswith("<!doctype html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_page(two_runs(), tmp_path / "file" / "report.html")


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
def test_a_reader_filters_searches_compares_and_opens(browser: Browser, tmp_path: Path, phone: bool) -> None:
    from tests.serving.browser import new_page

    write_page(two_runs(), tmp_path / "report.html")
    errors: list[str] = []
    width, height = (390, 844) if phone else (1440, 900)
    with new_page(browser, errors, width, height, phone=phone) as opened:
        opened.goto((tmp_path / "report.html").as_uri())
        assert opened.title() == "before, after · evaluation report"
        lines = opened.locator("#rows tbody tr")
        assert lines.count() == 16
        assert opened.locator("#forests .forest").count() == 6
        assert opened.locator("#histograms polygon").count() == 8
        assert opened.evaluate("document.documentElement.scrollWidth") == width, "nothing runs out of the window"
        opened.select_option("#right", "0")
        assert lines.count() == 5
        assert "5 of 16 answers: 0.0% right" in opened.locator("#summary").inner_text()
        opened.select_option("#right", "")
        opened.fill("#least", "204")
        assert lines.count() == 4
        opened.click("#clear")
        opened.fill("#search", "4+5=9 tom")  # in a path, not in the table
        assert lines.count() == 16
        opened.fill("#search", "nowhere")
        assert lines.count() == 0
        opened.click("#clear")
        opened.click(".sides button[data-kind=second]")
        assert lines.count() == 6
        lines.first.focus()
        opened.keyboard.press("Enter")
        assert [one.split("\n")[0] for one in opened.locator("#inside .pane header").all_inner_texts()] == ["before", "after"]
        assert opened.locator("#inside .lane").count() == 4
        opened.keyboard.press("ArrowRight")
        assert opened.evaluate("location.hash") == "#sample%3D2"
        opened.keyboard.press("Escape")
        assert not opened.evaluate("document.getElementById('opened').open")
        opened.keyboard.press("/")
        assert opened.evaluate("document.activeElement.id") == "search"
    assert not errors
