"""`multiverse curate compose`, over a scripted endpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.curation.compose.model import Model, answered
from tests.curation.compose.test_composition import questions
from tests.curation.endpoint import serving


def test_the_command(tmp_path: Path, run: Any) -> None:
    source = questions(tmp_path / "q.txt")
    with serving(Model()) as up:
        where = ("--out", str(tmp_path / "out"), "-m", "fake", "--base-url", up.url)
        told = run("curate", "compose", str(source), *where, "--min-part-tokens", "20", "--num-documents", "25", "--json")
    assert told.code == 0, told.err
    said = json.loads(told.out)
    assert said["totals"]["curated"] == 25
    assert said["totals"]["train"] + said["totals"]["validation"] == 25
    plan = run("curate", "compose", str(source), *where, "--dry-run", "--json")
    assert json.loads(plan.out)["questions"] == 40


def test_the_command_refuses_what_cannot_work(tmp_path: Path, run: Any) -> None:
    source = tmp_path / "q.txt"
    source.write_text("What is bread?\n", encoding="utf-8")
    out = ("--out", str(tmp_path / "out"))
    assert "at least 2" in run("curate", "compose", str(source), *out, "-m", "x").err
    more = questions(tmp_path / "more.txt", "What is bread?")
    assert "--model is missing" in run("curate", "compose", str(more), *out, "--base-url", "http://localhost:1/v1").err
    assert "--max-parts 2" in run("curate", "compose", str(more), *out, "-m", "x", "--max-parts", "2", "--min-parts", "3").err
    assert "asked before" in run("curate", "compose", str(more), *out, "-m", "x", "--on-error", "stop").err


def test_a_model_of_this_process(tmp_path: Path, run: Any, writes: Any) -> None:
    def write(prompt: str) -> str:
        asked = re.findall(r"(?:What is|Tell me about|What do|How are)[^?.]*[?.]", prompt)[-1]
        return answered(asked)

    writes(write)
    source = questions(tmp_path / "q.txt")
    long = ("--min-part-tokens", "20", "--max-part-tokens", "600", "--max-tokens", "600")
    told = run(
        "curate",
        "compose",
        str(source),
        "--out",
        str(tmp_path / "out"),
        *long,
        "--num-documents",
        "10",
        "-m",
        "any",
        "--limit",
        "12",
        "--json",
    )
    assert told.code == 0, told.err
    said = json.loads(told.out)
    assert said["totals"]["reasons"] == {}
    assert said["totals"]["curated"] == 10
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["endpoint"] == "in-process"
