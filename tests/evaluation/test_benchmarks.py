"""Benchmarks: rows in each one's own columns become questions, right answers are right, and bad rows are told by number."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from multiverse.errors import DataError
from multiverse.evaluation.benchmarks import BENCHMARKS, Question
from multiverse.evaluation.benchmarks import questions as read_questions
from multiverse.evaluation.config import EvaluationConfig
from multiverse.tasks import FAMILIES, Wording, generate
from tests.evaluation.rows import RIGHT, ROWS, WRONG, write


def questions(name: str, path: Path | None = None, **changes: Any) -> list[Question]:
    """The questions of a benchmark, read from a file."""
    data = {} if path is None else {name: str(path)}
    return read_questions(BENCHMARKS[name], EvaluationConfig((name,), data=data, **changes))


PUBLISHED = ("aime24", "aime25", "math500", "gpqa", "ifeval", "livecodebench")


def test_all_are_there() -> None:
    assert tuple(BENCHMARKS) == (*PUBLISHED, *FAMILIES)
    assert {name: BENCHMARKS[name].epochs for name in PUBLISHED} == {
        "aime24": 8,
        "aime25": 8,
        **dict.fromkeys(("math500", "gpqa", "ifeval", "livecodebench"), 1),
    }
    assert all(BENCHMARKS[name].hub is not None for name in PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_right_and_wrong_answers(name: str, tmp_path: Path) -> None:
    if name == "ifeval":
        pytest.importorskip("langdetect", reason="the extra [eval] is not installed")
    elif name in ("aime24", "aime25", "math500"):
        pytest.importorskip("math_verify", reason="the extra [eval] is not installed")
    benchmark, asked = BENCHMARKS[name], questions(name, path=write(tmp_path, name))
    assert len(asked) == len({question.id for question in asked}) == 2
    for question, right, wrong in zip(asked, RIGHT[name], WRONG[name], strict=True):
        good, bad = benchmark.grade(question, right), benchmark.grade(question, wrong)
        assert good.right, (question, right, good.why)
        assert not bad.right, (question, wrong)


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str) -> None:
    first, again, other = (questions(name, limit=3, seed=seed) for seed in (7, 7, 8))
    assert [question.text for question in first] == [question.text for question in again] != [q.text for q in other]
    assert [question.id for question in first] == ["0", "1", "2"]
    for question in first:
        assert BENCHMARKS[name].grade(question, question.expected).right
        assert not BENCHMARKS[name].grade(question, "-1").right


def test_questions_say_what_is_wanted(tmp_path: Path) -> None:
    asked = {name: questions(name, path=write(tmp_path, name)) for name in PUBLISHED}
    assert [question.id for question in asked["aime24"]] == ["60", "2024-II-4"]
    assert asked["math500"][0].id == "test/algebra/1.json"
    assert asked["gpqa"][0].id == "rec1"
    assert asked["gpqa"][0].text.count(") ") == 4
    assert asked["gpqa"][0].expected in "ABCD"
    assert asked["ifeval"][0].text == ROWS["ifeval"][0]["prompt"]
    assert "standard input" in asked["livecodebench"][0].text
    assert "def double" in asked["livecodebench"][1].text
    assert asked["livecodebench"][0].expected == "a program that passes 2 tests"


def test_choices_are_shuffled_the_same_way_every_time(tmp_path: Path) -> None:
    path = tmp_path / "gpqa.jsonl"
    rows = [{**ROWS["gpqa"][0], "Question": f"Question {n}?", "Record ID": f"r{n}"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    letters = [question.expected for question in questions("gpqa", path=path)]
    assert letters == [question.expected for question in questions("gpqa", path=path)]
    assert set(letters) == set("ABCD")
    assert letters[:5] == [question.expected for question in questions("gpqa", path=path, limit=5)]


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra [eval] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "ifeval.parquet"
    parquet.write_table(arrow.Table.from_pylist(ROWS["ifeval"]), path)
    from_lines = questions("ifeval", path=write(tmp_path, "ifeval"))
    assert questions("ifeval", path=path) == from_lines
    assert questions("ifeval", path=path, limit=1) == from_lines[:1]
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not Parquet"):
        questions("ifeval", path=path)


def changed(name: str, **values: Any) -> list[dict[str, Any]]:
    return [{**ROWS[name][0], **values}]


EVIL = base64.b64encode(zlib.compress(pickle.dumps(os.getcwd))).decode()


@pytest.mark.parametrize(
    ("name", "rows", "told"),
    [
        ("aime24", [{"id": 1, "problem": "?"}], "row 1 has no answer"),
        ("math500", [*ROWS["math500"], {"answer": "3"}], "row 3 has no problem or question: its columns are answer"),
        ("aime25", [ROWS["aime25"][0], ROWS["aime25"][0]], "2 rows but only 1 ids"),
        ("gpqa", [{"Question": "?", "Correct Answer": "x"}], "row 1 has no Incorrect Answer 1"),
        ("ifeval", changed("ifeval", instruction_id_list=["no:such"]), "no:such"),
        ("ifeval", changed("ifeval", kwargs=[{"num_words": 3}]), "wrong arguments for punctuation:no_comma"),
        ("ifeval", changed("ifeval", kwargs=[]), "1 instructions and arguments for 0"),
        ("livecodebench", changed("livecodebench", public_test_cases="[]", private_test_cases="[]"), "no tests"),
        ("livecodebench", changed("livecodebench", private_test_cases=EVIL), "getcwd, and only text is expected"),
        ("livecodebench", changed("livecodebench", private_test_cases="%%%"), "private tests that cannot be read"),
        ("livecodebench", [{**ROWS["livecodebench"][1], "metadata": "{}"}], "no func_name"),
        ("livecodebench", changed("livecodebench", metadata="7"), "no JSON object"),
    ],
)
def test_bad_rows(name: str, rows: list[dict[str, Any]], told: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=told):
        questions(name, path=path)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("a.csv", "x", "the file type is not supported"),
        ("a.jsonl", "", "a.jsonl:1: the file is empty"),
        ("a.jsonl", '\n{"answer": 3\n', "a.jsonl:2: the line breaks off"),
        ("a.jsonl", "[3]\n", "a.jsonl:1: the record is no JSON object"),
        ("missing.jsonl", None, "no such file"),
    ],
)
def test_bad_files(file: str, text: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / file
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=told):
        questions("aime24", path=path)


def test_families_are_not_read() -> None:
    with pytest.raises(DataError, match="are generated"):
        questions("chain", path=Path("chain.jsonl"))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("chain", {"width": 2}, "width 2 given, but family 'chain' has no width"),
        ("nested", {"depth": 9}, "depth 9 is out of range"),
        ("math500", {"width": 2}, "math500 has no width"),
        ("math500", {"wording": "natural"}, "math500 has no wording"),
        ("worksheet", {"numbers": "heldout"}, "numbers 'heldout' given, but plain wording"),
        ("lookup", {"wording": "plain"}, "family 'lookup' has natural wording only"),
    ],
)
def test_shape_and_wording_are_checked(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        questions(name, **changes)


def test_width_and_depth_of_families() -> None:
    (question,) = questions("nested", limit=1, width=2, depth=3)
    assert question.text == generate("nested", 1, seed=7, width=2, depth=3)[0].question


def test_wording_of_families() -> None:
    (question,) = questions("worksheet", limit=1, wording="natural", vocabulary="train", steps=6)
    (expected,) = generate("worksheet", 1, seed=7, wording=Wording("natural", vocabulary="train", steps=6))
    assert question.text == expected.question


def test_an_unreachable_hub_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra [eval] is not installed")

    def refuse(*asked: Any, **options: Any) -> Any:
        raise ConnectionError(f"no way to {asked} {options}")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"the rows of math500 cannot be loaded: .*'test'.*--data math500=FILE"):
        questions("math500")
    with pytest.raises(DataError, match=r"hf://datasets/livecodebench/code_generation_lite/test6.jsonl"):
        questions("livecodebench")
