"""`multiverse eval dialogues`, and reports of its runs: what is refused before anything is asked, and tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
pytest.importorskip("PIL", reason="the extra [eval] is not installed")

from tests.cli.conftest import Result
from tests.evaluation.dialogues import made
from tests.evaluation.dialogues.test_page import a_run

Run = Callable[..., Result]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return made.write_jsonl(tmp_path / "rows.jsonl", [made.as_json(made.row(number)) for number in range(2)])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "dialogue 'made-0' has an image, which no model in this process reads: give --server URL"),
        (("--server", "http://127.0.0.1:9"), "the answers need a judge: give --judge-model NAME and --judge-url URL"),
        (("--judge-max-cost", "1"), "judge_max_cost needs prices: give --judge-price-in and --judge-price-out"),
        (("--judge-model", "a", "--judge-model", "a"), "judge_model names a model twice"),
        (("--server", "http://127.0.0.1:9", "--judge-model", "a", "--judge-url", "b"), "--judge-url 'b' is not valid"),
        (("--history", "all"), "--history 'all' is not valid: choose own, reference, none"),
        (("--max-image-megapixels", "0.001"), "2 rows of"),
    ],
)
def test_what_is_refused_before_anything_is_asked(
    run: Run, rows: Path, options: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    result = run("eval", "dialogues", str(rows), "--out", str(tmp_path / "out"), *options)
    assert result.code == 2, result
    assert problem in result.err
    assert not (tmp_path / "out").exists()


def test_faulty_rows_are_named_before_anything_is_asked(run: Run, tmp_path: Path) -> None:
    rows = made.write_jsonl(tmp_path / "rows.jsonl", [made.as_json(made.row(0)), {"index": "x"}])
    result = run("eval", "dialogues", str(rows), "--server", "http://127.0.0.1:9")
    assert "rows.jsonl:2: it is no dialogue" in result.err
    assert "1 rows of" in result.err
    assert "--on-error skip" in result.err


def test_reports_and_comparisons(run: Run, tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in "ab"]
    for name, met in (("a", True), ("b", False)):
        a_run(tmp_path / name, name, met)
    result = run("eval", "report", *folders, "--out", str(tmp_path / "report"))
    assert result.code == 0, result.err
    for text in (
        "all items of its checklist succeed",
        "Perceptual Accuracy",
        "Agreement of judges",
        "b less a",
        "this project's",
    ):
        assert text in result.out
    assert (tmp_path / "report" / "report.html").is_file()
    assert "has images beside it: give a folder" in run("eval", "report", *folders, "--out", str(tmp_path / "one.html")).err
    found = json.loads(run("eval", "report", folders[0], "--json", "--judged-by", "second").out)
    assert found["runs"][0]["judge"] == "second"
    assert found["runs"][0]["overall"]["items"]["mean"] < 1
    compared = json.loads(run("eval", "compare", *folders, "--json").out)["comparisons"][0]
    assert compared["differences"]["items"]["questions"] == 4
    assert "no verdicts of 'nobody'" in run("eval", "report", folders[0], "--judged-by", "nobody").err
    assert "no run on dialogues, and others are" in run("eval", "compare", folders[0], str(tmp_path)).err
