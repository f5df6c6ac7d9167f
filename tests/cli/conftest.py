"""A command line that is called in this process, and a model that writes on command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from multiverse import LLM
from multiverse.cli import main
from multiverse.engine import Event
from tests.cli.scripted import NESTED, Write, scripted_llm


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line; returns its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args: str) -> Result:
        capsys.readouterr()
        code = main(args)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def writes(model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[Write], LLM]:
    """Make every command's model write what the function makes of its prompt."""

    def writes(write: Write) -> LLM:
        llm = scripted_llm(model_folders["qwen3"], write)

        monkeypatch.setattr("multiverse.cli.loading.ModelOptions.load", lambda _: llm)
        return llm

    return writes


@pytest.fixture(scope="session")
def nested_events(model_folders: dict[str, Path]) -> list[Event]:
    """The events of a model that generates `NESTED`."""
    return list(scripted_llm(model_folders["qwen3"], lambda _: NESTED).stream("Q"))
