"""The examples and the Python of the quickstart, run as they stand.

The one of OpenAI's client is in tests/serving/test_clients_example.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from multiverse import LLM
from multiverse.structure import parse

FOLDER = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mini() -> LLM:
    return LLM()


@pytest.fixture
def one_model(mini: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LLM()` is the same model in every example."""
    monkeypatch.setattr(LLM, "__new__", lambda _: mini)
    monkeypatch.setattr(LLM, "__init__", lambda _: None)
    monkeypatch.setattr(LLM, "__exit__", lambda *_: None)


def test_every_example_is_in_the_table() -> None:
    table = (FOLDER / "README.md").read_text()
    assert all(f"[{file.name}]({file.name})" in table for file in FOLDER.glob("*.py"))


@pytest.mark.usefixtures("one_model")
def test_hello_fork(capsys: pytest.CaptureFixture[str]) -> None:
    example("hello_fork").main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "answer: 56"
    assert shown[1].startswith("  Mia: ")
    assert shown[2].startswith("  Tom: ")
    assert "41" in shown[2]
    assert float(shown[-1].split(": ")[1].split()[0]) > 1.2


@pytest.mark.usefixtures("one_model")
def test_stream_lanes(capsys: pytest.CaptureFixture[str]) -> None:
    example("stream_lanes").main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("fork into 1, 2, 3, ")
    assert sorted(line[:3] for line in shown[1:4]) == ["1: ", "2: ", "3: "]
    assert shown[4].startswith("join, ")
    assert shown[-1] == "answer: 97"


@pytest.mark.usefixtures("one_model")
def test_evaluate_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
    example("evaluate_and_compare").main(str(tmp_path), "3")
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("pass@1", "critical_path_tokens"))]
    assert len(shown) == 2
    change = float(shown[1].split("difference ")[1].split(",")[0])
    assert change < -20  # tokens: the longest chain is shorter


def test_write_a_dialect(capsys: pytest.CaptureFixture[str]) -> None:
    example("write_a_dialect").main()
    shown = capsys.readouterr().out
    assert "<lanes>\n<plan>\n<lane>\n1: bread" in shown
    assert "a wrong label: " in shown


def test_write_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    example("write_a_task").main("5")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 5
    for row in rows:
        document = parse(row["structured"])
        assert document.branches == row["question"].count(" by ")
        assert row["structured"].endswith(f"Answer: {row['answer']}")


@pytest.mark.usefixtures("one_model")
def test_the_quickstart_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = (FOLDER.parent / "docs" / "quickstart.md").read_text()
    found = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", page, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "quickstart.md", "exec"), {})
    assert capsys.readouterr().out == found[2]
