"""examples/openai_client.py against a server with the embedded model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.serving.conftest import Site

pytest.importorskip("openai", reason="the extra [curate] is not installed")


def test_the_example_of_openais_client(mini: Site, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "openai_client.py"))
    example["main"](f"{mini.url}/v1")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith("56")
    assert {line[:3] for line in shown[1:3]} == {"1: ", "2: "}
    assert shown[-1].startswith("answer: 56 (")
