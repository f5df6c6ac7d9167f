"""`multiverse curate dataflow`: normal use and error messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.structure import parse
from tests.cli.conftest import Result
from tests.curation.dataflow.problems import CASES
from tests.curation.dataflow.test_run import FORKED, ORDERED, written

Run = Callable[..., Result]


def test_the_command(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl")
    printed = run("curate", "dataflow", str(source), "--out", str(tmp_path / "out"), "--keep-xml")
    assert printed.code == 0, printed.err
    assert f"{ORDERED} curated, {len(CASES) - ORDERED} rejected" in printed.out
    assert f"{FORKED} documents fork" in printed.out
    assert "× ambiguous number" in printed.out
    texts = [path.read_text() for path in (tmp_path / "out" / "documents").iterdir()]
    assert sum(bool(parse(text.removesuffix("\n")).branches) for text in texts) == FORKED


def test_json(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl")
    printed = run("curate", "dataflow", str(source), "-o", str(tmp_path / "out"), "--json", "--min-gain", "1000")
    found = json.loads(printed.out)
    # Without blocks it does not matter where a number is from: what was ambiguous is curated as well.
    unclear = ("ambiguous number", "number without a source", "unused result")
    more = sum(case.wanted in unclear for case in CASES.values())
    assert (found["curated"], found["totals"]["forked"], found["ended"]) == (ORDERED + more, 0, None)


def test_faults_stop_a_run_unless_they_are_skipped(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl")
    with source.open("a") as stream:
        stream.write("{broken\n")
    args = ("curate", "dataflow", str(source), "-o", str(tmp_path / "out"))
    printed = run(*args)
    assert printed.code == 2
    assert "--on-error skip" in printed.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert run(*args, "--on-error", "skip").code == 0
    assert "not JSON" in (tmp_path / "out" / "faults.jsonl").read_text()


@pytest.mark.parametrize(("content", "wanted"), [("", "holds no solution"), (None, "holds no solution")])
def test_an_input_without_solutions(run: Run, tmp_path: Path, content: str | None, wanted: str) -> None:
    source = tmp_path / "x.jsonl"
    if content is not None:
        source.write_text(content)
    printed = run("curate", "dataflow", str(source), "-o", str(tmp_path / "out"))
    assert printed.code == 2
    assert wanted in printed.err.splitlines()[-1]
