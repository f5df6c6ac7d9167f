"""Processes for tests that kill them: forked from one that has imported what they need, which takes seconds of a core.

A process made here is one of its own, as `python -m MODULE ARGS` is: killed, it is gone. Only its imports are done already.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class Fork:
    """A process, as far as `subprocess.Popen` is needed.

    Attributes:
        pid: its number.
        returncode: as `subprocess.Popen` has it; `None` as far as is known while it runs.
    """

    def __init__(self, server: Server, pid: int, errors: Path) -> None:
        self._server, self._errors = server, errors
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; `None` while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask(poll=self.pid)
        return self.returncode

    def wait(self, seconds: float = 300) -> int:
        """Wait until it has ended, and return its exit status."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, f"{self.pid} goes on after {seconds:g} s"
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    @property
    def stderr(self) -> str:
        """What it has said so far."""
        return self._errors.read_text()


class Server:
    """What is forked: made by `forks`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        self._count = 0

    def ask(self, **request: Any) -> Any:
        """One request to the process, and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, module: str, *args: object, env: Mapping[str, str] | None = None, stdout: Path | None = None) -> Fork:
        """Run a module as ``python -m``, with these arguments and additions to the environment."""
        self._count += 1
        errors = self._folder / f"{self._count}.err"
        out = str(stdout if stdout is not None else os.devnull)
        pid = self.ask(module=module, args=[*map(str, args)], env=dict(env or {}), stdout=out, stderr=str(errors))
        return Fork(self, pid, errors)


def run_two(server: Server, line: Sequence[object], during: Callable[[list[Fork]], None] | None = None) -> None:
    """What `torch.distributed.run` does: two processes that know of each other by their environment.

    Args:
        during: is given the processes, and may kill them; without, both have to end well.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    module, *rest = line
    both = [server.start(str(module), *rest, env={**common, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    if during is not None:
        during(both)
    for own in both:
        code = own.wait()
        assert during is not None or code == 0, own.stderr


@contextmanager
def forks(folder: Path, *modules: str) -> Iterator[Server]:
    """A server of forks that have imported these modules; what they say to stderr goes into the folder."""
    command = [sys.executable, "-m", "tests.forks", *modules]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process, folder)
        assert process.stdin is not None
        process.stdin.close()  # the end of its requests ends it


def _become(request: dict[str, Any]) -> None:
    """The child: runs a module and ends as an interpreter ends."""
    os.environ.update(request["env"])
    for number, path in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        mode = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(path, mode, 0o644), number)
    sys.argv = [request["module"], *request["args"]]
    code: Any = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int | None) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _serve(modules: list[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # then what runs finds out by itself
            importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no answer
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                _become(request)
            running.add(answer)
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)  # tearing large libraries down takes seconds


if __name__ == "__main__":
    _serve(sys.argv[1:])
