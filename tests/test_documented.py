"""Every block of code in the documentation: what can run here runs, of the rest at least names and options are checked."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import yaml

import multiverse
from multiverse.cli.app import app
from multiverse.errors import ConfigError
from tests.documented import PAGES, ROOT, Block, blocks, commands, without_redirections

if TYPE_CHECKING:
    from multiverse import LLM

COMMAND = typer.main.get_command(app)
BLOCKS = blocks()
SHELL = [block for block in BLOCKS if block.language == "sh"]
QUESTION = "Mia starts with 7 and adds 5. Tom starts with 9 and doubles it. What is the total?"


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def test_blocks_are_found() -> None:
    assert len(SHELL) > 60
    assert len(of("python")) > 12
    assert len(of("yaml")) > 5
    assert {block.page for block in SHELL} >= {"README.md", "CONTRIBUTING.md", "docs/quickstart.md", "docs/serving.md"}
    assert all(
        block.code.splitlines()[0].strip() in (ROOT / block.page).read_text().splitlines()[block.line - 1] for block in BLOCKS
    )


def test_what_is_not_run_says_why() -> None:
    markers = sum(page.read_text().count("<!-- not run:") for page in PAGES)
    assert markers == sum(bool(block.reason) for block in BLOCKS)
    assert all(len(block.reason) > 5 for block in BLOCKS if block.reason)


# Shell


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands that were understood; none is carried out."""
    seen: list[str] = []

    def invoke(_: Any, context: Any) -> None:
        seen.append(context.command_path)

    monkeypatch.setattr(typer.core.TyperCommand, "invoke", invoke)
    return seen


def parse(args: list[str]) -> None:
    COMMAND.main(args, prog_name="multiverse", standalone_mode=False)


@pytest.mark.parametrize("page", sorted({block.page for block in SHELL}))
def test_every_command_of_the_package_is_understood(page: str, parsed: list[str]) -> None:
    for block in SHELL:
        if block.page == page:
            for words in commands(block.code):
                words = without_redirections(words)
                if words[0] == "torchrun":
                    words = words[words.index("multiverse") :]
                if words[0] == "multiverse":
                    before = len(parsed)
                    try:
                        parse(words[1:])
                    except typer._click.exceptions.ClickException as error:
                        pytest.fail(f"{block}: {' '.join(words)}: {error.format_message()}")
                    assert len(parsed) == before + 1, f"{block}: {words}"


def test_a_wrong_option_and_a_wrong_value_are_found(parsed: list[str]) -> None:
    for words in (["generate", "--no-such-option", "x"], ["eval", "worksheet", "--limit", "many"], ["no-such-command"]):
        with pytest.raises(typer._click.exceptions.ClickException):
            parse(words)
    assert parsed == []


def source_of(module: str) -> str:
    """A program's source, and that of what it imports from its own folder."""
    file = ROOT / Path(*module.split("."))
    file = file / "__main__.py" if file.is_dir() else file.with_suffix(".py")
    text = file.read_text()
    for inner in re.findall(rf"from ({module.split('.')[0]}[\w.]*) import", text):
        other = (ROOT / Path(*inner.split("."))).with_suffix(".py")
        text += other.read_text() if other.is_file() else ""
    return text


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_targets_modules_extras_and_files_are_there(block: Block) -> None:
    import tomllib

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for words in commands(block.code):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, block
        if words[:2] == ["python", "-m"] and words[2].split(".")[0] in {"benchmarks", "recipes", "tests"}:
            source = source_of(words[2])
            missing = [word for word in words if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source]
            missing = [
                word for word in missing if word.removeprefix("--no-").removeprefix("--").replace("-", "_") not in source
            ]
            assert not missing, f"{block}: {words[2]} has no {missing}"
        if words[0] == "pip":
            for word in words:
                found = re.fullmatch(r"(?:multiverse-llm|\.)\[([\w,]+)\]", word)
                assert found is None or set(found[1].split(",")) <= extras, block
        for word in words:
            if re.match(r"(recipes|examples|tests|docs)/", word) and not block.reason and "{" not in word:
                assert (ROOT / word).exists(), f"{block}: {word}"


@pytest.mark.parametrize("block", [block for block in SHELL if "curl " in block.code], ids=str)
def test_what_curl_sends_is_json(block: Block) -> None:
    for words in commands(block.code):
        if words[0] == "curl" and "-d" in words:
            assert json.loads(words[words.index("-d") + 1])["messages"], block


# What a new user types, in an empty folder: these run.

CHEAP = {"tasks", "recipes", "models", "show", "generate", "data"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documentation speaks of."""
    from multiverse.structure import render
    from multiverse.tasks import generate

    folder = tmp_path_factory.mktemp("documented")
    problems = generate("worksheet", 40, seed=3, split="train")
    rows = [{"question": one.question, "answer": one.answer, "structured": render(one.structured)} for one in problems]
    for name in ("problems.jsonl", "traces/mine.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "document.xml").write_text(render(problems[0].structured))
    return folder


@pytest.mark.parametrize(
    "page", sorted({block.page for block in SHELL if block.page in {"README.md", "docs/quickstart.md", "docs/fine-tuning.md"}})
)
def test_commands_that_cost_little_run(
    page: str, folder: Path, mini: LLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from multiverse.cli import main

    monkeypatch.chdir(folder)
    monkeypatch.setattr("multiverse.llm.LLM", lambda *_, **__: mini)
    monkeypatch.setattr(mini, "close", lambda: None)
    ran = []
    for block in SHELL:
        for words in commands(block.code) if block.page == page and not block.reason else []:
            own = without_redirections(words)
            elsewhere = {"-m", "--model", "--url", "--base-url"} & set(own)
            if own[0] == "multiverse" and len(own) > 1 and own[1] in CHEAP and not elsewhere:
                assert main(own[1:]) == 0, f"{block}: {' '.join(own)}: {capsys.readouterr().err}"
                ran.append(own[1])
                if ">" in words:
                    (folder / words[words.index(">") + 1]).write_text(capsys.readouterr().out)
    assert ran


# Python


@pytest.fixture(scope="module")
def mini() -> LLM:
    return multiverse.LLM()


@pytest.fixture
def stands_in(mini: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever model is named, multiverse-mini answers; what is passed along has to be what the class takes."""

    def instead(name: str, found: Any) -> None:
        real = inspect.signature(getattr(multiverse, name).__init__)

        def make(*args: Any, **options: Any) -> Any:
            real.bind(None, *args, **options)
            return found()

        monkeypatch.setattr(multiverse, name, make, raising=False)

    asynchronous = multiverse.AsyncLLM
    instead("StockLLM", lambda: mini)
    instead("LLM", lambda: mini)
    monkeypatch.setattr(multiverse, "AsyncLLM", lambda *_: asynchronous(mini), raising=False)
    monkeypatch.setattr(mini, "close", lambda: None)


@pytest.fixture(scope="module")
def given(mini: LLM) -> dict[str, Any]:
    """What a block may use without having made it: a page's earlier blocks and its text say what these are."""
    messages = [{"role": "user", "content": QUESTION}]
    return {
        "asyncio": asyncio,
        "llm": mini,
        "LLM": lambda *args, **options: multiverse.LLM(*args, **options),
        "messages": messages,
        "others": messages,
        "params": multiverse.SamplingParams(temperature=0),
        "prompt_ids": mini.encode_chat(messages),
    }


RUN_ELSEWHERE = {
    "README.md": "tests/test_mini.py",
    "docs/examples.md": "tests/test_examples.py",
    "docs/quickstart.md": "tests/test_examples.py",
}
PYTHON = [block for block in of("python") if "--8<--" not in block.code]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_is_python_and_imports_what_there_is(block: Block) -> None:
    tree = compile(block.code, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "multiverse":
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names), block


@pytest.mark.usefixtures("stands_in")
@pytest.mark.parametrize(
    "block",
    [
        block
        for block in PYTHON
        if not block.reason and block.page not in RUN_ELSEWHERE and "openai" not in block.code and "Policy(" not in block.code
    ],
    ids=str,
)
def test_python_runs(block: Block, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    names = dict(given)
    if code.co_flags & inspect.CO_COROUTINE:

        async def run() -> None:
            await eval(code, names)

        asyncio.run(run())
    else:
        exec(code, names)


@pytest.mark.slow  # tests/training/rl has it in parts
def test_rollouts_from_python(mini: LLM) -> None:
    from transformers import AutoModelForCausalLM

    (block,) = [block for block in PYTHON if "Policy(" in block.code]
    model = AutoModelForCausalLM.from_pretrained(mini.model_path)
    names: dict[str, Any] = {"model": model, "tokenizer": mini.tokenizer, "tokens": mini.engine.tokens}
    exec(compile(block.code.replace("group_size=8", "group_size=2"), str(block), "exec"), names)
    (group,) = names["groups"]
    assert len(group.rollouts) == 2


# Configurations, and JSON


def configuration(block: Block) -> Any:
    return yaml.safe_load(block.code)


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_configurations_are_understood(block: Block, tmp_path: Path) -> None:
    """A fragment gets what else a configuration has to have."""
    from multiverse.training.config import load
    from multiverse.training.rl.config import load as load_rl

    given = configuration(block)
    rl = {"questions", "rewards", "algorithm"} & given.keys()
    rest = {"questions": [{"family": "worksheet"}]} if rl else {"data": ["x.jsonl"]}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"model": "m", "out": "runs/x", **rest, **given}))
    config = (load_rl if rl else load)(file)
    assert config.out == given.get("out", "runs/x")
    file.write_text(yaml.safe_dump({"model": "m", "out": "runs/x", **rest, **given, "no_such_key": 1}))
    with pytest.raises(ConfigError, match="no_such_key"):
        (load_rl if rl else load)(file)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    def values(text: str) -> Iterator[Any]:
        text = text.strip()
        while text:
            value, end = json.JSONDecoder().raw_decode(text)
            yield value
            text = text[end:].lstrip()

    text = re.sub(r",? *…(?=[}\],])", "", block.code)
    assert all(isinstance(value, dict) for value in values(text))
