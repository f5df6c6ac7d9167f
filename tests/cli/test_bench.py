"""`multiverse bench`: tables, JSON and a page, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.bench.config import BenchConfig
from multiverse.errors import ConfigError
from tests.cli.conftest import Result


def test_the_command_prints_a_table_or_json_and_writes_a_page(
    run: Callable[..., Result], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    sizes = ("--rows", "1", "--rows", "2", "--prefixes", "64", "--decode-steps", "2", "--rounds", "1", "--against", "none")
    code, out, err = run("bench", "-m", str(model_folders["qwen3"]), *sizes, "--out", str(tmp_path / "out"), "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads((tmp_path / "out" / "report.json").read_text())
    assert err.endswith(f"wrote {tmp_path / 'out' / 'report.html'}\n")
    code, out, _ = run("bench", "-m", str(model_folders["qwen3"]), *sizes)
    assert code == 0
    assert "multiverse, branches" in out
    assert "\nA document of one block, from fork to join, beside as many tokens in a line\n" in out
    assert "times as fast" in out
    assert max(map(len, out.splitlines()[1:])) <= 100


def test_bad_options_are_told_before_anything_is_loaded(run: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="against=none goes with no other"):
        BenchConfig(against=("none", "vllm"))
    assert "did you mean 'generate'?" in run("bench", "--against", "generat").err
    assert "--rows" in run("bench", "--rows", "0").err
    (tmp_path / "file").write_text("")
    assert "give an .html file, or a folder" in run("bench", "--out", str(tmp_path / "file")).err
