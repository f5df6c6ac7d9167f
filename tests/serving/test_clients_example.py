"""Examples of clients against a server with the embedded model."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.needs import missing
from tests.serving.conftest import Site
from tests.serving.test_clients import ENVIRONMENTS

FOLDER = Path(__file__).parents[2] / "examples"


def test_the_example_of_openais_client(mini: Site, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai", reason="the extra [curate] is not installed")
    example = runpy.run_path(str(FOLDER / "openai_client.py"))
    example["main"](f"{mini.url}/v1")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith("56")
    assert {line[:3] for line in shown[1:3]} == {"1: ", "2: "}
    assert shown[-1].startswith("answer: 56 (")


def test_the_example_in_javascript(mini: Site, tmp_path: Path) -> None:
    packages = Path(__file__).parent / "openai_node" / "node_modules"
    if shutil.which("node") is None:
        missing("node is not installed")
    if not (packages / "openai").is_dir():
        missing("the npm package is not installed: npm install --prefix tests/serving/openai_node")
    shutil.copy(FOLDER / "openai_client.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    program = ["node", "openai_client.mjs", f"{mini.url}/v1"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert {line[:3] for line in shown[:2]} == {"1: ", "2: "}
    assert shown[-1].startswith("answer: 56 (")


@pytest.mark.slow
def test_the_example_of_langchain(mini: Site) -> None:
    python = ENVIRONMENTS / "langchain" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no environment {ENVIRONMENTS / 'langchain'}: make clients")
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = [str(python), str(FOLDER / "langchain_client.py"), f"{mini.url}/v1"]
    done = subprocess.run(program, env=inherited, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert shown[0].endswith("56")
    assert int(shown[1].split()[1]) > 100
    assert [line.split()[-1] for line in shown[2:]] == ["56", "58", "59"]
