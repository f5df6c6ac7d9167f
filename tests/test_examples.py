"""The examples and the Python of the quickstart, run as they stand.

The one of OpenAI's client is in tests/serving/test_clients_example.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

import multiverse
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


def test_every_example_is_in_the_table() -> None:
    table = (FOLDER / "README.md").read_text()
    assert all(f"[{file.name}]({file.name})" in table for file in FOLDER.glob("*.py"))


def test_hello_fork(mini: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("hello_fork")
    monkeypatch.setattr(module, "LLM", lambda: nullcontext(mini))  # one for all tests
    module.main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "answer: 56"
    assert shown[1].startswith("  Mia: ")
    assert shown[2].startswith("  Tom: ")
    assert "41" in shown[2]
    assert float(shown[-1].split(": ")[1].split()[0]) > 1.2


def test_stream_lanes(mini: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("stream_lanes")
    monkeypatch.setattr(module, "LLM", lambda: nullcontext(mini))
    module.main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("fork into 1, 2, 3, ")
    assert sorted(line[:3] for line in shown[1:4]) == ["1: ", "2: ", "3: "]
    assert shown[4].startswith("join, ")
    assert shown[-1] == "answer: 97"


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


def test_the_quickstart_prints_what_it_says(
    mini: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(multiverse, "LLM", lambda: mini, raising=False)
    page = (FOLDER.parent / "docs" / "quickstart.md").read_text()
    found = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", page, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "quickstart.md", "exec"), {})
    assert capsys.readouterr().out == found[2]
