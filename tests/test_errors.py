"""Errors: optional libraries, and messages on one line."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from multiverse.errors import DiskError, ExtraError, first_line, preferred_extra, require, writing


def test_an_optional_library_is_imported_or_the_extra_is_named() -> None:
    assert require("json", "eval") is json
    with pytest.raises(ExtraError, match=r"needs no-such-library, .* pip install 'multiverse-llm\[eval\]'"):
        require("no_such_library.part", "eval")


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
        ("eval", "openai", "eval"),
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
import sys
from importlib.abc import MetaPathFinder
MISSING = set(sys.argv[1].split(","))
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
sys.meta_path.insert(0, Absent())
from multiverse.cli import main
sys.exit(main(sys.argv[2:]))
"""
MISSING = """
accelerate peft datasets pyarrow yaml matplotlib gguf openai rapidfuzz fastapi uvicorn prometheus_client inspect_ai
math_verify langdetect scipy httpx httpx_sse ray triton
"""


@pytest.mark.parametrize(
    ("args", "extra"),
    [
        (("curate", "IN", "--out", "OUT", "-m", "m"), "curate"),
        (("curate", "audit", "IN", "--out", "OUT", "-m", "m"), "curate"),
        (("curate", "dataflow", "IN", "--out", "OUT"), "curate"),
        (("curate", "distill", "IN", "--out", "OUT", "-m", "m", "--base-url", "http://127.0.0.1:9/v1"), "curate"),
        (("curate", "compose", "IN", "IN2", "--out", "OUT", "-m", "m", "--base-url", "http://127.0.0.1:9/v1"), "curate"),
        (("eval", "worksheet", "--out", "OUT"), "eval"),
        (("eval", "math500", "--data", "math500=PARQUET", "--out", "OUT"), "eval"),
        (("train", "CONFIG"), "train"),
        (("data", "build", "ROWS", "--out", "OUT", "--validation", "0"), "train"),
        (("serve",), "serve"),
        (("chat", "--url", "http://127.0.0.1:9"), "chat"),
    ],
)
def test_with_core_dependencies_alone_every_command_names_its_extra(tmp_path: Path, args: tuple[str, ...], extra: str) -> None:
    record = {"question": "What is 2+2, and what is 3+3?", "reasoning": "2+2 is 4. 3+3 is 6.", "answer": "4 and 6"}
    (tmp_path / "IN").with_suffix(".jsonl").write_text(json.dumps(record) + "\n")
    lines = ("What is the capital of France?", "What is the capital of Spain?", "What is the capital of Italy?")
    (tmp_path / "IN2.txt").write_text("\n".join(lines))
    (tmp_path / "ROWS.jsonl").write_text(json.dumps({"question": "Q", "structured": "Answer: 1"}) + "\n")
    (tmp_path / "CONFIG.yaml").write_text("model: m\ndata: [ROWS.jsonl]\nout: OUT\n")
    (tmp_path / "PARQUET.parquet").write_bytes(b"PAR1")
    names = {"IN": "IN.jsonl", "IN2": "IN2.txt", "ROWS": "ROWS.jsonl", "CONFIG": "CONFIG.yaml"}
    given = [names.get(arg, arg.replace("=PARQUET", "=PARQUET.parquet")) for arg in args]
    program = [sys.executable, "-c", CORE_ONLY, ",".join(MISSING.split()), *given]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("error: this needs "), last
    assert last.endswith(f"which is not installed: pip install 'multiverse-llm[{extra}]'"), last
