"""The measurements of `benchmarks.engine`, as a list of tasks that is run once per repeat."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.bandwidth import Memory
from benchmarks.documents import balanced_document
from benchmarks.others.environments import NAMES, open_worker
from benchmarks.others.protocol import Decode, Opening
from benchmarks.others.worker import Worker, WorkerError
from benchmarks.record import FORKED, PACKED, PLAIN, STOCK, Case, Record, Whole
from benchmarks.scripted import ScriptedEngine
from benchmarks.shape import random_model, weight_bytes
from multiverse.backends.cpu.packed_linears import pack_linears
from multiverse.bench.generate import generate_seconds
from multiverse.options import Options, option
from multiverse.structure import Document

KV_MEMORY = 1 << 30
JOIN_WIDTH = 4
OTHERS_ROWS = (1, 4, 8, 16)


@dataclass(frozen=True)
class Settings(Options):
    """What `benchmarks.engine` measures, and how often."""

    repeats: int = option(5, "Measurements of every case, interleaved.", ge=1, metavar="N")
    steps: int = option(64, "Decode steps per measurement of speed.", ge=1, metavar="N")
    rows: tuple[int, ...] = option(
        (1, 2, 4, 8, 16), "Numbers of rows; other engines are measured at 1, 4, 8 and 16 of them.", ge=1, metavar="N"
    )
    prefixes: tuple[int, ...] = option((512, 2048), "Tokens that each row sees when the clock starts.", ge=1, metavar="N")
    lengths: tuple[int, ...] = option(
        (32, 128, 512), "Letters per branch of the blocks whose join is timed.", ge=1, metavar="N"
    )
    letters: int = option(96, "Letters per branch of the whole documents.", ge=1, metavar="N")
    widths: tuple[int, ...] = option(
        (2, 3, 5, 7), "Branches of the whole documents; their parallelism is (width + 1) / 2.", ge=2, metavar="N"
    )
    others: tuple[Literal["llama", "vllm"], ...] = option(("llama", "vllm"), "Other engines to compare with, if installed.")


class Task(NamedTuple):
    """One measurement: its name, a function that takes and records it, and whether it is part of the warm-up."""

    name: str
    run: Callable[[int], None]
    warm: bool = True


class Bench:
    """All engines, loaded, and the tasks that measure them; `close` ends the other engines."""

    def __init__(self, settings: Settings, record: Record) -> None:
        self.settings, self.record = settings, record
        self._stack = ExitStack()
        self.stock = random_model()
        record.weight_bytes = weight_bytes(self.stock)
        self.memory = Memory(record.weight_bytes, self.stock.config.hidden_size)
        self.workers: dict[str, Worker] = {}
        with self._stack:
            self._open_workers()
            self.packed = copy.deepcopy(self.stock)
            pack_linears(self.packed)
            self.ours = ScriptedEngine(copy.deepcopy(self.stock), KV_MEMORY)
            # The same in every repeat: prefill is not measured, and an engine with a prefix cache saves its time.
            self.prompts = {prefix: self.ours.prompt(prefix) for prefix in settings.prefixes}
            self._stack = self._stack.pop_all()  # no error: the workers stay open

    def close(self) -> None:
        """End the workers."""
        self._stack.close()

    def _open_workers(self) -> None:
        if not self.settings.others:
            return
        logs = Path(mkdtemp(prefix="multiverse-bench-"))  # kept: error messages of workers name it
        with TemporaryDirectory() as folder:
            self.stock.save_pretrained(folder)
            opening = Opening(
                folder=folder,
                threads=torch.get_num_threads(),
                rows=max(OTHERS_ROWS),
                positions=max(self.settings.prefixes) + self.settings.steps + 8,
            )
            for name in self.settings.others:
                worker = open_worker(name, opening, logs)
                if isinstance(worker, str):
                    self.record.notes.append(worker)
                    continue
                self._stack.callback(worker.close)
                self.workers[name] = worker
                self.record.versions.append(worker.version)

    def tasks(self) -> Iterator[Task]:
        """All measurements of one repeat; sides that are compared follow one another."""
        yield Task("memory", lambda _: self._measure_memory())
        for prefix in self.settings.prefixes:
            for rows in self.settings.rows:
                yield from self._speeds(rows, prefix)
        for length in self.settings.lengths:
            yield Task(f"join of {length}-token branches", partial(self._join, length), warm=False)
        if self.settings.widths:
            yield Task("whole documents", self._documents, warm=False)

    def _speeds(self, rows: int, prefix: int) -> Iterator[Task]:
        where = f"{rows} rows, prefix {prefix}"
        yield Task(f"{PLAIN}: {where}", lambda steps: self._ours(Case(PLAIN, rows, prefix), self.ours.separate, steps))
        yield Task(f"{FORKED}: {where}", lambda steps: self._ours(Case(FORKED, rows, prefix), self.ours.branches, steps))
        if rows not in OTHERS_ROWS:
            return
        for name in self.workers:
            yield Task(f"{NAMES[name]}: {where}", partial(self._other, name, rows, prefix))
        for side, model in ((PACKED, self.packed), (STOCK, self.stock)):
            yield Task(f"{side}: {where}", partial(self._generate, Case(side, rows, prefix), model))

    def _measure_memory(self) -> None:
        for name, speed in self.memory.measure().items():
            self.record.bandwidth[name].append(speed)

    def _ours(self, case: Case, measure: Callable[[int, int, int], list[float]], steps: int) -> None:
        seconds = measure(case.rows, case.prefix, steps)
        self.record.steps[case].append(median(seconds))
        self.record.speeds[case].append(case.rows * steps / sum(seconds))

    def _generate(self, case: Case, model: Any, steps: int) -> None:
        seconds = generate_seconds(model, case.rows, self.prompts[case.prefix], steps)
        self.record.speeds[case].append(case.rows * steps / seconds)

    def _other(self, name: str, rows: int, prefix: int, steps: int) -> None:
        worker = self.workers.get(name)
        if worker is None:  # it failed before
            return
        try:
            seconds = worker.seconds(Decode(rows, self.prompts[prefix], steps))
        except WorkerError as error:
            self.record.notes.append(f"{NAMES[name]}: failed at {rows} rows, prefix {prefix}: {error}")
            self.workers.pop(name).close()
            return
        self.record.speeds[Case(NAMES[name], rows, prefix)].append(rows * steps / seconds)

    def _join(self, length: int, _: int) -> None:
        self.record.joins[length].append(self.ours.join(JOIN_WIDTH, self.settings.prefixes[0], length))

    def _documents(self, _: int) -> None:
        """The documents, and a sequential text as long as the longest of them, whose first tokens each is compared with.

        Clocks start at the first token of each, after prefill.
        """
        prefix, letters = self.settings.prefixes[0], self.settings.letters
        runs = {w: self.ours.run(balanced_document(w, letters, self.ours.tokens), prefix) for w in self.settings.widths}
        longest = max(one.tokens for one in runs.values())
        sequence = [step.seconds for step in self.ours.run(Document(None, "x" * longest), prefix).steps]
        for width, one in runs.items():
            speedup = sum(sequence[: one.tokens - 1]) / sum(step.seconds for step in one.steps)
            self.record.documents[width].append(Whole(one.tokens, one.parallelism, speedup))
