"""Runs an untrusted program, and reports how it ended.

Every run is a new Python process in its own session and an empty temporary folder, with a minimal environment and the given
standard input. The process confines itself (see `jail.py`) before it reads the program; its process group is killed after a
time limit. Its output goes to a file of limited size.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from . import jail

_STARTUP = 2.0
"""Seconds that Python may take to start and to confine itself, on a busy machine."""
_TAIL = 2000
"""Characters of standard error that are kept."""

Status = Literal["ok", "error", "time", "memory", "output", "forbidden"]


@dataclass(frozen=True)
class Limits:
    """Limits of a program.

    Attributes:
        seconds: of wall-clock, and as many, rounded up, of processor time.
        memory: bytes of address space, Python itself included.
        output: bytes of what it prints, and of any file that it writes.
    """

    seconds: float = 6.0
    memory: int = 2 << 30
    output: int = 16 << 20


class Call(NamedTuple):
    """A function of the program (or of its class ``Solution``), and what it is called with."""

    function: str
    arguments: list[Any]


class Outcome(NamedTuple):
    """How a program ended.

    Attributes:
        status: ``ok``; ``error`` (an exception, a signal, or an exit code); ``time``, ``memory`` or ``output`` (the limit that
            it exceeded); ``forbidden`` (an exception because an operation was not permitted).
        output: its standard output.
        result: the result of the function, through JSON.
        detail: the end of its standard error, or the signal that ended it.
        layers: the restrictions in force, as returned by `jail.confine`.
    """

    status: Status
    output: str
    result: Any
    detail: str
    layers: tuple[str, ...]


def run(program: str, *, stdin: str = "", call: Call | None = None, limits: Limits | None = None) -> Outcome:
    """Run a program to its end.

    Args:
        stdin: its standard input.
        call: the function to call; `None` runs the program as a script.
    """
    limits = limits if limits is not None else Limits()
    with tempfile.TemporaryDirectory(prefix="multiverse-", ignore_cleanup_errors=True) as name:
        box = Path(name)
        work = box / "work"
        work.mkdir()
        for file, text in (("program.py", program), ("stdin", stdin), ("result", ""), ("layers", "")):
            (box / file).write_text(text, encoding="utf-8", errors="surrogatepass")
        job = {
            **{file: str(box / file) for file in ("program", "result", "layers")},
            "program": str(box / "program.py"),
            "call": call._asdict() if call is not None else None,
            "confine": {
                "memory": limits.memory,
                "seconds": int(-(-limits.seconds // 1)) + 1,
                "file_size": limits.output,
                "writable": [str(work)],
            },
        }
        (box / "job.json").write_text(json.dumps(job), encoding="utf-8")
        code = _launch(box, work, limits.seconds + _STARTUP)
        return _outcome(box, code, limits)


@cache
def layers() -> tuple[str, ...]:
    """The restrictions that are in force on this machine, found by running an empty program."""
    return run("").layers


def _launch(box: Path, work: Path, seconds: float) -> int | None:
    """Start the process, wait, and kill its group; returns the exit code, or `None` after a time-out."""
    with (box / "stdin").open("rb") as stdin, (box / "stdout").open("wb") as out, (box / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", jail.__file__, str(box / "job.json")],
            stdin=stdin,
            stdout=out,
            stderr=err,
            cwd=work,
            env={
                "PATH": os.defpath,
                "HOME": str(work),
                "TMPDIR": str(work),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # Also after a normal exit: it may have left processes.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


_CODES: dict[int | None, Status] = {
    0: "ok",
    None: "time",
    -signal.SIGXCPU: "time",
    -signal.SIGXFSZ: "output",
    jail.OUT_OF_MEMORY: "memory",
    jail.FORBIDDEN: "forbidden",
    jail.TOO_MUCH_OUTPUT: "output",
}


def _outcome(box: Path, code: int | None, limits: Limits) -> Outcome:
    output = _read(box / "stdout")
    status = _CODES.get(code, "error")
    if status != "ok" and (box / "stdout").stat().st_size >= limits.output:
        status = "output"
    detail = _read(box / "stderr")[-_TAIL:].strip()
    if status == "error" and code is not None and code < 0:
        detail = f"{detail}\nkilled by {signal.Signals(-code).name}".strip()
    try:
        result = json.loads(_read(box / "result") or "null")
    except ValueError:  # killed while writing
        result = None
    try:
        confined = tuple(json.loads(_read(box / "layers")))
    except ValueError:
        confined = ()
    return Outcome(status, output, result, detail, confined)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
