"""Mathematics: whether two answers are equivalent.

They are read and compared by `equivalence`, and by math-verify where that cannot read one of them. Answers can be made to take
forever, and math-verify's own time limit needs the main thread of a process. So both run in worker processes (see
`math_worker.py`), which are reused, confined like the sandbox of programs, and killed and replaced after a time limit.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import ExtraError, MultiverseError
from .equivalence import last_box
from .verdict import Verdict

SECONDS = 10.0
"""Wall-clock time limit of one comparison."""
_STARTUP = 60.0
"""Seconds that a worker may take to start, on a busy machine."""
_LONGEST = 20_000
"""Characters of an answer that are read, from its end."""


class _TimeUpError(Exception):
    """A worker did not answer in time."""


class _Worker:
    """A process that compares answers, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", str(Path(__file__).with_name("math_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self._rest = b""
        try:
            self._read(_STARTUP)  # the line "ready"
        except _TimeUpError:
            self.kill()
            raise MultiverseError(
                f"the worker process of math-verify did not start within {_STARTUP:.0f} seconds: check its installation"
            ) from None

    def ask(self, expected: str, answer: str, seconds: float) -> dict[str, Any]:
        """Compare two answers.

        Raises:
            _TimeUpError: it took too long, or the worker died; in both cases the worker cannot be used again.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([expected, answer]).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise _TimeUpError from None
        result: dict[str, Any] = json.loads(self._read(seconds))
        return result

    def kill(self) -> None:
        """Kill the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # unflushed data
                    pipe.close()

    def _read(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise _TimeUpError
            piece = os.read(descriptor, 65536)
            if not piece:
                raise _TimeUpError
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line


class MathGrader:
    """Compares mathematics; thread-safe.

    Args:
        workers: most processes at a time; they are started on demand.
        seconds: wall-clock time limit of one comparison.
    """

    def __init__(self, workers: int = 2, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._slots = threading.Semaphore(workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def grade(self, expected: str, answer: str) -> Verdict:
        """Whether an answer is equivalent to the expected one.

        The answer is the content of its last box (``\\boxed{}``), or, without one, what it says that the answer is, or its last
        expression that can be read (`equivalence.candidates`).

        Raises:
            ExtraError: math-verify is not installed.
        """
        answer = answer[-_LONGEST:]
        box = last_box(answer)
        taken = box if box is not None else answer.strip()
        if not taken:
            return Verdict(False, "", "there is no answer")
        if " ".join(taken.split()) == " ".join(expected.split()):
            return Verdict(True, taken)
        result = self._ask(expected, f"\\boxed{{{box}}}" if box is not None else taken)
        return Verdict(result["right"], result["taken"] or taken, result["error"])

    def close(self) -> None:
        """Kill the workers; new ones are started on demand."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _ask(self, expected: str, answer: str) -> dict[str, Any]:
        """Compare by an idle worker, or a new one; a worker that did not answer in time is killed."""
        if find_spec("math_verify") is None:
            raise ExtraError("math-verify", "eval")
        with self._slots:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = _Worker() if worker is None else worker
            try:
                result = worker.ask(expected, answer, self.seconds)
            except _TimeUpError:
                worker.kill()
                return {"right": False, "taken": "", "error": f"the comparison did not end within {self.seconds:g} seconds"}
            except BaseException:
                worker.kill()
                raise
            with self._lock:
                self._idle.append(worker)
            return result


@cache
def shared() -> MathGrader:
    """The grader of this process; its workers are killed at exit."""
    grader = MathGrader()
    atexit.register(grader.close)
    return grader


def grade_math(expected: str, answer: str) -> Verdict:
    """`MathGrader.grade` of the shared grader."""
    return shared().grade(expected, answer)
