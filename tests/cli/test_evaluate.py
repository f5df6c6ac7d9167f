"""`multiverse eval NAME...` as a user calls it: names without a command, what is wrong in one line, a table, JSON, resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.evaluation.sample import read_run
from multiverse.structure import Document
from tests.cli.conftest import Result

Run = Callable[..., Result]


def test_help(run: Run) -> None:
    for line in (("eval",), ("eval", "--help"), ("eval", "-h")):
        shown = run(*line)
        assert shown.code == 0
        assert "NAME..." in shown.out
        assert "budget" in shown.out
    both = run("eval", "run", "--help").out
    assert "livecodebench" in both
    assert "--server" in both


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("aime34",), "unknown benchmark 'aime34': did you mean 'aime24'?"),
        (("chain", "--data", "chain"), "--data 'chain' is not valid: write it as math500=FILE"),
        (("math500", "--data", "math500=nowhere.jsonl"), "there is no file 'nowhere.jsonl'"),
        (("chain", "--temperature", "-1"), "--temperature -1.0 is not valid"),
        (("chain", "--limit", "0"), "--limit 0 is not valid"),
        (("chain", "--mode", "paralel"), "did you mean 'parallel'?"),
        (("chain", "--prompt", "both"), "--prompt is now called --mode"),
        (("chain", "--width", "3"), "width 3 given, but family 'chain' has no width"),
        (("tasks", "--family", "worksheet", "--n", "200"), "`eval tasks` is now `eval NAME...`: multiverse eval worksheet"),
        (("--limit", "3"), "missing argument 'NAME'"),
        (("chain", "--server", "ftp://x"), "'ftp://x' is not valid"),
    ],
)
def test_bad_input(run: Run, line: tuple[str, ...], message: str) -> None:
    result = run("eval", *line)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_without_inspect(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    result = run("eval", "chain", "--out", str(tmp_path))
    assert result.code == 2
    assert "multiverse-llm[eval]" in result.err


@pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")
def test_table_json_and_resuming(run: Run, writes: Callable[..., object], tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
    prompts: list[str] = []

    def write(prompt: str) -> Document:
        prompts.append(prompt)
        return Document(None, "Answer: 7")

    writes(write)
    out = tmp_path / "out"
    line = ("eval", "chain", "--limit", "3", "--max-tokens", "100", "--mode", "both", "--out", str(out))
    table = run(*line)
    assert (table.code, table.err) == (0, "")
    assert "chain" in table.out
    assert str(out / "zero" / "samples.jsonl") in table.out
    printed = json.loads(run(*line, "--json").out)
    assert [(row["mode"], row["answers"]) for row in printed["results"]] == [("parallel", 3), ("sequential", 3)]
    assert [entry["folder"] for entry in printed["runs"]] == [str(out / "multiverse"), str(out / "zero")]
    assert len(prompts) == 6
    assert ["in parallel" in prompt for prompt in sorted(prompts, key=lambda text: "in parallel" in text)] == [False] * 3 + [
        True
    ] * 3
    assert read_run(out / "zero").settings["prompt"] == "zero"
    other = run(*line, "--seed", "8")
    assert other.code == 2
    assert "holds a run with seed = 7, and this one has 8" in other.err


def test_help_imports_no_heavy_library() -> None:
    program = (
        "import sys\nfrom multiverse.cli import main\nmain(['eval', 'run', '--help'])\n"
        "heavy = {'inspect_ai', 'torch', 'transformers', 'sympy', 'datasets', 'httpx'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
