"""The benchmark's side of a worker: start it in its own environment, and stop it while others are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from multiverse.bench.processes import CLOSE_TIMEOUT, send, started

from .protocol import Decode, Opening

ROOT = Path(__file__).parents[2]


class WorkerError(RuntimeError):
    """A request failed; the message says why."""


class Worker:
    """One engine in a child process.

    Between requests all its processes are stopped (SIGSTOP), so that threads that spin or poll take no time from the other
    engines. Its memory stays allocated.
    """

    def __init__(self, name: str, python: Path, log: Path, opening: Opening, variables: dict[str, str] | None = None) -> None:
        """Start `benchmarks.others.<name>_worker` with this interpreter; its output goes to `log`."""
        self.name, self.log = name, log
        command = [str(python), "-m", f"benchmarks.others.{name}_worker"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._stack = ExitStack()
        with log.open("w") as file:
            running = started(command, cwd=ROOT, env=os.environ | (variables or {}), stderr=file, **pipes)
            self._process = self._stack.enter_context(running)
        try:
            self.version: str = self._ask(opening)["version"]
        except BaseException:
            self.close()
            raise

    def seconds(self, decode: Decode) -> float:
        """Seconds that the steps of one measurement took."""
        return float(self._ask(decode)["seconds"])

    def _ask(self, request: Opening | Decode) -> dict[str, Any]:
        requests, replies = self._pipes()
        self._signal(signal.SIGCONT)
        try:
            requests.write(json.dumps(request._asdict()) + "\n")
            requests.flush()
            line = replies.readline()
        except BrokenPipeError:
            line = ""
        reply: dict[str, Any] = (
            json.loads(line) if line else {"error": f"it ended with code {self._process.wait(CLOSE_TIMEOUT)}"}
        )
        if "error" in reply:
            raise WorkerError(f"{self.name}: {reply['error']} (more in {self.log})")
        self._signal(signal.SIGSTOP)
        return reply

    def close(self) -> None:
        """Continue the worker, close its pipes, and kill it if it does not end."""
        self._signal(signal.SIGCONT)
        for pipe in self._pipes():
            pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_TIMEOUT)
        self._stack.close()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _signal(self, number: signal.Signals) -> None:
        # Children of the engine are stopped and continued with it.
        if self._process.poll() is None:
            send(self._process, number)
