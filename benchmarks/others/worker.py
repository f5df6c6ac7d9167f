"""The benchmark's side of a worker: start it in its own environment, ask it, and keep it still while others are measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import IO, Any

from .protocol import Decode, Opening

ROOT = Path(__file__).parents[2]
PATIENCE = 30
"""Seconds that a worker gets to close by itself."""


class WorkerError(RuntimeError):
    """The worker could not do what it was asked; the message says why."""


class Worker:
    """One engine in a child process.

    Between questions all its processes are stopped (SIGSTOP), so that threads that spin or poll while they wait take
    nothing from the others. Its memory stays.
    """

    def __init__(self, name: str, python: Path, log: Path, opening: Opening, variables: dict[str, str] | None = None) -> None:
        """Start `benchmarks.others.<name>_worker` with this interpreter; what it prints goes to `log`."""
        self.name, self.log = name, log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.others.{name}_worker"],
                cwd=ROOT,
                env=os.environ | (variables or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                # A group of its own, so that the engine's own children are stopped and woken with it.
                process_group=0,
            )
        try:
            self.version: str = self._ask(opening)["version"]
        except BaseException:
            self.close()
            raise

    def seconds(self, decode: Decode) -> float:
        """Seconds that the steps of one measurement took."""
        return float(self._ask(decode)["seconds"])

    def _ask(self, question: Opening | Decode) -> dict[str, Any]:
        questions, answers = self._pipes()
        self._signal(signal.SIGCONT)
        try:
            questions.write(json.dumps(question._asdict()) + "\n")
            questions.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": f"it ended with code {self._process.wait(PATIENCE)}"}
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']} (more in {self.log})")
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """Wake it, let it end, and make sure that it did."""
        self._signal(signal.SIGCONT)
        for pipe in self._pipes():
            pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
