"""`multiverse tour`: an answer in lanes, the same in a line, and the clock of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from multiverse import LLM
from multiverse.cli import tour
from multiverse.structure import Document
from tests.cli.conftest import Result
from tests.cli.scripted import NESTED, Write

Run = Callable[..., Result]
LINE = Document(("One after the other.",), "Answer: 34")


@pytest.fixture
def puzzle(writes: Callable[[Write], LLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that forks when it may, and no language model at hand."""
    llm = writes(lambda prompt: NESTED if "in parallel" in prompt else LINE)
    monkeypatch.setattr(llm, "instructed", True)
    monkeypatch.setattr(import_module("multiverse.models.resolve"), "find", lambda _: None)


@pytest.mark.usefixtures("puzzle")
def test_both_answers_are_shown_and_timed_and_the_way_on_is_told(run: Run) -> None:
    code, out, err = run("tour")
    assert code == 0, err
    lanes, line, clock, then = (out.index(text) for text in ("1. In lanes", "2. In a line", "3. The clock", "Where to go next"))
    assert "Blue team" in out[lanes:line]
    assert "One after the other." in out[line:clock]
    assert "forwards of the model" in out[clock:then]
    assert "multiverse pull multiverse-smol" in out[then:]
    assert "\x1b" not in out, "plain text on a pipe"


@pytest.mark.usefixtures("puzzle")
def test_a_model_is_asked_what_it_can_answer(run: Run) -> None:
    assert json.loads(run("tour", "-m", "multiverse-mini", "--json").out)["question"] == tour.PUZZLES["wide"]
    assert json.loads(run("tour", "-m", "./mine", "--json").out)["question"] == tour.QUESTIONS["three parts"]


@pytest.mark.usefixtures("puzzle")
def test_as_json(run: Run) -> None:
    code, out, err = run("tour", "--question", "What now?", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["question"] == "What now?"
    assert found["model"] == found["line_model"] == "multiverse-mini"
    assert found["lanes"]["parallelism"] > 1
    assert found["line"]["parallelism"] == 1
    assert found["speedup"] == pytest.approx(found["line"]["seconds"] / found["lanes"]["seconds"])
    assert "multiverse serve" in found["next"]


def test_the_language_model_answers_where_its_base_is_at_hand(
    run: Run, writes: Callable[[Write], LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes(lambda _: NESTED)
    monkeypatch.setattr(import_module("multiverse.models.resolve"), "find", lambda _: Path())
    code, out, err = run("tour", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["model"], found["note"]) == (tour.MODEL, "")
    assert found["next"][0] == "multiverse chat --model multiverse-smol"
