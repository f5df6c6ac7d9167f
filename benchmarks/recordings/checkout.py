"""A checkout of this project, used through its command line and its server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from multiverse.bench.processes import started

OPTIONS: dict[str, tuple[str, ...]] = {
    "limit": ("--limit", "--n"),
    "critical": ("--max-critical-path-tokens", "--max-critical-path"),
}
"""Options that were renamed, the new name first: the first that a command's help lists is given."""
FORMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sequential": (("--mode", "sequential"), ("--sequential",)),
    "both": (("--mode", "both"), ("--prompt", "both")),
}
"""Options whose value or form changed, too."""
GROUPS = frozenset({"eval", "data", "curate"})
START = 180.0
"""Seconds that a server may take to start."""


class Output(NamedTuple):
    """What a command printed, and how it ended."""

    code: int
    out: str
    error: str


class Checkout:
    """Runs one checkout's commands.

    Args:
        source: folder of the checkout.
        scratch: folder for files that commands write; paths in it and in `source` are masked in what is recorded.
    """

    def __init__(self, source: Path, scratch: Path) -> None:
        self.source, self.scratch = source.resolve(), scratch.resolve()
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._helps: dict[tuple[str, ...], str] = {}

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of every subprocess: this checkout's package, one thread, no network, no colours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "MULTIVERSE_"))}
        return kept | {
            "PYTHONPATH": os.pathsep.join([str(self.source / "src"), str(self.source)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    @property
    def revision(self) -> str:
        """The commit that is checked out; empty where there is no repository."""
        command = ["git", "-C", str(self.source), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def run(self, *arguments: str, text: str = "") -> Output:
        """``multiverse ARGUMENTS``, with `text` on its standard input.

        An argument ``{NAME}`` is replaced by whichever spelling of `OPTIONS` or `FORMS` the command knows.
        """
        command = [sys.executable, "-m", "multiverse", *self.spelled(arguments)]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env=self.environment, cwd=self.scratch
        )
        return Output(done.returncode, done.stdout, done.stderr)

    def spelled(self, arguments: Sequence[str]) -> list[str]:
        """The arguments with every ``{NAME}`` in this checkout's spelling."""
        found: list[str] = []
        for argument in arguments:
            if not re.fullmatch(r"\{\w+\}", argument):
                found.append(argument)
                continue
            name = argument[1:-1]
            forms = FORMS[name] if name in FORMS else tuple((option,) for option in OPTIONS[name])
            known = self.options(self._command(arguments))
            found += next((form for form in forms if form[0] in known), forms[0])
        return found

    def options(self, command: tuple[str, ...]) -> set[str]:
        """Long options in the first columns of a command's help."""
        names = re.findall(r"^[│ ]*\*? *((?:-\w[, ]+)?--\w[\w-]*(?:[, ]+--\w[\w-]*)*)", self._help(command), re.MULTILINE)
        return {option for name in names for option in re.findall(r"--\w[\w-]*", name)}

    def has(self, group: str, command: str) -> bool:
        """Whether the group has such a command."""
        return re.search(rf"^[│ ]*{command} ", self._help((group,)), re.MULTILINE) is not None

    def _help(self, command: tuple[str, ...]) -> str:
        if command not in self._helps:
            run = [sys.executable, "-m", "multiverse", *command, "--help"]
            done = subprocess.run(run, capture_output=True, text=True, check=False, env=self.environment)
            self._helps[command] = done.stdout if done.returncode == 0 else ""
        return self._helps[command]

    def _command(self, arguments: Sequence[str]) -> tuple[str, ...]:
        if arguments[0] not in GROUPS:
            return (arguments[0],)
        return tuple(arguments[:2]) if self.has(*arguments[:2]) else (arguments[0], "run")

    def mask(self, text: str) -> str:
        """The text without the paths of this checkout and of its scratch folder."""
        return text.replace(str(self.scratch), "<scratch>").replace(str(self.source), "<checkout>")

    @contextmanager
    def server(self) -> Iterator[int]:
        """``multiverse serve`` with the embedded model; its port."""
        log = self.scratch / "server.log"
        command = [sys.executable, "-m", "multiverse", "serve", "--port", "0", "--log-format", "json"]
        outputs = {"stderr": subprocess.STDOUT, "env": self.environment, "cwd": self.scratch}
        with log.open("wb") as stream, started(command, stdout=stream, **outputs) as process:
            yield _port(process, log)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        if '"ready"' in text and (found := re.search(r'"url": ?"http://[^"]*?:(\d+)', text)):
            return int(found[1])
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")
