"""Speed of the engine on a GPU, for the shapes of Qwen2.5, against the time that reading all weights takes.

Weights are random bf16 and documents are scripted: the figures say nothing about what a model generates. For each shape: memory
bandwidth and the floor of a decode step that follows from it; milliseconds of a step at several numbers of rows, of separate
requests and of branches of one request; `generate` of transformers; latency per token against parallelism at several contexts,
fitted by a/x + b; the cost of fork and join; speed-up of whole documents over as many tokens in sequence.

    python -m benchmarks.gpu --json runs/gpu.json                    # everything, most of an hour
    python -m benchmarks.gpu --quick --json runs/gpu.json            # within ten minutes on one H100
    python -m benchmarks.gpu --shape 32b --only plain latency        # some of it
    python -m benchmarks.gpu --device cpu --shape tiny --quick       # shows that everything runs
    python -m benchmarks.gpu --load runs/gpu.json                    # show a stored run again

Measurements run in the order of their importance. After `--seconds` no further one starts, and the report names those that were
skipped. The record is stored after each one.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from transformers import Qwen2Config
from transformers.utils import logging

from benchmarks.documents import document_with_width
from benchmarks.fit import fit
from benchmarks.gpu_report import show
from benchmarks.machine import describe, synchronize
from benchmarks.options import make_parser
from benchmarks.scripted import ScriptedEngine
from benchmarks.shape import random_model, shape_config, weight_bytes
from multiverse.bench.generate import static_seconds
from multiverse.structure import Document

SHAPES = ("0.5b", "7b", "32b")
KINDS = ("generate", "plain", "forked", "latency", "join", "speedup")
_POSITIONS = 1 << 16  # the longest context and what is generated behind it; positions do not matter to random weights
_PREFIX = 512
_WARM = 4
_PATHS = 4


@dataclass(frozen=True)
class Settings:
    """What is measured of each shape, and how often.

    Attributes:
        steps: decode steps per measurement.
        rows: numbers of separate rows.
        contexts: tokens that each branch sees, in the latency curves.
        widths: branches, in the latency curves.
        lengths: tokens per branch, for the cost of a join.
        batches, parallelisms: of the documents whose speed-up is measured.
        letters: letters per path of those documents.
        generate: rows of transformers' `generate`.
    """

    steps: int = 64
    rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    contexts: tuple[int, ...] = (8192, 16384, 32768)
    widths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    lengths: tuple[int, ...] = (32, 128, 512, 2048)
    batches: tuple[int, ...] = (1, 4, 16, 64, 128)
    parallelisms: tuple[float, ...] = (1.1, 1.3, 1.5, 2.0)
    letters: int = 64
    generate: tuple[int, ...] = (1, 8)


QUICK = Settings(
    steps=24,
    rows=(1, 8, 64),
    widths=(1, 2, 4, 8, 16),
    lengths=(32, 256),
    batches=(1, 16, 64),
    parallelisms=(1.5, 1.1),
    letters=16,
    generate=(1,),
)
TINY = Settings(
    steps=4,
    rows=(1, 2),
    contexts=(96,),
    widths=(1, 2),
    lengths=(8,),
    batches=(2,),
    parallelisms=(1.5,),
    letters=12,
    generate=(1,),
)


class Task(NamedTuple):
    """A measurement: its place in the record, and the function that takes it."""

    kind: str
    key: str
    run: Callable[[], Any]


def config_of(shape: str) -> Qwen2Config:
    """Configuration of a Qwen2.5 of this size, or of ``tiny``, with room for the longest context."""
    return shape_config(shape if shape == "tiny" else f"qwen2.5-{shape}", max_position_embeddings=_POSITIONS)


def free_memory(device: str) -> None:
    """Release cached memory that is not in use."""
    gc.collect()
    if device == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()


def copy_bandwidth(device: str) -> float:
    """Bytes per second of a copy in memory, read and written bytes both counted: the fastest of several copies."""
    size, repeats = (1 << 32, 10) if device == "cuda" else (1 << 24, 3)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = max(best, 2 * size / (time.perf_counter() - start))
    return best


class Shape:
    """A model with random weights, and its measurements.

    Args:
        name: one of `SHAPES`, or ``tiny``.
        options: of the command line.
    """

    def __init__(self, name: str, settings: Settings, options: argparse.Namespace) -> None:
        self.name, self.settings, self.options, self.device = name, settings, options, options.device
        self.bandwidth = copy_bandwidth(self.device)
        free_memory(self.device)
        self.model = random_model(config_of(name), self.device)
        self.weight_bytes = weight_bytes(self.model)
        self._ours: ScriptedEngine | None = None
        self._prompt: list[int] = []

    @property
    def ours(self) -> ScriptedEngine:
        """The engine; it changes the model, so `generate` of transformers must be measured first."""
        if self._ours is None:
            free_memory(self.device)
            self._ours = ScriptedEngine(self.model, self.options.kv_memory, self.device)
            self._ours.engine.scheduler.max_batch_branches = _PATHS * max(self.settings.batches)  # all branches in one forward
            if self.options.no_async_scheduling:
                self._ours.engine.backend.max_rows_ahead = 0
        return self._ours

    def tasks(self) -> Iterator[Task]:
        """All measurements, the most important first."""
        chosen = self.settings
        for rows in chosen.generate:
            yield Task("generate", str(rows), partial(self._generate, rows))
        for rows in chosen.rows:
            yield Task("plain", str(rows), lambda rows=rows: self._steps(self.ours.separate, rows, _PREFIX))  # type: ignore[misc]
        for rows in chosen.rows:
            if 1 < rows <= max(chosen.widths):
                yield Task("forked", str(rows), lambda rows=rows: self._steps(self.ours.branches, rows, _PREFIX))  # type: ignore[misc]
        for context in chosen.contexts:
            for width in chosen.widths:
                yield Task("latency", f"{context} {width}", partial(self._latency, context, width))
        for length in chosen.lengths:
            yield Task("join", str(length), partial(self._join, length))
        for parallelism in chosen.parallelisms:
            for batch in chosen.batches:
                yield Task("speedup", f"{batch} {parallelism}", partial(self._speedup, batch, parallelism))

    def _generate(self, rows: int) -> float:
        if self._ours is not None:
            raise RuntimeError("the engine has already changed the model")
        prompt = [token % 200 for token in range(min(_PREFIX, self.settings.contexts[0]))]
        for _ in range(2):  # compiles
            static_seconds(self.model, rows, prompt, _WARM)
        return 1e3 * median(static_seconds(self.model, rows, prompt, self.settings.steps))

    def _steps(self, measure: Callable[[int, int, int], list[float]], rows: int, prefix: int) -> float:
        """Milliseconds of a step, after a few steps of warm-up."""
        prefix = min(prefix, self.settings.contexts[0]) if prefix == _PREFIX else prefix
        return 1e3 * median(measure(rows, prefix, _WARM + self.settings.steps)[_WARM:])

    def _latency(self, context: int, width: int) -> float:
        """Milliseconds of a step inside a block; every width has the same prompt, which is prefilled once."""
        if len(self._prompt) < context:
            self._prompt += self.ours.prompt(context - len(self._prompt))
        steps = self.ours.branches(width, context, _WARM + self.settings.steps, self._prompt)
        return 1e3 * median(steps[_WARM:])

    def _join(self, length: int) -> dict[str, float]:
        prefix = min(_PREFIX, self.settings.contexts[0])
        self.ours.join(_PATHS, prefix, 8)  # warm-up
        joins = [self.ours.join(_PATHS, prefix, length) for _ in range(3)]
        return {name: 1e3 * median(getattr(join, name) for join in joins) for name in ("fork", "join", "plain")}

    def _speedup(self, batch: int, parallelism: float) -> dict[str, float]:
        """Whole documents against as many texts of as many tokens in sequence; prefill of the short prompts is not timed."""
        document = document_with_width(parallelism, _PATHS, self.settings.letters, self.ours.tokens)
        prompts = [self.ours.prompt(16) for _ in range(batch)]
        short = document_with_width(2.0, _PATHS, 4, self.ours.tokens)
        self.ours.run_batch(short, prompts, time.perf_counter)  # warm-up
        forked = self.ours.run_batch(document, prompts, time.perf_counter)
        sequential = self.ours.run_batch(Document(None, "x" * (forked.tokens // batch)), prompts, time.perf_counter)
        speedup = (sequential.seconds / sequential.tokens) / (forked.seconds / forked.tokens)
        return {"parallelism": forked.parallelism, "speedup": speedup, "tokens": forked.tokens}


def measure(options: argparse.Namespace, settings: Settings, console: Console) -> dict[str, Any]:
    """Run all measurements that the time limit allows."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started = time.monotonic()
    deadline = started + options.seconds if options.seconds is not None else math.inf
    record: dict[str, Any] = {
        "machine": describe(options.device),
        "load": os.getloadavg()[0],
        "device": options.device,
        "async_scheduling": not options.no_async_scheduling,
        "settings": asdict(settings),
        "shapes": {},
        "notes": [],
    }
    with Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)
        for name in options.shape:
            progress.update(bar, description=f"{name}: random weights")
            if time.monotonic() > deadline:
                record["notes"].append(f"{name} was skipped: the time limit was reached.")
                continue
            try:
                shape = Shape(name, settings, options)
            except torch.OutOfMemoryError as error:
                record["notes"].append(f"{name} does not fit: {str(error).splitlines()[0]}")
                continue
            _measure_shape(shape, record, deadline, lambda text: progress.update(bar, description=text))
            del shape
            free_memory(options.device)
    record["seconds"] = time.monotonic() - started
    _store(record, options.json)
    return record


def _measure_shape(shape: Shape, record: dict[str, Any], deadline: float, report: Callable[[str], None]) -> None:
    """Run the tasks of one shape; the record is stored after each."""
    found: dict[str, Any] = {"copy_bytes_per_second": shape.bandwidth, "weight_bytes": shape.weight_bytes}
    record["shapes"][shape.name] = found
    skipped: list[str] = []
    for task in shape.tasks():
        if shape.options.only is not None and task.kind not in shape.options.only:
            continue
        if time.monotonic() > deadline:
            skipped.append(f"{task.kind} {task.key}")
            continue
        report(f"{shape.name}: {task.kind} {task.key}")
        try:
            found.setdefault(task.kind, {})[task.key] = task.run()
        except Exception as error:  # the other measurements go on
            record["notes"].append(f"{shape.name}: {task.kind} {task.key} failed: {type(error).__name__}: {error}")
        _summarise(found)
        _store(record, shape.options.json)
    if skipped:
        record["notes"].append(f"{shape.name}: skipped, the time limit was reached: {', '.join(skipped)}")


def _summarise(found: dict[str, Any]) -> None:
    """Add the floor, and the fit of each latency curve with more than one point."""
    found["floor_ms"] = 1e3 * found["weight_bytes"] / found["copy_bytes_per_second"]
    curves: dict[str, dict[float, float]] = {}
    for key, step in found.get("latency", {}).items():
        context, width = key.split()
        curves.setdefault(context, {})[float(width)] = step / float(width)
    found["fits"] = {
        context: fit(list(points), list(points.values()))._asdict() for context, points in curves.items() if len(points) > 1
    }


def _store(record: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(record, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Measure or load, then show."""
    options = _options(arguments)
    if options.load is not None:
        record = json.loads(options.load.read_text())
    else:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("torch finds no CUDA device: --device cpu --shape tiny --quick shows that everything runs")
        settings = TINY if options.shape == ["tiny"] else QUICK if options.quick else Settings()
        if options.steps is not None:
            settings = replace(settings, steps=options.steps)
        if options.quick and options.seconds is None:
            options.seconds = 540.0
        record = measure(options, settings, Console(stderr=True))
    show(record)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--shape``."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", nargs="+", choices=(*SHAPES, "tiny"), default=list(SHAPES), help="sizes of Qwen2.5")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, json="after every measurement", load=True)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, and no measurement starts after nine minutes")
    add_device(parser)
    parser.add_argument("--only", nargs="+", choices=KINDS, help="only these measurements")
    parser.add_argument("--steps", type=int, help="decode steps per measurement")
    parser.add_argument("--seconds", type=float, help="start no measurement after this time")
    parser.add_argument(
        "--no-async-scheduling", action="store_true", help="start no forward before the previous one's tokens are on the host"
    )
    parser.add_argument("--kv-memory", type=int, help="bytes for keys and values; by default the engine decides")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
