"""`multiverse eval probe` and `multiverse eval prompting`, as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multiverse import LLM
from multiverse.structure import Document, render
from multiverse.tasks import generate
from tests.cli.scripted import NESTED, Write

Run = Callable[..., Any]
ANY_MODEL = ("--family", "chain", "-n", "1")


def test_probe(run: Run, model_folders: dict[str, Path], tmp_path: Path) -> None:
    model = ("--model", str(model_folders["qwen3"]))
    done = run("eval", "probe", *model, "--family", "all", "-n", "6", "--at", "question", "--mode", "sequential", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["at"], report["within"], report["cases"]) == ("question", None, 30)
    (text,) = report["texts"]
    assert (text["mode"], text["examples"], text["majority"]["value"]) == ("sequential", 12, 0.5)
    assert [layer["layer"] for layer in text["layers"]] == [0, 1, 2]
    assert all(layer["low"] <= layer["value"] <= layer["high"] for layer in text["layers"])
    assert text["last_tokens"]["value"] == 0.5  # all questions end alike
    stored = tmp_path / "stored.json"
    stored.write_text(done.out)
    picture = tmp_path / "probe.svg"
    data = tmp_path / "rows.jsonl"
    problems = [*generate("worksheet", 6, seed=1, width=2), *generate("chain", 6, seed=1)]
    data.write_text("".join(f"{json.dumps({'messages': chat(p.question, p.structured)})}\n" for p in problems))
    options = ("--documents", str(data), "--at", "token", "--within", "4", "--beside", str(stored), "--plot", str(picture))
    done = run("eval", "probe", *model, *options, "--mode", "parallel")
    assert done.code == 0, done.err
    assert "within 4 tokens" in done.out
    assert "layer 2" in done.out
    assert picture.read_text().count('id="axes_') == 2


def chat(question: str, document: Document) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": render(document)}]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--at", "sentense"), "did you mean 'sentence'"),
        (("--mode", "line"), "--mode 'line' is not valid"),
        (("--n", "3"), "--n is now called --limit"),
        (("--family", "chains"), "did you mean 'chain'"),
        (("-n", "0"), "--limit 0 is not valid"),
        (("--plot", "probe.txt"), "is not a supported figure"),
        (("--beside", "nowhere.json"), "--beside 'nowhere.json' cannot be read"),
        (("--documents", "./nowhere.jsonl"), "nowhere.jsonl"),
        (("--data", "traces.jsonl"), "--data is now called --documents"),
        (("--family", "chain", "-n", "8"), "0 of 8 places are in front of a fork"),
        (("--model", "./nowhere"), "does not exist"),
    ],
)
def test_probe_refuses(run: Run, model_folders: dict[str, Path], options: tuple[str, ...], complaint: str) -> None:
    given = options if "--model" in options else ("--model", str(model_folders["qwen3"]), *options)
    done = run("eval", "probe", *given)
    assert done.code != 0
    assert complaint in " ".join(done.err.split())


def test_prompting(run: Run, writes: Callable[[Write], LLM], tmp_path: Path) -> None:
    writes(lambda prompt: NESTED if "in parallel" in prompt else Document(None, "Answer: 34"))
    answers, picture = tmp_path / "answers.jsonl", tmp_path / "prompting.svg"
    options = ("--family", "all", "-n", "1", "--guards", "off", "--save", str(answers), "--plot", str(picture))
    done = run("eval", "prompting", *options, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["n"], report["seed"], report["temperature"]) == (5, 7, 0.6)
    by = {(one["mode"], one["group"]): one for one in report["tallies"]}
    assert len(by) == 2 * 6
    assert by["parallel", "all"]["formed"]["value"] == by["sequential", "all"]["plain"]["value"] == 1
    assert by["parallel", "all"]["possible"]["value"] == 0.8
    assert by["parallel", "chain"]["formed_where_possible"] is None
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == 10
    assert {(line["mode"], line["outcome"]) for line in lines} == {("parallel", "formed"), ("sequential", "plain")}
    assert "<svg" in picture.read_text()
    done = run("eval", "prompting", *ANY_MODEL, "--mode", "explained", "--guards", "off")
    assert "explained" in done.out
    assert "100%" in done.out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--mode", "nicely"), "--mode 'nicely' is not valid"),
        (("--ask", "explained"), "--ask is now called --mode"),
        (("--guard", "off"), "--guard is now called --guards"),
        (("--guards", "maybe"), "--guards 'maybe' is not valid"),
        (("--save", "/nowhere/answers.jsonl"), "cannot be written"),
    ],
)
def test_prompting_refuses(run: Run, writes: Callable[[Write], LLM], options: tuple[str, ...], complaint: str) -> None:
    writes(lambda _: NESTED)
    done = run("eval", "prompting", *ANY_MODEL, *options)
    assert done.code != 0
    assert complaint in " ".join(done.err.split())
