"""Errors: optional libraries, and messages on one line."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from multiverse.errors import DiskError, ExtraError, first_line, preferred_extra, require, writing


def test_an_optional_library_is_imported_or_the_extra_is_named() -> None:
    assert require("json", "eval") is json
    with pytest.raises(ExtraError, match=r"needs no-such-library, .* pip install 'multiverse-llm\[eval\]'"):
        require("no_such_library.part", "eval")


def test_a_library_is_named_as_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIL", "PIL.Image"):  # the second, too, since another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraError, match=r"needs pillow, which is not installed: pip install 'multiverse-llm\[eval\]'"):
        require("PIL.Image", "eval")


def test_first_line_of_an_exception() -> None:
    assert first_line(ValueError("\n first \n second")) == "first"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "the disk may be full"),
    ],
)
def test_a_full_disk_is_an_error_that_names_the_path(tmp_path: Path, error: Exception, reason: str) -> None:
    with pytest.raises(DiskError) as caught, writing(tmp_path / "run"):
        raise error
    assert str(caught.value).startswith(f"{str(tmp_path / 'run')!r} cannot be written ({reason}; ")
    assert str(caught.value).endswith(" MB are free): free some space, or choose another place")


def test_a_full_device() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is not there")
    with (
        pytest.raises(DiskError, match="'/dev/full' cannot be written"),
        writing("/dev/full"),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"), writing(tmp_path):
        raise ValueError("other")
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "not" / "there").write_text("")


LIBRARIES = {"pyarrow": "train", "datasets": "train", "openai": "curate", "matplotlib": "train"}


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        ("curate", "pyarrow", "curate"),
        ("curate", "openai", "curate"),
        ("curate", "datasets", "train"),  # curate does not install it
        ("eval", "pyarrow", "eval"),
        ("eval", "datasets", "eval"),
        ("data", "pyarrow", "train"),
        ("train", "matplotlib", "train"),
        (None, "pyarrow", "train"),
    ],
)
def test_the_extra_of_the_command_is_named(command: str | None, library: str, extra: str) -> None:
    from multiverse.cli.app import _EXTRAS

    token = preferred_extra.set(_EXTRAS[command] if command is not None else None)
    try:
        assert f"multiverse-llm[{extra}]'" in str(ExtraError(library, LIBRARIES[library]))
    finally:
        preferred_extra.reset(token)


CORE_ONLY = """
import json, sys
from importlib.machinery import PathFinder
missing, find = set(sys.argv[1].split(",")), PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in missing else find(name, path, target)
PathFinder.find_spec = classmethod(find_spec)
from multiverse.cli import main
from multiverse.errors import preferred_extra
for args in json.loads(sys.argv[2]):
    preferred_extra.set(None)
    print(f"\\n{main(args)}", file=sys.stderr)
"""
MISSING = """
accelerate peft datasets pyarrow matplotlib gguf openai rapidfuzz fastapi uvicorn prometheus_client inspect_ai
math_verify langdetect scipy httpx_sse ray triton
"""


COMMANDS = [
    ("curate", ("curate", "IN.jsonl", "--out", "OUT1", "-m", "m")),
    ("curate", ("curate", "audit", "IN.jsonl", "--out", "OUT2", "-m", "m")),
    ("curate", ("curate", "dataflow", "SOLVED.jsonl", "--out", "OUT3")),
    ("curate", ("curate", "distill", "--family", "chain", "--out", "OUT4", "-m", "m", "--base-url", "http://127.0.0.1:9/v1")),
    ("curate", ("curate", "compose", "QUESTIONS.txt", "--out", "OUT5", "-m", "m", "--base-url", "http://127.0.0.1:9/v1")),
    ("eval", ("eval", "worksheet", "--out", "OUT6")),
    ("eval", ("eval", "math500", "--data", "math500=ROWS.parquet", "--out", "OUT7")),
    ("train", ("train", "CONFIG.yaml")),
    ("train", ("data", "build", "ROWS.jsonl", "--out", "OUT8", "--validation", "0")),
    ("serve", ("serve",)),
    ("chat", ("chat", "--url", "http://127.0.0.1:9")),
]


def test_with_core_dependencies_alone_every_command_names_its_extra(tmp_path: Path) -> None:
    record = {"question": "What is 2+2, and what is 3+3?", "reasoning": "2+2 is 4. 3+3 is 6.", "answer": "4 and 6"}
    (tmp_path / "IN.jsonl").write_text(json.dumps(record) + "\n")
    solved = {"question": "What is 2+2+3?", "answer": "2+2=<<2+2=4>>4. 4+3=<<4+3=7>>7.\n#### 7"}
    (tmp_path / "SOLVED.jsonl").write_text(json.dumps(solved) + "\n")
    questions = ("What is the capital of France?", "What is the capital of Spain?", "What is the capital of Italy?")
    (tmp_path / "QUESTIONS.txt").write_text("\n".join(questions))
    (tmp_path / "ROWS.jsonl").write_text(json.dumps({"question": "Q", "structured": "Answer: 1"}) + "\n")
    (tmp_path / "CONFIG.yaml").write_text("model: m\ndata: [ROWS.jsonl]\nout: OUT\n")
    (tmp_path / "ROWS.parquet").write_bytes(b"PAR1")
    program = [sys.executable, "-c", CORE_ONLY, ",".join(MISSING.split()), json.dumps([args for _, args in COMMANDS])]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = [line for line in ran.stderr.splitlines() if line]
    ended = [(said, code) for said, code in pairwise(lines) if code.isdecimal()]
    assert [code for _, code in ended] == ["2"] * len(COMMANDS), ran.stderr
    for (extra, args), (said, _) in zip(COMMANDS, ended, strict=True):
        assert said.startswith("error: this needs "), (args, said)
        assert said.endswith(f", which is not installed: pip install 'multiverse-llm[{extra}]'"), (args, said)
