"""`--help` at 80 columns, completion in the shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from multiverse.cli import help as helping
from multiverse.cli import main
from multiverse.cli.app import app


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of a command and of all below it."""
    yield names
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *names, name)


ALL = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_help_fits_eighty_columns_and_leaves_no_word_alone(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*names, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(('multiverse', *names))} ")
    assert [line for line in lines if len(line) > 80] == []
    for before, line, after in zip(lines[:-1], lines[1:], [*lines[2:], ""], strict=True):
        last = len(after) - len(after.lstrip()) != len(line) - len(line.lstrip()) or not after.strip()
        continues = len(before) - len(before.lstrip()) == len(line) - len(line.lstrip()) and before.strip()
        if last and continues and line.startswith(" " * 30) and len(before.split()) > 1:
            assert len(line.split()) > 1 or line.strip().startswith("["), (before, line)
    assert "…" not in "".join(lines)


def test_lines_are_filled_and_end_with_more_than_one_word() -> None:
    assert helping.wrap("one two three four five", 14) == ["one two three", "four five"]
    assert helping.wrap("aaaa bbbb cccc dddd", 14) == ["aaaa bbbb", "cccc dddd"]  # not: dddd alone
    assert helping.wrap("take it [default: (all of them)]", 24) == ["take it", "[default: (all of them)]"]
    assert helping.wrap("line\nbreaks of   the source", 80) == ["line breaks of the source"]


def test_long_examples_go_on_as_a_shell_reads_them() -> None:
    line = f"multiverse eval {' '.join(['worksheet'] * 9)}"
    parts = list(helping._example(line, 80))
    assert all(len(part) <= 80 for part in parts)
    assert " ".join(part.strip().removesuffix("\\").strip() for part in parts) == line
    assert parts[0].endswith(" \\")


def offered(*words: str) -> list[str]:
    """What bash would be offered for the last word."""
    environment = {**os.environ, "_MULTIVERSE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["multiverse", *words])}
    environment["COMP_CWORD"] = str(len(words))
    code = "import sys; sys.argv[0] = 'multiverse'; from multiverse.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_commands_options_and_values() -> None:
    assert offered("ge") == ["generate"]
    assert offered("chat", "--top-") == ["--top-p", "--top-k"]
    assert offered("generate", "--mode", "s") == ["sequential"]
    assert "multiverse-mini" in offered("generate", "--model", "multi")
    assert "worksheet" in offered("tasks", "work")


def test_a_script_for_the_shell_is_printed() -> None:
    environment = {**os.environ, "_MULTIVERSE_COMPLETE": "source_bash"}
    code = "import sys; sys.argv[0] = 'multiverse'; from multiverse.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "_MULTIVERSE_COMPLETE=complete_bash" in done.stdout
