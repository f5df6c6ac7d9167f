"""Groups whose command `run` may be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from multiverse.cli.groups import HELP_OPTIONS, RunByDefault

app = typer.Typer(cls=RunByDefault, context_settings=HELP_OPTIONS)


@app.command()
def run(name: str) -> None:
    typer.echo(f"run {name}")


@app.command()
def audit(name: str) -> None:
    typer.echo(f"audit {name}")


@pytest.mark.parametrize(
    ("args", "printed"),
    [(["x"], "run x"), (["run", "x"], "run x"), (["audit", "x"], "audit x"), (["a file.jsonl"], "run a file.jsonl")],
)
def test_a_first_word_that_is_no_command_is_what_run_takes(args: list[str], printed: str) -> None:
    assert CliRunner().invoke(app, args).output == f"{printed}\n"


def test_a_typing_error_is_reported_as_one_but_a_file_of_that_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    invoke: Callable[..., str] = lambda *args: CliRunner().invoke(app, args).output  # noqa: E731
    assert "No such command 'audi'" in invoke("audi")
    Path("audi").touch()
    assert invoke("audi") == "run audi\n"


def test_help() -> None:
    assert "audit" in CliRunner().invoke(app, ["-h"]).output
