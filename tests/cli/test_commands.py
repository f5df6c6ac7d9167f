"""The commands, as they are meant to be used."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from multiverse import LLM, __version__
from multiverse.cli import main
from multiverse.cli.app import app
from multiverse.structure import MULTIVERSE, THREADWEAVER, Block, Document, parse, render
from multiverse.tasks import FAMILIES, Wording, generate
from tests.cli.conftest import Result
from tests.cli.scripted import NESTED, Write
from tests.standins import stand_in

Run = Callable[..., Result]
Writes = Callable[[Write], LLM]
SAMPLES = sorted((Path(__file__).parents[3] / "shared" / "samples").glob("*.xml"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"multiverse {__version__}\n", "")


@pytest.mark.parametrize(
    "args", [(), ("--help",), ("eval",), ("generate", "-h"), ("eval", "run", "--help"), ("show", "--help")]
)
def test_help(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert (code, err) == (0, "")
    assert "Example" in out
    assert "multiverse" in out


def test_help_through_typers_own_runner() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(name in result.output for name in ("generate", "eval", "tasks", "show"))


def test_generate_json(run: Run, writes: Writes) -> None:
    writes(lambda _: NESTED)
    code, out, err = run("generate", "How many?", "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    assert printed["text"] == render(NESTED)
    assert printed["answer"] == "34"
    assert printed["finish_reason"] == "stop"
    thinking = printed["tree"]["thinking"]
    assert thinking[1]["outlines"] == ["Red team", "Blue team"]
    assert thinking[1]["paths"][0][0]["conclusion"] == "3+10=13."
    assert thinking[1]["paths"][1] == ["20+1=21."]
    usage = printed["usage"]
    assert set(usage) == {
        *("prompt_tokens", "total_tokens", "critical_path_tokens", "parallelism", "seconds"),
        *("cached_tokens", "critical_path_steps", "reread_tokens"),
    }
    assert printed["closed"] == []
    assert 0 < usage["critical_path_steps"] < usage["critical_path_tokens"]
    assert usage["parallelism"] == usage["total_tokens"] / usage["critical_path_tokens"] > 1


def test_generate_json_of_a_generation_cut_short(run: Run, writes: Writes) -> None:
    writes(lambda _: NESTED)
    # It is closed by force, so there is a tree; a limit that leaves no room for that cuts.
    printed = json.loads(run("generate", "How many?", "--json", "--max-tokens", "20").out)
    assert printed["finish_reason"] == "length"
    assert printed["usage"]["total_tokens"] <= 20
    (text,) = printed["tree"]["thinking"]
    assert "Two teams.".startswith(text)
    assert printed["answer"] == printed["tree"]["answer"].strip()
    printed = json.loads(run("generate", "How many?", "--json", "--max-tokens", "1").out)
    assert (printed["finish_reason"], printed["tree"]) == ("length", None)


def test_generate_json_of_a_block_that_was_closed_for_a_limit(run: Run, writes: Writes) -> None:
    writes(lambda _: NESTED)
    printed = json.loads(run("generate", "How many?", "--json", "--max-tokens", "200").out)
    assert printed["finish_reason"] == "length"
    (_, block) = printed["tree"]["thinking"]
    assert block["outlines"] == ["Red team", "Blue team"]
    assert "20+1=21.".startswith(block["paths"][1][0])
    assert printed["closed"] == [{"branch": "1", "reason": "length"}]


@pytest.mark.parametrize(
    ("args", "reason", "told"),
    [
        (("--thinking-budget", "20", "--max-tokens", "200"), "budget", "--thinking-budget"),
        (("--max-critical-path-tokens", "20"), "budget", "--max-critical-path-tokens"),
        (("--max-seconds", "1e-9"), "deadline", "--max-seconds"),
        (("--max-tokens", "20"), "length", "--max-tokens"),
        (("--max-tokens", "20", "--no-guard"), "length", "--max-tokens"),
    ],
)
def test_generate_within_limits(run: Run, writes: Writes, args: tuple[str, ...], reason: str, told: str) -> None:
    writes(lambda _: NESTED)
    printed = json.loads(run("generate", "How many?", "--json", *args).out)
    assert printed["finish_reason"] == reason
    assert printed["usage"]["critical_path_tokens"] <= 20 or "--thinking-budget" in args
    assert (printed["tree"] is None) == ("--no-guard" in args)
    code, _, err = run("generate", "How many?", *args)
    assert code == 0
    assert told in err


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("--thinking-budget", "-1", "--thinking-budget -1"),
        ("--max-width", "0", "--max-width 0"),
        ("--max-seconds", "0", "--max-seconds 0"),
    ],
)
def test_generate_with_a_limit_of_none(run: Run, writes: Writes, option: str, value: str, name: str) -> None:
    writes(lambda _: NESTED)
    code, _, err = run("generate", "How many?", option, value)
    assert code == 2
    assert name in err


def test_generate_piped(run: Run, writes: Writes) -> None:
    writes(lambda _: NESTED)
    code, out, err = run("generate", "How many?")
    assert (code, err) == (0, "")
    text, answer, usage = out.rsplit("\n", 3)[:3]
    assert text == render(NESTED) + "\n"
    assert answer == "answer: 34"
    assert usage.startswith("usage: ")
    assert all(word in usage for word in ("tokens", "critical path", "parallelism", " s"))


def test_generate_piped_ends_before_a_stop_string(run: Run, writes: Writes) -> None:
    writes(lambda _: NESTED)
    # In the answer: what is thought is not cut.
    out = run("generate", "How many?", "--stop", "teams", "--stop", " 34").out
    assert out.startswith(render(NESTED).removesuffix(" 34") + "\n")


def test_generate_says_on_stderr_that_it_was_cut_short(run: Run, writes: Writes) -> None:
    writes(lambda _: NESTED)
    code, _, err = run("generate", "How many?", "--max-tokens", "20")
    assert code == 0
    assert err.startswith("closed before its end")
    assert "--max-tokens" in err


def test_generate_watched(writes: Writes, monkeypatch: pytest.MonkeyPatch) -> None:
    writes(lambda _: NESTED)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["generate", "How many?"]) == 0
    shown = terminal.getvalue()
    assert not any(tag in shown for tag in MULTIVERSE.tags)
    assert "Blue team" in shown
    assert "critical path" in shown
    assert shown.count("\x1b[?25h") >= shown.count("\x1b[?25l")  # the cursor is back


def interrupt(_: str) -> Document:
    raise KeyboardInterrupt


@pytest.mark.parametrize("watched", [True, False])
def test_interrupt(run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    llm = writes(interrupt)
    if watched:
        terminal = Terminal()
        monkeypatch.setattr("sys.stdout", terminal)
    result = run("generate", "How many?")
    assert (result.code, result.err) == (130, "interrupted\n")
    assert llm.engine.slots.owned == 0
    if watched:
        assert terminal.getvalue().count("\x1b[?25h") >= terminal.getvalue().count("\x1b[?25l")


def test_question_reaches_the_model(run: Run, writes: Writes, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []

    def write(prompt: str) -> Document:
        prompts.append(prompt)
        return Document(None, "ok")

    llm = writes(write)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("Wie viele? é\n".encode())))
    assert run("generate", "-").code == 0
    run("generate", "How many?", "--mode", "sequential")
    run("generate", " as it is ", "--raw")
    assert prompts == [
        "user: Wie viele? é Think step by step and in parallel before answering.\nassistant: ",
        "user: How many? Think step by step before answering.\nassistant: ",
        " as it is ",
    ]
    llm.tokenizer.chat_template = None
    result = run("generate", "hi")
    assert (result.code, "use --raw" in result.err) == (2, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks(run: Run, family: str) -> None:
    code, out, err = run("tasks", family, "--limit", "3", "--seed", "5")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    for line, problem in zip(lines, generate(family, 3, seed=5), strict=True):
        assert set(line) == {"question", "answer", "sequential", "structured"}
        assert (line["question"], line["answer"]) == (problem.question, problem.answer)
        assert parse(line["structured"]) == problem.structured
        assert parse(line["sequential"]) == problem.sequential


def test_tasks_width_and_depth(run: Run) -> None:
    out = run("tasks", "nested", "--limit", "1", "--depth", "3", "--split", "train").out
    assert parse(json.loads(out)["structured"]).depth == 3


def test_tasks_in_natural_wording(run: Run) -> None:
    out = run("tasks", "worksheet", "-n", "1", "--wording", "natural", "--phrasings", "train", "--steps", "5").out
    (problem,) = generate("worksheet", 1, seed=0, wording=Wording("natural", phrasings="train", steps=5))
    assert json.loads(out)["question"] == problem.question
    code, _, err = run("tasks", "worksheet", "--numbers", "heldout")
    assert (code, "add wording 'natural'" in err) == (2, True)


def test_show(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "document.xml"
    file.write_text(render(NESTED))
    code, out, err = run("show", str(file))
    assert (code, err) == (0, "")
    for wanted in (
        "block 1 2 paths",
        "block 2 1 path",
        "1.2 Tom",
        "⇒ 13+21=34.",
        "Answer: 34",
        "3 blocks, 5 branches, depth 2",
    ):
        assert wanted in out
    assert "words and tags" in out
    assert not any(tag in out for tag in MULTIVERSE.tags)


def test_show_json_from_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(render(NESTED).encode())))
    printed = json.loads(run("show", "-", "--json").out)
    assert (printed["blocks"], printed["branches"], printed["depth"]) == (3, 5, 2)
    assert printed["parallelism"] == printed["total_tokens"] / printed["critical_path_tokens"] > 1
    assert (printed["counted"], printed["dialect"]) == ("words and tags", "multiverse")
    assert printed["tree"]["answer"] == "Answer: 34"


def test_show_counts_a_models_tokens(run: Run, tmp_path: Path, model_folders: dict[str, Path]) -> None:
    file = tmp_path / "document.xml"
    file.write_text(render(Document(("four",), "x")))
    printed = json.loads(run("show", str(file), "--json", "--model", str(model_folders["qwen3"])).out)
    assert printed["total_tokens"] == 2 + len("\nfour\n") + len("\n\nx")  # a token a byte, a token a tag
    assert "qwen3" in printed["counted"]


def test_show_another_dialect(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "document.xml"
    file.write_text(render(Document((Block(("a",), (("x y",),), ""),), "z"), THREADWEAVER))
    assert "1 block, 1 branch, depth 1" in run("show", str(file), "--dialect", "threadweaver").out


@pytest.mark.skipif(not SAMPLES, reason="no sample documents beside the repository")
def test_show_samples(run: Run) -> None:
    for file in SAMPLES:
        printed = json.loads(run("show", str(file), "--json").out)
        assert printed["blocks"] >= 1
        assert printed["parallelism"] >= 1
        assert run("show", str(file)).code == 0


FAST = """
import sys
from multiverse.cli import main
for args in (["--help"], ["tasks", "chain", "--limit", "1"], ["show", "-"]):
    assert main(args) == 0
assert not {"torch", "transformers", "numpy"} & set(sys.modules), "too much was imported"
"""


def test_light_commands_import_neither_torch_nor_numpy() -> None:
    text = render(NESTED).encode()
    done = subprocess.run([sys.executable, "-c", FAST], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="pipes of another kind")
def test_closed_output_pipe() -> None:
    command = [sys.executable, "-m", "multiverse", "tasks", "chain", "--limit", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_models_says_of_which_family_a_model_is(run: Run, tmp_path: Path) -> None:
    folder = stand_in(tmp_path / "tiny", "npr")
    described = json.loads(run("models", str(folder), "--json").out)
    assert (described["preset"], described["dialect"]) == ("npr", "npr")
    assert described["known_by"] == "its tokenizer has the tags of npr"
    assert described["sampling"]["path_repetition_penalty"] == 1.02
    assert described["kv_bytes_per_token"] == 2 * 2 * 1 * 2 * 16
    assert described["memory_bytes"] == (folder / "model.safetensors").stat().st_size
    shown = run("models", str(folder)).out
    assert "preset: npr" in shown
    assert "template: enable_thinking=False" in shown
    away = json.loads(run("models", "bigai-NPR/NPR-4B", "--json").out)
    assert (away["preset"], away["kv_bytes_per_token"]) == ("npr", 147_456)
    assert away["note"] == "it is not at hand, so only its name is known"
    assert json.loads(run("models", "multiverse-32b", "--json").out)["known_by"] == "it is published by it"
    assert json.loads(run("models", "smollm2-360m", "--json").out)["preset"] is None
    missing = run("models", str(tmp_path / "none"))
    assert missing.code == 2
    assert "does not exist" in missing.err


def test_the_list_of_models_names_the_families(run: Run) -> None:
    listed = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    assert {name: row["preset"] for name, row in listed.items() if row["preset"]} == {
        "multiverse-32b": "multiverse",
        "npr-4b": "npr",
    }
    assert listed["multiverse-32b"]["kv_bytes_per_token"] == 262_144
    assert "threadweaver" in run("models").out


@pytest.mark.parametrize("mode", ["parallel", "as-is"])
def test_generate_asks_in_its_mode_alone(run: Run, writes: Writes, mode: str) -> None:
    prompts: list[str] = []
    writes(lambda prompt: (prompts.append(prompt), Document(("Well.",), "Answer: 4"))[1])
    assert run("generate", "--mode", mode, "What is it?").code == 0
    assert ("Think step by step" in prompts[0]) == (mode == "parallel")
