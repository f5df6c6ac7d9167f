"""Everything that is measured, as a list of tasks that a run goes through once a repeat."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, NamedTuple

import torch

from benchmarks.bandwidth import Memory
from benchmarks.generate import generate_seconds
from benchmarks.others.environments import NAMES, open_worker
from benchmarks.others.protocol import Decode, Opening
from benchmarks.others.worker import Worker, WorkerError
from benchmarks.ours import Ours, balanced
from benchmarks.record import FORKED, PACKED, PLAIN, STOCK, Case, Record, Whole
from benchmarks.shape import random_model, weight_bytes
from multiverse.backends.cpu.packed_linears import pack_linears
from multiverse.structure import Document

KV_MEMORY = 1 << 30
JOIN_WIDTH = 4
OTHERS_ROWS = (1, 4, 8, 16)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often.

    Attributes:
        repeats: times that everything is measured, in turn.
        steps: decode steps of each measurement of speed.
        rows: numbers of rows; other engines are measured at those of them that are 1, 4, 8 or 16.
        prefixes: tokens that each row sees when the clock starts.
        lengths: letters a branch of the blocks whose join is timed.
        letters: letters a branch of the whole documents.
        widths: branches of the whole documents; parallelism is (width + 1) / 2.
        others: engines to compare with, where they have an environment.
    """

    repeats: int = 5
    steps: int = 64
    rows: tuple[int, ...] = (1, 2, 4, 8, 16)
    prefixes: tuple[int, ...] = (512, 2048)
    lengths: tuple[int, ...] = (32, 128, 512)
    letters: int = 96
    widths: tuple[int, ...] = (2, 3, 5, 7)
    others: tuple[str, ...] = tuple(NAMES)


class Task(NamedTuple):
    """One measurement: what to call it, how to take it and note it, and whether a warm-up is worth its time."""

    name: str
    run: Callable[[int], None]
    warm: bool = True


class Bench:
    """All sides, loaded, and the tasks that measure them. Close it to end the other engines."""

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
            self.ours = Ours(copy.deepcopy(self.stock), KV_MEMORY)
            # The same for every repeat: reading it is not measured, and an engine that remembers it saves us the time.
            self.prompts = {prefix: self.ours.prompt(prefix) for prefix in settings.prefixes}
            self._stack = self._stack.pop_all()  # all is well: what was opened stays open

    def close(self) -> None:
        """End the workers."""
        self._stack.close()

    def _open_workers(self) -> None:
        if not self.settings.others:
            return
        logs = Path(mkdtemp(prefix="multiverse-bench-"))  # stays: a worker's error message points there
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
        """Every measurement of one repeat; sides that are compared stand next to each other."""
        yield Task("memory", lambda _: self._read_memory())
        for prefix in self.settings.prefixes:
            for rows in self.settings.rows:
                yield from self._speeds(rows, prefix)
        for length in self.settings.lengths:
            yield Task(f"join of {length}-token branches", partial(self._join, length), warm=False)
        if self.settings.widths:
            yield Task("whole documents", self._documents, warm=False)

    def _speeds(self, rows: int, prefix: int) -> Iterator[Task]:
        where = f"{rows} rows, prefix {prefix}"
        yield Task(f"{PLAIN}: {where}", lambda steps: self._ours(Case(PLAIN, rows, prefix), self.ours.plain, steps))
        yield Task(f"{FORKED}: {where}", lambda steps: self._ours(Case(FORKED, rows, prefix), self.ours.forked, steps))
        if rows not in OTHERS_ROWS:
            return
        for name in self.workers:
            yield Task(f"{NAMES[name]}: {where}", partial(self._other, name, rows, prefix))
        for side, model in ((PACKED, self.packed), (STOCK, self.stock)):
            yield Task(f"{side}: {where}", partial(self._generate, Case(side, rows, prefix), model))

    def _read_memory(self) -> None:
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
        if worker is None:  # it failed earlier in the run
            return
        try:
            seconds = worker.seconds(Decode(rows, self.prompts[prefix], steps))
        except WorkerError as error:
            self.record.notes.append(f"{NAMES[name]}: gave up at {rows} rows, prefix {prefix}: {error}")
            self.workers.pop(name).close()
            return
        self.record.speeds[Case(NAMES[name], rows, prefix)].append(rows * steps / seconds)

    def _join(self, length: int, _: int) -> None:
        self.record.joins[length].append(self.ours.join(JOIN_WIDTH, self.settings.prefixes[0], length))

    def _documents(self, _: int) -> None:
        """The documents, and one text in sequence as long as the longest of them: its first tokens are the others' counterpart.

        Clocks start at the first token of each, when the prompt has been read.
        """
        prefix, letters = self.settings.prefixes[0], self.settings.letters
        written = {w: self.ours.write(balanced(w, letters, self.ours.tokens), prefix) for w in self.settings.widths}
        longest = max(one.tokens for one in written.values())
        sequence = [step.seconds for step in self.ours.write(Document(None, "x" * longest), prefix).steps]
        for width, one in written.items():
            speedup = sum(sequence[: one.tokens - 1]) / sum(step.seconds for step in one.steps)
            self.record.documents[width].append(Whole(one.tokens, one.parallelism, speedup))
