"""Measures of a source tree, on a tree small enough to count by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.size import Measures, components, levels, measure, table

FILES = {
    "src/multiverse/__init__.py": "from .llm import LLM\n",
    "src/multiverse/llm.py": "from .engine import events\nclass LLM: ...\n",
    "src/multiverse/engine/__init__.py": "",
    "src/multiverse/engine/events.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .tree import Tree\nclass TokenEvent: ...\n"
    ),
    "src/multiverse/engine/tree.py": "from .events import TokenEvent\nfrom . import slots\nclass Tree: ...\n",
    "src/multiverse/engine/slots.py": "",
    "src/multiverse/engine/aio.py": "from .tree import Tree\nclass AsyncEngine: ...\nclass Mailbox: ...\n",
    "src/multiverse/serving/__init__.py": "",
    "src/multiverse/serving/chat.py": (
        "from .stream import Stream\nfrom .wire import Form\nfrom .errors import Refused\n"
        "def answer(a, b, c, d, e, f, g, h, i):\n    from ..engine.aio import AsyncEngine\n"
    ),
    "src/multiverse/serving/completions.py": "from .stream import Stream\n",
    "src/multiverse/serving/stream.py": (
        "from ..engine.events import TokenEvent\nclass Stream: ...\nclass Chunk(BaseModel): ...\nclass Delta(Chunk): ...\n"
        "class LostError(RuntimeError): ...\nclass CutError(Exception): ...\n"
    ),
    "src/multiverse/serving/wire.py": "class Form: ...\n",
    "src/multiverse/serving/errors.py": "class Refused(Exception): ...\n",
    "src/multiverse/cli.py": (
        "import typer\nA = typer.Option('--seed', '-s')\nB = typer.Option('--seed')\nC = typer.Option('--n')\n"
        "def f(port: Annotated[int, typer.Option(min=0)], page: Annotated[int, typer.Option('--port')]): ...\n"
        "class P:\n    seed: int = option(1)\nclass Q:\n    seed: int = option(1)\n    n: int = 3\n"
    ),
    "src/multiverse/long.py": "def long():\n" + "    pass\n" * 60 + "X = 1\n" * 340,
    "tests/test_a.py": "\n" * 5,
}


@pytest.fixture
def measures(tmp_path: Path) -> Measures:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return measure(tmp_path)


def test_how_much_there_is(measures: Measures) -> None:
    assert measures.figures["lines of tests"] == 5
    assert (measures.figures["modules of src"], measures.figures["modules of tests"]) == (15, 1)
    assert measures.lists["functions over 60 lines"] == ["multiverse.long.long: 61"]
    assert measures.lists["modules over 400 lines"] == ["long.py: 401"]
    assert measures.lists["functions over 8 parameters"] == ["multiverse.serving.chat.answer: 9"]


def test_imports(measures: Measures) -> None:
    assert measures.lists["import cycles, runtime"] == []
    assert measures.lists["import cycles, with TYPE_CHECKING"] == ["multiverse.engine.events multiverse.engine.tree"]
    assert measures.figures["levels inside engine"] == 3  # aio, tree, events or slots


def test_options(measures: Measures) -> None:
    assert measures.lists["options declared more than once"] == ["--port: 2", "--seed: 2"]
    assert measures.lists["fields declared more than once"] == ["seed: 2"]


def test_classes_between_the_engine_and_the_client(measures: Measures) -> None:
    # Without forms of requests, pydantic models, exceptions, LLM, and what the engine has below.
    assert measures.lists["classes from AsyncEngine to SSE"] == [
        "multiverse.engine.aio.AsyncEngine",
        "multiverse.engine.aio.Mailbox",
        "multiverse.serving.stream.Stream",
    ]


def test_components_and_levels() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set[str](), "e": {"a"}}
    assert components(edges) == [{"d"}, {"b", "c"}, {"a"}, {"e"}]
    assert levels(edges) == 4
    assert levels({}) == 0


def test_the_table_has_both_sides(measures: Measures) -> None:
    shown = table({"before": measures, "after": measures})
    line = next(line for line in shown.splitlines() if line.startswith("modules of src"))
    assert line.split()[-2:] == ["15", "15"]


def test_it_can_read_this_project() -> None:
    root = Path(__file__).parents[2]
    measures = measure(root)
    files = list((root / "src").rglob("*.py"))
    assert measures.figures["modules of src"] == len(files)
    assert measures.figures["lines of src"] == sum(len(file.read_text().splitlines()) for file in files)
    names = set(re.findall(r"^ *class (\w+)", "\n".join(file.read_text() for file in files), re.MULTILINE))
    found = {name.rpartition(".")[2] for name in measures.lists["classes from AsyncEngine to SSE"]}
    assert "AsyncEngine" in found
    assert found <= names
