"""Calls of functions that may hang, crash or eat all memory: in worker processes, kept warm, and killed where needed."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import ConfigError, RewardError, first_line
from ....threads import usable_cores

_STARTUP = 120.0
"""Seconds that a worker may take to start and to import the function."""
_MOST = 4
"""Workers of one function unless set otherwise."""
GIVE_UP = 16
"""After so many calls in a row that ran out of time, with none before that did not, the others of a step are not made."""


class Outcome(NamedTuple):
    """What a call gave: a value, or why there is none."""

    value: float | None
    fault: str = ""


class _Worker:
    """One process with the function."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self.link, other = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(other.fileno())],
            pass_fds=(other.fileno(),),
            stdin=subprocess.DEVNULL,
            # The order of sets is the same in every process, so that a value does not depend on which one gave it.
            env={**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        other.close()
        self.link.send_bytes(pickle.dumps(setup))

    def kill(self) -> None:
        """Kill the process and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self.link.close()

    def ended(self) -> str:
        """How the process ended, whose connection is closed."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was killed by {name}" + (": out of memory?" if -code == signal.SIGKILL else "")
        return f"its process ended with exit code {code}"


class _Call(NamedTuple):
    """A call in a worker, or its start (`place` is `None`)."""

    worker: _Worker
    place: int | None
    deadline: float


class Pool:
    """A function by name, and the processes that call it. For one thread at a time.

    Args:
        target: ``module:function``; the module is looked for in the working directory, too.
        positional: names of what it is called with, for messages.
        arguments: keyword arguments of every call.
        timeout: seconds of one call.
        memory: bytes of address space of a worker; `None` is no limit.
        workers: most processes; `None` is one per core, at most 4.
    """

    def __init__(
        self,
        target: str,
        positional: Sequence[str],
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        memory: float | None = None,
        workers: int | None = None,
    ) -> None:
        self.target, self.timeout = target, timeout
        path = [str(Path.cwd()), *(entry for entry in sys.path if entry)]
        self._setup = {
            "target": target,
            "positional": list(positional),
            "arguments": dict(arguments or {}),
            "path": list(dict.fromkeys(path)),
            "memory": None if memory is None or math.isinf(memory) else memory,
        }
        self._most = min(_MOST, usable_cores()) if workers is None else workers
        self._idle: list[_Worker] = []
        self._running: dict[Connection, _Call] = {}  # between calls, those that are still starting

    def check(self) -> None:
        """Start one worker, which imports the function and checks that it can be called so.

        Raises:
            ConfigError: it cannot.
        """
        if self._idle:
            return
        worker = _Worker(self._setup)
        try:
            if not worker.link.poll(_STARTUP):
                raise ConfigError(f"{self.target!r} was not imported within {_STARTUP:.0f} seconds")
            self._greet(worker)
        except BaseException:
            worker.kill()
            raise
        self._idle.append(worker)

    def call(self, calls: Sequence[tuple[tuple[Any, ...], str]]) -> list[Outcome]:
        """Call the function for each tuple of values, with a seed of what it draws from; the outcomes in the same order.

        Raises:
            RewardError: no worker can be started any more.
        """
        outcomes: list[Outcome | None] = [None] * len(calls)
        waiting = deque(range(len(calls)))
        try:
            while waiting or any(call.place is not None for call in self._running.values()):
                self._fill(calls, waiting, outcomes)
                self._collect(outcomes)
                if _hopeless(outcomes):
                    waiting.clear()
        except BaseException:  # an interrupt among them: what the busy workers do is no longer wanted
            self.close()
            raise
        skipped = Outcome(None, f"it was not called, since {GIVE_UP} calls had run out of time")
        return [skipped if outcome is None else outcome for outcome in outcomes]

    def close(self) -> None:
        """Kill the workers; new ones are started on demand."""
        for worker in [*self._idle, *(call.worker for call in self._running.values())]:
            worker.kill()
        self._idle.clear()
        self._running.clear()

    def _greet(self, worker: _Worker) -> None:
        """Read a worker's first message."""
        try:
            said = json.loads(worker.link.recv_bytes())
        except (EOFError, OSError):
            raise ConfigError(f"{self.target!r} cannot be imported: {worker.ended()}") from None
        if "refused" in said:
            raise ConfigError(f"{self.target!r} cannot be used as a reward: {said['refused']}")

    def _fill(self, calls: Sequence[tuple[tuple[Any, ...], str]], waiting: deque[int], outcomes: list[Outcome | None]) -> None:
        """Give calls to idle workers, and start workers where there are more calls."""
        while waiting and self._idle:
            worker, index = self._idle.pop(), waiting.popleft()
            try:
                data = pickle.dumps(calls[index])
            except Exception as error:  # of any class, from any object in them
                outcomes[index] = Outcome(
                    None, f"it was not called, since its arguments cannot be pickled: {first_line(error)}"
                )
                self._idle.append(worker)
                continue
            try:
                worker.link.send_bytes(data)
            except OSError:
                worker.kill()  # it had ended since its last call, which is not the fault of this one
                waiting.appendleft(index)
                continue
            self._running[worker.link] = _Call(worker, index, time.monotonic() + self.timeout)
        starting = sum(call.place is None for call in self._running.values())
        while len(self._running) < self._most and starting < len(waiting):
            worker = _Worker(self._setup)
            self._running[worker.link] = _Call(worker, None, time.monotonic() + _STARTUP)
            starting += 1

    def _collect(self, outcomes: list[Outcome | None]) -> None:
        """Wait for an answer or a deadline, and take what has come."""
        if not self._running:
            return
        left = min(call.deadline for call in self._running.values()) - time.monotonic()
        for link in wait(list(self._running), max(0.0, left)):
            assert isinstance(link, Connection)
            call = self._running.pop(link)
            try:
                if call.place is None:
                    self._greet(call.worker)
                else:
                    said = json.loads(link.recv_bytes())
                    outcomes[call.place] = Outcome(said.get("value"), said.get("fault", ""))
            except ConfigError as error:
                call.worker.kill()
                raise RewardError(f"a further process of it cannot be started: {error}") from None
            except (EOFError, OSError, ValueError):
                assert call.place is not None
                outcomes[call.place] = Outcome(None, call.worker.ended())
                call.worker.kill()
            else:
                self._idle.append(call.worker)
        for link, call in list(self._running.items()):
            if call.deadline <= time.monotonic() and not link.poll():
                del self._running[link]
                call.worker.kill()
                if call.place is None:
                    raise RewardError(f"{self.target!r} was not imported within {_STARTUP:.0f} seconds")
                outcomes[call.place] = Outcome(None, f"{_TOO_LONG} {self.timeout:g} seconds")


_TOO_LONG = "it took longer than"


def _hopeless(outcomes: Sequence[Outcome | None]) -> bool:
    known = [outcome for outcome in outcomes if outcome is not None]
    return len(known) >= GIVE_UP and all(outcome.fault.startswith(_TOO_LONG) for outcome in known)
