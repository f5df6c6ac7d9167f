"""Whole runs against a scripted model: outputs, faults, kills, budgets, texts of the model's, and the command."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.config import BudgetConfig
from multiverse.curation.errors import BudgetError, RunError, StoppedError
from multiverse.data import read
from multiverse.structure import DIALECTS, MULTIVERSE_ANSWER, parse
from tests.curation.compose.model import Model, start
from tests.curation.endpoint import KINDS, serving
from tests.curation.test_run import files
from tests.forks import forks

_NAMES = "bread rice tea salt gold iron snow wind rain fire wood wool silk glass steel sugar honey milk cheese butter"
THINGS = _NAMES.split()
HARMLESS = tuple(kind for kind in KINDS if kind not in ("hang", "dribble"))


def questions(path: Path, *more: str) -> Path:
    """Forty questions about twenty things, and more."""
    lines = [f"What is {thing}?" for thing in THINGS] + [f"Tell me about {thing}." for thing in THINGS]
    path.write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    return path


def outcomes(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_writes_what_curation_writes(tmp_path: Path) -> None:
    bad = ("Is circles a word?", "What refuses to go?", "What is the german of it?", "What is brief?", "What is stubborn wood?")
    source, out = questions(tmp_path / "q.txt", *bad, "What is bread?"), tmp_path / "out"
    with serving(Model()) as up:
        result = start(up.url, out, source)
    assert result.ended is None
    assert result.totals is not None
    reasons = {"repetition": 1, "refusal": 1, "other language": 1, "too short": 1}
    assert result.totals["reasons"] == reasons
    assert result.totals["questions"] == result.totals["answered"] + 4
    assert result.totals["calls"] == result.paid.calls
    found = outcomes(out)
    assert [row["status"] for row in found[:4]] == ["set aside"] * 4, "rejected questions come first, with their reasons"
    assert all(row["attempts"] == {"answer": 3} for row in found[:4])
    sides = {name: read(str(out / "data" / f"{name}.parquet"), MULTIVERSE_ANSWER) for name in ("train", "validation")}
    assert not any(side.faults for side in sides.values())
    assert sum(len(side.rows) for side in sides.values()) == result.curated == len(found) - 4
    held_out = [row for row in found[4:] if row["held_out"]]
    assert len(sides["validation"].rows) == len(held_out) > 0
    forked = [row for row in sides["train"].rows if row.document.depth]
    assert 0.5 < len(forked) / len(sides["train"].rows) < 0.95
    assert all(2 <= len(block.paths) <= 5 for row in forked for _, block in row.document.blocks())
    for row in forked:
        texts = [str(path[0]) for depth, block in row.document.blocks() for path in block.paths if isinstance(path[0], str)]
        assert row.sequential is not None
        assert all(text in str(row.sequential.plain_answer) for text in texts), "the twin says the same"
    stubborn = [row for row in found if "stubborn" in row["question"] and row["question"] == "What is stubborn wood?"]
    assert all(row["status"] == "curated" for row in stubborn), "the third way of asking helped"
    assert (out / "faults.jsonl").read_text(encoding="utf-8").count("asked before") == 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Words a path" in page
    assert "other language" in page
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))["complete"]


def test_the_same_seed_gives_the_same_files_whatever_goes_wrong_on_the_way(tmp_path: Path) -> None:
    source = questions(tmp_path / "q.txt")
    on_the_way = tuple(kind for kind in HARMLESS if kind in ("429", "500", "503", "drop", "drop within", "no JSON"))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with serving(Model()) as good, serving(Model(rate=0.3, seed=2, kinds=on_the_way)) as faulty:
        assert start(good.url, tmp_path / "a" / "out", source).ended is None
        assert start(faulty.url, tmp_path / "b" / "out", source).ended is None
        assert sum(faulty.kinds.values()) > 5
        other = start(good.url, tmp_path / "c", source, seed=1)
    one, two = (files(tmp_path / name / "out") for name in "ab")
    addressed = {"manifest.json", "report.html"}  # they name the endpoint
    assert one.keys() == two.keys() > addressed
    assert all(one[name] == two[name] for name in one if name not in addressed)
    assert other.ended is None
    assert [row["question"] for row in outcomes(tmp_path / "c")] != [
        row["question"] for row in outcomes(tmp_path / "a" / "out")
    ]


def test_bad_answers_cost_only_their_question(tmp_path: Path) -> None:
    with serving(Model(rate=0.5, seed=3, kinds=("cut short", "tag", "half a character", "a million characters"))) as up:
        result = start(up.url, tmp_path / "out", questions(tmp_path / "q.txt"))
    assert result.ended is None
    assert result.rejected > 0
    assert result.curated > 10
    for row in outcomes(tmp_path / "out"):
        if row["status"] == "curated":
            parse(row["document"], MULTIVERSE_ANSWER)
            parse(row["sequential"], MULTIVERSE_ANSWER)


def test_killed_at_random_times_it_ends_in_the_same_files(tmp_path: Path) -> None:
    draw, source = random.Random(5), questions(tmp_path / "q.txt")
    out, whole = tmp_path / "killed" / "out", tmp_path / "whole" / "out"
    for folder in (out, whole):
        folder.parent.mkdir()
    model = Model(rate=0.2, seed=5, kinds=HARMLESS)
    with forks(tmp_path, "multiverse.curation.compose", "openai.resources", "jinja2") as processes, serving(model) as up:
        for kill in range(4):
            before, parts = sum(up.calls.values()), set(out.glob("*.part"))
            process = processes.start("tests.curation.compose.model", up.url, out, source)
            more = draw.randrange(3, 20)
            while process.poll() is None and (
                sum(up.calls.values()) < before + more if kill < 3 else not (set(out.glob(".*.part")) - parts)
            ):
                time.sleep(0.001)
            process.kill()
            assert process.wait() in (-signal.SIGKILL, 0)
        with closing(sqlite3.connect(out / "answers.sqlite")) as store:
            assert store.execute("SELECT count(*) FROM answers").fetchone()[0] > 5
        result = start(up.url, out, source)
        assert result.ended is None
        twice = sum(number - 1 for number in up.answered.values())
        assert twice <= 4 * 8, "only what was under way when the process was killed is asked again"
        assert start(up.url, whole, source).ended is None
    assert files(out) == files(whole)


def test_a_second_start_pays_for_nothing(tmp_path: Path) -> None:
    source = questions(tmp_path / "q.txt")
    with serving(Model()) as up:
        start(up.url, tmp_path / "out", source, num_documents=30)
        before = files(tmp_path / "out")
        again = start(up.url, tmp_path / "out", source, num_documents=30)
        assert (again.paid.calls, again.ended) == (0, None)
        assert files(tmp_path / "out") == before
        with pytest.raises(RunError, match="max_parts"):
            start(up.url, tmp_path / "out", source, num_documents=30, max_parts=3)
        fresh = start(up.url, tmp_path / "out", source, num_documents=30, max_parts=3, fresh=True)
        assert fresh.paid.calls == 0, "other documents of the same answers cost nothing"
        widths = {
            len(block.paths)
            for row in outcomes(tmp_path / "out")
            for _, block in parse(row["document"], MULTIVERSE_ANSWER).blocks()
        }
        assert widths == {2, 3}


def test_a_spent_budget_can_be_raised(tmp_path: Path) -> None:
    source = questions(tmp_path / "q.txt")
    with serving(Model()) as up:
        first = start(up.url, tmp_path / "out", source, budget=BudgetConfig(token_budget=2000))
        assert isinstance(first.ended, BudgetError)
        assert first.totals is not None
        assert first.totals["curated"] == 0
        assert not json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["complete"]
        assert start(up.url, tmp_path / "out", source).ended is None


def test_too_few_answers_say_why(tmp_path: Path) -> None:
    source = tmp_path / "q.txt"
    source.write_text("What is circles?\nWhat is brief?\nWhat is bread?\n", encoding="utf-8")
    with serving(Model()) as up:
        result = start(up.url, tmp_path / "out", source, held_out=0.0)
    assert isinstance(result.ended, RunError)
    assert "only 1 answers can become parts" in str(result.ended)
    assert "1 repetition, 1 too short" in str(result.ended)
    assert len(outcomes(tmp_path / "out")) == 2


def test_the_model_writes_outlines_conclusions_and_twins(tmp_path: Path) -> None:
    source = questions(tmp_path / "q.txt", "What is doubtful bread?")
    options: dict[str, Any] = {"outline_writer": "model", "conclusion_writer": "model", "twins": "model", "unforked": 0.0}
    with serving(Model()) as up:
        result = start(up.url, tmp_path / "out", source, num_documents=30, forms=("numbered",), **options)
    assert result.ended is None
    seen: Counter[str] = Counter()
    for row in outcomes(tmp_path / "out"):
        (block,) = (block for _, block in parse(row["document"], MULTIVERSE_ANSWER).blocks())
        assert all(outline.startswith("About ") for outline in block.outlines), "the heading's marks are gone"
        doubtful = "doubtful" in row["question"]
        assert (block.conclusion == "That is all there is to it.") != doubtful
        assert ("conclusion of the code's" in row["notes"]) == doubtful
        assert not row["sequential"].startswith("###"), "the model's own answer to the whole request"
        seen[str(doubtful)] += 1
    assert min(seen["True"], seen["False"]) > 0


def test_the_judge_has_its_say(tmp_path: Path) -> None:
    source = questions(tmp_path / "q.txt", "What is doubtful bread?")
    with serving(Model()) as up:
        result = start(up.url, tmp_path / "out", source, judge=True)
    assert result.totals is not None
    assert result.totals["reasons"] == {"judged wrong": 1}


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if name != "multiverse-answer"])
def test_every_dialect(tmp_path: Path, dialect: str) -> None:
    with serving(Model()) as up:
        result = start(up.url, tmp_path / "out", questions(tmp_path / "q.txt"), dialect=dialect, num_documents=20)
    assert result.ended is None
    side = read(str(tmp_path / "out" / "data" / "train.parquet"), DIALECTS[dialect])
    assert side.rows
    assert not side.faults
    assert any(row.document.depth for row in side.rows)


def test_an_interrupt_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "q.txt"), tmp_path / "out"

    def interrupt(body: dict[str, Any], number: int) -> None:  # noqa: ARG001
        if number == 15:
            os.kill(os.getpid(), signal.SIGINT)

    with serving(Model(override=interrupt)) as up:
        first = start(up.url, out, source)
        assert isinstance(first.ended, StoppedError)
        assert 15 <= first.paid.calls < 30
        assert not (out / "data").exists()
        second = start(up.url, out, source)
    assert second.ended is None
    assert first.paid.calls + second.paid.calls == len(up.calls) == sum(up.answered.values())


def test_other_languages_get_requests_without_english_words(tmp_path: Path) -> None:
    source = tmp_path / "q.txt"
    names = ["Brot", "Reis", "Tee", "Salz", "Gold", "Eisen", "Schnee", "Wind", "Regen", "Feuer", "Holz", "Wolle"]
    source.write_text("\n".join(f"Was ist das {name} und wie ist es mit dem {name}?" for name in names), encoding="utf-8")
    with serving(Model()) as up:
        result = start(up.url, tmp_path / "out", source, check_language=False, unforked=0.0, follow_ups=0.5, num_documents=20)
    assert result.ended is None
    assert result.curated == 20
    for row in outcomes(tmp_path / "out"):
        words = row["question"].split()
        assert {"questions", "and", "Please", "answer"}.isdisjoint(words)
        assert row["notes"][1] == "wording: {parts}"
