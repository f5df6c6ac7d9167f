"""Measure a model on this machine: in branches and in a line, and beside other engines, all in turn.

Each round measures everything once, every second round in reverse order; figures are medians over the rounds, and ratios are
medians of the ratios within a round. What is decoded does not depend on the model: a script fixes how long and how wide it is,
so the figures say how fast a model is, and nothing about what it writes.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engine.scripted import ScriptedSampler
from ..errors import MultiverseError, UpstreamError
from ..evaluation.machine import describe_machine
from ..stock.server import ServerOptions
from .config import BenchConfig
from .processes import started
from .record import FORKED, SEPARATE, Case, Record, Whole
from .scripted import Timed
from .served import Endpoint, why

if TYPE_CHECKING:
    from ..llm import LLM

GENERATE, LLAMA, VLLM = "transformers generate", "llama.cpp", "vLLM"
START_TIMEOUT = 300
"""Seconds within which a server that is started here must answer."""
_WARM_STEPS = 4
_OUTLINE = 32  # tokens of a path that are not its text, at most


class Task(NamedTuple):
    """One measurement: its name, and a function that takes and records it, given the number of steps."""

    name: str
    run: Callable[[int], None]


Progress = Callable[[str, int, int], None]
"""Told what is being measured, how many measurements are done, and of how many."""


def measure(llm: LLM, config: BenchConfig, model: str, *, on_task: Progress = lambda *_: None) -> Record:
    """Measure everything; what was measured before an interrupt (Ctrl-C) is kept.

    Args:
        model: what to call the model.
    """
    settings = {name: value for name, value in asdict(config).items() if name != "api_key"}
    record = Record(model, describe_machine(), date.today().isoformat(), settings)
    with ExitStack() as stack:
        try:
            tasks = list(Bench(llm, config, record, stack).tasks(on_task))
            for number, task in enumerate(tasks):
                on_task(f"warm-up: {task.name}", number, len(tasks) * (config.rounds + 1))
                task.run(_WARM_STEPS)
            record.clear()
            for number in range(config.rounds):
                for index, task in enumerate(tasks if number % 2 == 0 else reversed(tasks)):
                    on_task(task.name, len(tasks) * (number + 1) + index, len(tasks) * (config.rounds + 1))
                    task.run(config.decode_steps)
        except KeyboardInterrupt:
            record.interrupted = True
    return record


class Bench:
    """Our engine and the others, and the tasks that measure them.

    Args:
        stack: ends what is started here.
    """

    def __init__(self, llm: LLM, config: BenchConfig, record: Record, stack: ExitStack) -> None:
        self.config, self.record, self.stack, self.llm = config, record, stack, llm
        sampler = ScriptedSampler()
        before, llm.engine.sampler = llm.engine.sampler, sampler
        stack.callback(setattr, llm.engine, "sampler", before)
        text = llm.tokenizer.encode("x", add_special_tokens=False)[-1]
        self.ours = Timed(llm.engine, sampler, text)
        self.endpoints: dict[str, Endpoint] = {}
        self.plain: Any = None  # the model as transformers runs it

    def tasks(self, on_task: Progress = lambda *_: None) -> Iterator[Task]:
        """All measurements of one round; those that are compared follow one another."""
        self._open(on_task)
        if self.llm.tokens is None:
            self.record.notes.append(
                "the model has no tags, so it does not fork: it is measured in a line and by requests alone"
            )
        for prefix in self.config.prefixes:
            for rows in self.config.rows:
                yield from self._decoding(Case(SEPARATE, rows, prefix))
            yield from self._first(prefix)
            if self.llm.tokens is not None and any(rows > 1 for rows in self.config.rows):
                yield Task("whole documents", partial(self._documents, prefix))

    def _decoding(self, case: Case) -> Iterator[Task]:
        where = f"{case.rows} {'row' if case.rows == 1 else 'rows'}, prefix {case.prefix}"
        if self._fits(case):
            yield Task(f"{SEPARATE}: {where}", partial(self._ours, case))
        if self.llm.tokens is not None and case.rows > 1 and self._fits(case._replace(side=FORKED)):
            yield Task(f"{FORKED}: {where}", partial(self._ours, case._replace(side=FORKED)))
        if self.plain is not None:
            yield Task(f"{GENERATE}: {where}", partial(self._generate, case._replace(side=GENERATE)))
        for name in list(self.endpoints):
            yield Task(f"{name}: {where}", partial(self._served, case._replace(side=name)))

    def _first(self, prefix: int) -> Iterator[Task]:
        yield Task(f"first token, prefix {prefix}", lambda _: self._keep_first(SEPARATE, prefix, self.ours.first_token))
        if self.plain is not None:
            yield Task(f"first token: {GENERATE}", lambda _: self._keep_first(GENERATE, prefix, self._generate_first))
        for name in list(self.endpoints):
            yield Task(f"first token: {name}", partial(self._served_first, name, prefix))

    def _fits(self, case: Case) -> bool:
        """Whether there is memory for keys and values of so many rows; branches share their prefix. A note, if not."""
        own = 2 * self.config.decode_steps + _OUTLINE
        needed = case.prefix + case.rows * own if case.side == FORKED else case.rows * (case.prefix + own)
        if needed > self.llm.room:
            self.record.notes.append(
                f"{case.side}: {case.rows} rows behind {case.prefix:,} tokens are left out: there is memory for the keys and "
                f"values of {self.llm.room:,} tokens (--kv-memory)"
            )
        return needed <= self.llm.room

    # ---- our engine

    def _ours(self, case: Case, steps: int) -> None:
        with self._noting(case.side, f"{case.rows} rows, prefix {case.prefix}"):
            take = self.ours.branches if case.side == FORKED else self.ours.separate
            seconds = take(case.rows, case.prefix, steps)
            self.record.speeds.setdefault(case, []).append(case.rows * steps / sum(seconds))

    def _documents(self, prefix: int, steps: int) -> None:
        """Documents of each number of paths, and a line as long as the longest, whose first tokens each is compared with."""
        with self._noting("whole documents", f"prefix {prefix}"):
            written = {paths: self.ours.document(paths, prefix, steps) for paths in self.config.rows if paths > 1}
            line = self.ours.line(max(one.tokens for one in written.values()), prefix)
            for paths, one in written.items():
                whole = Whole(one.tokens, one.critical_path_tokens, sum(one.seconds), sum(line[: one.tokens - 1]))
                self.record.documents.setdefault((paths, prefix), []).append(whole)

    # ---- others

    def _open(self, on_task: Progress) -> None:
        """Load and start the other engines; one that cannot be had is a note."""
        config = self.config
        if "generate" in config.against:
            on_task(f"loading {GENERATE}", 0, 1)
            with self._noting(GENERATE, "loading"):
                self._load_generate()
        for url in config.server_url:
            on_task(f"asking {url}", 0, 1)
            with self._noting(url, "looking it up"):
                self._add(url, ServerOptions(url, config.served_model, config.api_key))
        if "llama.cpp" in config.against:
            self._start(LLAMA, config.llama_server, self._llama(), on_task)
        if "vllm" in config.against:
            self._start(VLLM, config.vllm, self._vllm(), on_task)

    def _add(self, name: str, options: ServerOptions) -> None:
        endpoint = Endpoint(options)
        self.endpoints[name] = endpoint
        self.record.versions[name] = f"{endpoint.about.api.name}, model {endpoint.about.model}"

    def _load_generate(self) -> None:
        from transformers.utils import logging

        from ..models.weights import load_weights

        logging.disable_progress_bar()
        own = self.llm.engine.loaded
        dtype = str(own.model.dtype).removeprefix("torch.")
        self.plain = load_weights(own.source, dtype).eval().to(own.model.device)
        self.record.versions[GENERATE] = f"transformers' own model, {dtype}"

    def _generate(self, case: Case, steps: int) -> None:
        with self._noting(GENERATE, f"{case.rows} rows, prefix {case.prefix}"):
            from .generate import generate_seconds

            seconds = generate_seconds(self.plain, case.rows, self.ours.prompt(case.prefix), steps)
            self.record.speeds.setdefault(case, []).append(case.rows * steps / seconds)

    def _generate_first(self, prefix: int) -> float:
        from .generate import first_token_seconds

        return first_token_seconds(self.plain, self.ours.prompt(prefix))

    def _served(self, case: Case, steps: int) -> None:
        if case.side in self.endpoints:
            with self._noting(case.side, f"{case.rows} rows, prefix {case.prefix}", drop=True):
                prompt = self.ours.prompt(case.prefix)
                self.endpoints[case.side].first_token(prompt)  # into its cache, so that all begin together
                self.record.speeds.setdefault(case, []).append(self.endpoints[case.side].decode([prompt] * case.rows, steps))

    def _served_first(self, name: str, prefix: int, _: int) -> None:
        if name in self.endpoints:
            with self._noting(name, f"first token, prefix {prefix}", drop=True):
                self._keep_first(name, prefix, lambda length: self.endpoints[name].first_token(self.ours.prompt(length)))

    def _keep_first(self, side: str, prefix: int, take: Callable[[int], float]) -> None:
        with self._noting(side, f"first token, prefix {prefix}"):
            self.record.first_tokens.setdefault((side, prefix), []).append(take(prefix))

    @contextmanager
    def _noting(self, side: str, where: str, *, drop: bool = False) -> Iterator[None]:
        """What fails is a note, once.

        Args:
            drop: do not ask this server again.
        """
        try:
            yield
        except (MultiverseError, RuntimeError, OSError, ValueError, AssertionError, subprocess.SubprocessError) as error:
            note = f"{side}: left out ({where}): {why(error)}"
            if note not in self.record.notes:
                self.record.notes.append(note)
            if drop:
                self.endpoints.pop(side, None)

    # ---- servers that are started here

    def _llama(self) -> list[str] | str:
        own = self.llm.engine.loaded
        path = self.config.gguf if self.config.gguf is not None else own.path
        if not (str(path).endswith(".gguf") and Path(path).expanduser().is_file()):
            return "it needs the model as a GGUF file: --gguf FILE"
        context = (max(self.config.prefixes) + 2 * self.config.decode_steps) * max(self.config.rows)
        slots = str(max(self.config.rows))
        return ["--model", str(Path(path).expanduser()), "--ctx-size", str(context), "--parallel", slots, "--no-webui"]

    def _vllm(self) -> list[str] | str:
        longest = max(self.config.prefixes) + 2 * self.config.decode_steps
        return ["serve", self.llm.engine.loaded.source, "--max-model-len", str(longest + 16)]

    def _start(self, name: str, program: str, arguments: list[str] | str, on_task: Progress) -> None:
        found = shutil.which(str(Path(program).expanduser()) if "/" in program else program)
        if found is None:
            self.record.notes.append(f"{name}: not measured, there is no {program!r} here")
            return
        if isinstance(arguments, str):
            self.record.notes.append(f"{name}: not measured, {arguments}")
            return
        on_task(f"starting {name}", 0, 1)
        with self._noting(name, "starting"):
            port = _free_port()
            log = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "server.log"
            out = self.stack.enter_context(log.open("w"))
            command = [found, *arguments, "--host", "127.0.0.1", "--port", str(port)]
            process = self.stack.enter_context(started(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL))
            _wait(process, port, log)
            self._add(name, ServerOptions(f"http://127.0.0.1:{port}/v1"))


def _free_port() -> int:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port: int = own.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    ended = "did not answer in time" if process.poll() is None else f"ended with code {process.returncode}"
    raise UpstreamError(f"its server {ended}: {' | '.join(log.read_text(errors='replace').splitlines()[-3:])}")


def write(record: Record, path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(record.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
