"""User errors: exit code 2, nothing on stdout, one line on stderr that names the error."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from multiverse.structure import MULTIVERSE, NPR, Block, Document, render
from tests.cli.conftest import Result

Run = Callable[..., Result]


def complaint(result: Result) -> str:
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    return result.err


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (["genrate", "hi"], ["no such command 'genrate'", "did you mean 'generate'"]),
        (["xyz"], ["no such command 'xyz'", "multiverse --help"]),
        (["--nope"], ["no such option --nope"]),
        (["eval", "budgt"], ["did you mean 'budget'?"]),
        (["generate"], ["missing argument 'QUESTION'", "multiverse generate --help"]),
        (["generate", "hi", "--temprature", "1"], ["no such option --temprature", "did you mean --temperature?"]),
        (["generate", "hi", "--temperature"], ["--temperature", "requires an argument"]),
        (["generate", "hi", "--temperature", "warm"], ["--temperature 'warm'", "valid number"]),
        (["generate", "hi", "--temperature", "-1"], ["--temperature -1.0 is not valid", "0 or more"]),
        (["generate", "hi", "--temperature", "nan"], ["--temperature nan is not valid"]),
        (["generate", "hi", "--top-p=2"], ["--top-p 2.0 is not valid", "at most 1"]),
        (["generate", "hi", "--max-tokens", "0", "--json"], ["--max-tokens 0 is not valid", "1 or more"]),
        (["generate", "hi", "--stop", ""], ["--stop ('',) is not valid", "non-empty"]),
        (["generate", "hi", "--dtype", "int3"], ["--dtype 'int3'", "bfloat16"]),
        (["generate", "hi", "--mode", "paralel"], ["--mode 'paralel' is not valid: did you mean 'parallel'?"]),
        (["generate", "hi", "--sequential"], ["--sequential is now called --mode sequential"]),
        (["generate", "hi", "--max-critical-path", "9"], ["--max-critical-path is now called --max-critical-path-tokens"]),
        (["generate", ""], ["the question is empty", "write one"]),
        (["generate", " \n"], ["the question is empty"]),
        (["generate", "a\udcff"], ["not UTF-8"]),
        (["generate", "hi", "there"], ["unexpected extra argument"]),
        (["generate", "hi", "--model", "/no/such/folder"], ["'/no/such/folder' does not exist", "give a folder"]),
        (["tasks", "workshet"], ["unknown family 'workshet'", "did you mean 'worksheet'?"]),
        (
            ["tasks", "zzz"],
            ["unknown family 'zzz'", "choose worksheet, cases, countdown, nested, chain, lookup, listing, sorting"],
        ),
        (["tasks", "nested", "--width", "9"], ["width 9", "allowed are 2, 3"]),
        (["tasks", "chain", "--limit", "x"], ["--limit 'x'", "valid integer"]),
        (["tasks", "chain", "--limit=-1"], ["--limit '-1'", "greater than or equal to 1"]),
        (["tasks", "chain", "--split", "dev"], ["unknown split 'dev'", "choose train, test"]),
        (["show"], ["missing argument 'FILE'"]),
        (["show", "/no/such/file.xml"], ["there is no file '/no/such/file.xml'"]),
        (["show", "/"], ["'/' is a folder"]),
        (["show", "/", "--dialect", "nrp"], ["unknown dialect 'nrp'", "did you mean 'npr'?"]),
    ],
)
def test_bad_input(run: Run, args: list[str], wanted: list[str]) -> None:
    line = complaint(run(*args))
    assert all(text in line for text in wanted), line


def test_over_long_prompt(run: Run, model_folders: dict[str, Path]) -> None:
    line = complaint(run("generate", "word " * 500, "--model", str(model_folders["qwen3"]), "--json"))
    assert "the model takes at most 2047: shorten the prompt" in line


def test_folder_without_a_model(run: Run, tmp_path: Path) -> None:
    assert "holds no config.json" in complaint(run("generate", "hi", "--model", str(tmp_path)))


def test_model_that_cannot_be_joined(run: Run, tmp_path: Path, model_folders: dict[str, Path]) -> None:
    folder = shutil.copytree(model_folders["qwen3"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_types": ["linear_attention", "full_attention"]}))
    line = complaint(run("generate", "hi", "--model", str(folder)))
    assert "linear_attention" in line
    assert "cannot be run branch by branch" in line
    assert "choose another model" in line


def test_damaged_weights(run: Run, tmp_path: Path, model_folders: dict[str, Path]) -> None:
    folder = shutil.copytree(model_folders["qwen3"], tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"torn in the middle")
    assert str(folder) in complaint(run("generate", "hi", "--model", str(folder)))


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="asks for a device that is there")
def test_device_that_is_not_there(run: Run, model_folders: dict[str, Path]) -> None:
    line = complaint(run("generate", "hi", "--model", str(model_folders["qwen3"]), "--device", "cuda"))
    assert "use 'cpu'" in line


def test_unknown_device(run: Run, model_folders: dict[str, Path]) -> None:
    assert "'warp'" in complaint(run("generate", "hi", "--model", str(model_folders["qwen3"]), "--device", "warp"))


def test_question_that_is_not_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert "standard input is not UTF-8" in complaint(run("generate", "-"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert "the question on standard input is empty" in complaint(run("generate", "-"))


def test_malformed_document(run: Run, tmp_path: Path) -> None:
    text = render(Document((Block(("a", "b"), (("x",), ("y",)), "z"),)))
    file = tmp_path / "bad.xml"
    file.write_text(text.replace(f"2: b\n{MULTIVERSE.outline.close}", "2: b", 1))
    line = complaint(run("show", str(file), "--json"))
    assert f"{file}, line 9: found {MULTIVERSE.goal.close}, expected {MULTIVERSE.outline.close}" in line


@pytest.mark.parametrize(
    ("data", "wanted"), [(b"\x89PNG\r\n", "not UTF-8 text (byte 0)"), (b"a\0b", "binary file"), (b" \n", "is empty")]
)
def test_file_that_is_not_text(run: Run, tmp_path: Path, data: bytes, wanted: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    assert wanted in complaint(run("show", str(file)))


def test_document_of_another_dialect(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "npr.txt"
    file.write_text(render(Document((Block(("a",), (("x",),), "z"),)), NPR))
    assert "use --dialect npr" in complaint(run("show", str(file)))
    assert run("show", str(file), "--dialect", "npr").code == 0


def test_tokenizer_that_is_not_there(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "document.xml"
    file.write_text(render(Document(("x",), "y")))
    assert "does not exist" in complaint(run("show", str(file), "--model", "/no/such/folder"))
    assert str(tmp_path) in complaint(run("show", str(file), "--model", str(tmp_path)))
