"""Options of commands made from dataclasses: names, defaults, help, values, messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from multiverse.cli import entry
from multiverse.cli.declared import RENAMED, Fields, Json, expand_options, renamed_option
from multiverse.cli.errors import InputError
from multiverse.errors import RequestError
from multiverse.options import Options, option


@dataclass(frozen=True)
class Sampling(Options):
    """An example."""

    error: ClassVar[type[Exception]] = RequestError

    top_p: float = option(0.5, "How much.", gt=0, le=1, metavar="P", group="Sampling")
    max_path_tokens: int | None = option(None, "Longest path.", ge=1, was="longest_path")
    seed: int | None = option(None, "Makes it repeatable.", show_default="random", flag="-s")
    mode: Literal["parallel", "sequential"] = option("parallel", "How.")
    guard: bool = option(True, "Allow legal tags only.")
    raw: bool = option(False, "No template.")
    stop: tuple[str, ...] = option((), "End before this text.")
    betas: list[float] = option(factory=lambda: [0.9, 0.99], help="Momenta.", ge=0)
    api_keys: tuple[str, ...] = option((), "A key.", name="--api-key", env="EXAMPLE_KEY")
    folder: Path = option(Path("runs"), "Where.")
    bias: dict[int, float] = option(factory=dict, help="No option can give it.")
    derived: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed == 13:
            raise RequestError("seed=13 is not valid: it must be another")
        if self.seed == 14:
            raise RequestError("no seed is 14")


@dataclass(frozen=True)
class Server(Options):
    """An example with a value that must be given."""

    url: str = option(help="Where it listens.", metavar="URL")
    port: int = option(8000, "Its port.", flag="-p")


Run = Callable[..., Any]
OFFERED = Fields(leave_out=("bias",), defaults={"top_p": 0.25, "bias": {1: 2.0}})


def application(command: Callable[..., None]) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command()(command)
    return app


@pytest.fixture
def given() -> tuple[typer.Typer, list[Any]]:
    """A command that keeps what it was called with."""
    calls: list[Any] = []

    @expand_options
    def command(
        question: Annotated[str, typer.Argument()],
        sampling: Annotated[Sampling, OFFERED],
        as_json: Json = False,
    ) -> None:
        """Ask."""
        calls.append((question, sampling, as_json))

    return application(command), calls


def call(given: tuple[typer.Typer, list[Any]], *args: str) -> Any:
    app, calls = given
    CliRunner().invoke(app, args, catch_exceptions=False)
    return calls.pop()


def test_defaults_are_the_commands_else_the_declared_ones(given: tuple[typer.Typer, list[Any]]) -> None:
    assert call(given, "Q") == ("Q", Sampling(top_p=0.25, bias={1: 2.0}), False)


def test_every_kind_of_value(given: tuple[typer.Typer, list[Any]]) -> None:
    numbers = ["--top-p", "1", "--max-path-tokens", "7", "-s", "3", "--betas", "0", "--betas", "0.5"]
    texts = ["--mode", "sequential", "--stop", "a", "--stop", "b", "--folder", "x", "--api-key", "k"]
    question, sampling, as_json = call(given, "Q", *numbers, *texts, "--no-guard", "--raw", "--json")
    assert (question, as_json) == ("Q", True)
    assert sampling == Sampling(
        top_p=1.0,
        max_path_tokens=7,
        seed=3,
        mode="sequential",
        guard=False,
        raw=True,
        stop=("a", "b"),
        betas=[0.0, 0.5],
        api_keys=("k",),
        folder=Path("x"),
        bias={1: 2.0},
    )


def test_an_environment_variable(given: tuple[typer.Typer, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "secret")
    assert call(given, "Q")[1].api_keys == ("secret",)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--top-p", "2"], "--top-p 2.0 is not valid: it must be a number above 0 and at most 1"),
        (["--max-path-tokens", "0"], "--max-path-tokens 0 is not valid: it must be a whole number of 1 or more"),
        (["--betas", "-1"], "--betas [-1.0] is not valid: it must be a list, each a number of 0 or more"),
        (["--mode", "paralel"], "--mode 'paralel' is not valid: did you mean 'parallel'?"),
        (["--mode", "wide"], "--mode 'wide' is not valid: choose parallel, sequential"),
        (["--seed", "13"], "--seed 13 is not valid: it must be another"),
    ],
)
def test_bad_values_are_named_by_their_option(given: tuple[typer.Typer, list[Any]], args: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call(given, "Q", *args)
    assert str(caught.value) == message


def test_other_errors_are_left_as_they_are(given: tuple[typer.Typer, list[Any]]) -> None:
    with pytest.raises(RequestError, match=r"^no seed is 14$"):
        call(given, "Q", "--seed", "14")


def test_help_has_the_declared_text_group_and_default(
    given: tuple[typer.Typer, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = CliRunner().invoke(given[0], ["--help"]).output
    lines = {line.split()[1]: line for line in text.splitlines() if len(line.split()) > 2}
    assert "Sampling" in text
    assert "P  " in lines["--top-p"]
    assert "How much. [default: 0.25]" in lines["--top-p"]
    assert "Longest path. [default: (none)]" in lines["--max-path-tokens"]
    assert "-s" in lines["--seed"]
    assert "Makes it repeatable. [default: (random)]" in lines["--seed"]
    assert "parallel|sequential" in lines["--mode"]
    assert "[default: guard]" in text
    assert "--no-raw" not in text
    assert "[default: 0.9, 0.99]" in lines["--betas"]
    assert "default" not in lines["--stop"]
    assert "--bias" not in text


def test_values_that_must_be_given_and_only_given_ones() -> None:
    calls: list[Any] = []

    @expand_options
    def command(server: Server, sampling: Annotated[dict[str, Any], Fields(of=Sampling, only=("top_p", "seed"))]) -> None:
        calls.append((server, sampling))

    app = application(command)
    missing = CliRunner().invoke(app, [])
    assert missing.exit_code == 2
    assert "--url" in missing.output
    CliRunner().invoke(app, ["--url", "u"], catch_exceptions=False)
    CliRunner().invoke(app, ["--url", "u", "-p", "1", "--top-p", "0.5"], catch_exceptions=False)
    assert calls == [(Server("u"), {}), (Server("u", 1), {"top_p": 0.5})]
    with pytest.raises(InputError, match=r"--top-p 3\.0 is not valid"):
        CliRunner().invoke(app, ["--url", "u", "--top-p", "3"], catch_exceptions=False)


def test_mistakes_in_a_declaration_are_found_when_the_command_is_made() -> None:
    def unknown(sampling: Annotated[Sampling, Fields(leave_out=("bias", "top_q"))]) -> None: ...
    def mapping(sampling: Sampling) -> None: ...
    def twice(first: Server, second: Server) -> None: ...

    with pytest.raises(TypeError, match="Sampling has no field top_q"):
        expand_options(unknown)
    with pytest.raises(TypeError, match=r"Sampling\.bias is dict\[int, float\], which no option can give: leave it out"):
        expand_options(mapping)
    with pytest.raises(ValueError, match="duplicate parameter name"):
        expand_options(twice)


def test_earlier_names_are_refused_with_the_new_one(
    given: tuple[typer.Typer, list[Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RENAMED["--longest-path"] == ("--max-path-tokens",)
    assert renamed_option("--longest-path", {"--seed"}) is None
    monkeypatch.setattr("multiverse.cli.app.app", given[0])
    assert entry.main(["Q", "--longest-path", "3"]) == 2
    assert capsys.readouterr().err == "error: --longest-path is now called --max-path-tokens\n"
