"""All commands together: one name for one thing, explained once, and earlier names refused."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from multiverse.cli.app import app
from multiverse.cli.declared import RENAMED, renamed_option
from multiverse.engine import SamplingParams
from multiverse.options import declared
from tests.cli.conftest import Result

SOURCE = Path(__file__).parents[2] / "src" / "multiverse" / "cli"


def commands(path: tuple[str, ...] = (), command: Any = None) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, with the words that call it."""
    command = typer.main.get_command(app) if command is None else command
    inner = getattr(command, "commands", {})
    if not inner:
        yield path, command
    for name, one in inner.items():
        yield from commands((*path, name), one)


def options() -> Iterator[tuple[str, str, str]]:
    """Command, long option and help of every option."""
    for path, command in commands():
        for param in command.params:
            if param.param_type_name == "option":
                yield " ".join(path), next(name for name in param.opts if name.startswith("--")), param.help or ""


def test_there_are_commands_to_look_at() -> None:
    assert {("generate",), ("serve",), ("curate", "distill"), ("data", "build")} <= {path for path, _ in commands()}


def test_every_option_is_explained() -> None:
    assert [(command, name) for command, name, text in options() if not text.endswith((".", "?"))] == []


def typer_options() -> Iterator[tuple[str, str]]:
    """Long name and place of each option that the source declares with ``typer.Option``."""
    for file in sorted(SOURCE.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option":
                names = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
                yield from ((name, f"{file.name}:{node.lineno}") for name in names if name.startswith("--"))


def test_no_option_is_declared_twice_in_the_source() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in typer_options():
        places[name].append(place)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_options_named_after_a_sampling_parameter_mean_it() -> None:
    fields = {f"--{name.replace('_', '-')}": own.help for name, own in declared(SamplingParams).items()}
    assert [(command, name) for command, name, text in options() if text != fields.get(name, text)] == []


# Of `serve`, the key that clients have to give; of other commands, the one that is given to a server.
SEVERAL_TEXTS = {"--api-key"}


def test_one_name_has_one_meaning_in_all_commands() -> None:
    texts: dict[str, set[str]] = defaultdict(set)
    for _, name, text in options():
        texts[name].add(text)
    assert {name: found for name, found in texts.items() if len(found) > 1 and name not in SEVERAL_TEXTS} == {}


def test_no_option_has_a_name_that_was_given_up() -> None:
    known: dict[str, set[str]] = defaultdict(set)
    for command, name, _ in options():
        known[command].add(name)
    assert [(command, name) for command, names in known.items() for name in names if renamed_option(name, names)] == []


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_earlier_names_are_refused_with_the_new_one(run: Callable[..., Result], path: tuple[str, ...]) -> None:
    command = dict(commands())[path]
    known = {name for param in command.params for name in param.opts}
    arguments = ["x" for param in command.params if param.param_type_name == "argument" and param.required]
    for old in RENAMED.keys() - known:
        if (new := renamed_option(old, known)) is not None:
            result = run(*path, *arguments, old, "3")
            assert (result.code, result.out, result.err) == (2, "", f"error: {old} is now called {new}\n")
