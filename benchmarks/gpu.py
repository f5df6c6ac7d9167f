"""What the engine does on a GPU, on the shapes that people serve, against the time that reading the weights takes.

The shapes are Qwen2.5's, the weights are random bf16, the structure is scripted: machinery is measured here, not a model.
For each shape: how fast memory is copied and the floor that this puts under a decode step; milliseconds of a step for one row
and many, unrelated and as branches of one request; transformers' generate beside it; latency a token against parallelism at
several contexts, fitted by a/x + b; what fork and join cost; speed-up of whole documents against as many tokens in sequence.

    python -m benchmarks.gpu --json runs/gpu.json                    # everything, the better part of an hour
    python -m benchmarks.gpu --quick --json runs/gpu.json            # within ten minutes on one H100
    python -m benchmarks.gpu --shape 32b --only plain latency        # some of it
    python -m benchmarks.gpu --device cpu --shape tiny --quick       # does it run at all? its figures mean nothing
    python -m benchmarks.gpu --load runs/gpu.json                    # show a stored run again

Measurements stand in the order of their importance. When `--seconds` are over, no further one is begun, and the run says which
were left out. The run is stored after each one.
"""

from __future__ import annotations

import argparse
import gc
import json
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
from transformers import AutoModelForCausalLM, Qwen2Config
from transformers.utils import logging

from benchmarks.fit import fit
from benchmarks.generate import static_seconds
from benchmarks.gpu_report import show
from benchmarks.machine import describe
from benchmarks.ours import Ours, partly
from benchmarks.shape import weight_bytes
from multiverse.structure import Document

SHAPES = ("0.5b", "7b", "32b")
KINDS = ("generate", "plain", "forked", "latency", "join", "speedup")
_FOLDER = Path(__file__).parents[1] / "recipes" / "shapes"
_POSITIONS = 1 << 16  # the longest context leaves room to write behind it; on random weights that is no matter
_PREFIX = 512
_WARM = 4
_PATHS = 4


@dataclass(frozen=True)
class Settings:
    """What is measured of each shape, and how often.

    Attributes:
        steps: decode steps of each measurement.
        rows: numbers of unrelated rows.
        contexts: tokens that each branch sees, in the latency curves.
        widths: branches, in the latency curves.
        lengths: tokens a branch, for the cost of a join.
        batches, parallelisms: of the documents whose speed-up is measured.
        letters: letters a path of those.
        generate: rows of transformers' generate.
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
    """A measurement: where in the record it goes, and what takes it."""

    kind: str
    key: str
    run: Callable[[], Any]


def config_of(shape: str) -> Qwen2Config:
    """A shape of `recipes/shapes`, or ``tiny``, which shows that everything runs."""
    content: dict[str, Any]
    if shape == "tiny":
        content = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 512}
        content |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    else:
        content = json.loads((_FOLDER / f"qwen2.5-{shape}.json").read_text())
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    content |= {"max_position_embeddings": _POSITIONS, "rope_parameters": rope, "bos_token_id": None, "eos_token_id": None}
    return Qwen2Config(**content)


def synchronize(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def forget(device: str) -> None:
    """Give back what is held and not used, so that what comes next finds it free."""
    gc.collect()
    if device == "cuda":
        torch.compiler.reset()
        torch.cuda.empty_cache()


def copy_speed(device: str, size: int = 1 << 32, repeats: int = 10) -> float:
    """Bytes a second that memory copies, read and written bytes both counted: the best of several copies."""
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
    """One model of a shape, and everything that is measured of it."""

    def __init__(
        self, name: str, device: str, settings: Settings, kv_memory: int | None, *, async_scheduling: bool = True
    ) -> None:
        self.name, self.device, self.settings = name, device, settings
        self.kv_memory, self.async_scheduling = kv_memory, async_scheduling
        self.speed = copy_speed(device, *((1 << 32, 10) if device == "cuda" else (1 << 24, 3)))
        forget(device)
        torch.manual_seed(0)
        with torch.device(device):
            self.model = AutoModelForCausalLM.from_config(config_of(name), dtype=torch.bfloat16).eval()
        # An embedding is looked up, not read, unless it is the output layer as well.
        embedding = 0 if self.model.config.tie_word_embeddings else self.model.get_input_embeddings().weight.nbytes
        self.weight_bytes = weight_bytes(self.model) - embedding
        self._ours: Ours | None = None
        self._prompt: list[int] = []

    @property
    def ours(self) -> Ours:
        """The engine; it changes the model, so transformers' generate has to come first."""
        if self._ours is None:
            forget(self.device)
            self._ours = Ours(self.model, self.kv_memory, self.device)
            self._ours.engine.scheduler.max_batch_branches = _PATHS * max(self.settings.batches)  # no waves here
            if not self.async_scheduling:
                self._ours.engine.backend.max_rows_ahead = 0
        return self._ours

    def tasks(self) -> Iterator[Task]:
        """Everything, the most telling first."""
        chosen = self.settings
        for rows in chosen.generate:
            yield Task("generate", str(rows), partial(self._generate, rows))
        for rows in chosen.rows:
            yield Task("plain", str(rows), lambda rows=rows: self._steps(self.ours.plain, rows, _PREFIX))  # type: ignore[misc]
        for rows in chosen.rows:
            if 1 < rows <= max(chosen.widths):
                yield Task("forked", str(rows), lambda rows=rows: self._steps(self.ours.forked, rows, _PREFIX))  # type: ignore[misc]
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
        for _ in range(2):  # what it compiles, it compiles now
            static_seconds(self.model, rows, prompt, _WARM)
        return 1e3 * median(static_seconds(self.model, rows, prompt, self.settings.steps))

    def _steps(self, measure: Callable[[int, int, int], list[float]], rows: int, prefix: int) -> float:
        """Milliseconds of a step, after a few that compile and record what there is to compile and record."""
        prefix = min(prefix, self.settings.contexts[0]) if prefix == _PREFIX else prefix
        return 1e3 * median(measure(rows, prefix, _WARM + self.settings.steps)[_WARM:])

    def _latency(self, context: int, width: int) -> float:
        """As `_steps` inside a block; every width has the same prompt, so that it is read once."""
        if len(self._prompt) < context:
            self._prompt += self.ours.prompt(context - len(self._prompt))
        steps = self.ours.forked(width, context, _WARM + self.settings.steps, self._prompt)
        return 1e3 * median(steps[_WARM:])

    def _join(self, length: int) -> dict[str, float]:
        prefix = min(_PREFIX, self.settings.contexts[0])
        self.ours.join(_PATHS, prefix, 8)  # compiles and records
        joins = [self.ours.join(_PATHS, prefix, length) for _ in range(3)]
        return {name: 1e3 * median(getattr(join, name) for join in joins) for name in ("fork", "join", "plain")}

    def _speedup(self, batch: int, parallelism: float) -> dict[str, float]:
        """Whole documents against as many texts of as many tokens in sequence; neither clock counts the short prompts."""
        document = partly(parallelism, _PATHS, self.settings.letters, self.ours.tokens)
        prompts = [self.ours.prompt(16) for _ in range(batch)]
        short = partly(2.0, _PATHS, 4, self.ours.tokens)
        self.ours.together(short, prompts, time.perf_counter)  # compiles and records
        forked = self.ours.together(document, prompts, time.perf_counter)
        line = self.ours.together(Document(None, "x" * (forked.tokens // batch)), prompts, time.perf_counter)
        speedup = (line.seconds / line.tokens) / (forked.seconds / forked.tokens)
        return {"parallelism": forked.parallelism, "speedup": speedup, "tokens": forked.tokens}


def measure(options: argparse.Namespace, settings: Settings, console: Console) -> dict[str, Any]:
    """Run everything that there is time for."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started = time.monotonic()
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
            over = started + options.seconds if options.seconds is not None else None
            if over is not None and time.monotonic() > over:
                record["notes"].append(f"{name} was left out: the time was over.")
                continue
            try:
                shape = Shape(
                    name, options.device, settings, options.kv_memory, async_scheduling=not options.no_async_scheduling
                )
            except torch.OutOfMemoryError as error:
                record["notes"].append(f"{name} does not fit: {str(error).splitlines()[0]}")
                continue
            found: dict[str, Any] = {"copy_bytes_per_second": shape.speed, "weight_bytes": shape.weight_bytes}
            record["shapes"][name] = found
            left_out: list[str] = []
            for task in shape.tasks():
                if options.only is not None and task.kind not in options.only:
                    continue
                if over is not None and time.monotonic() > over:
                    left_out.append(f"{task.kind} {task.key}")
                    continue
                progress.update(bar, description=f"{name}: {task.kind} {task.key}")
                try:
                    found.setdefault(task.kind, {})[task.key] = task.run()
                except Exception as error:  # the others are worth having all the same
                    record["notes"].append(f"{name}: {task.kind} {task.key} failed: {type(error).__name__}: {error}")
                _summarise(found)
                _store(record, options.json)
            if left_out:
                record["notes"].append(f"{name}: left out, the time was over: {', '.join(left_out)}")
            del shape
            forget(options.device)
    record["seconds"] = time.monotonic() - started
    _store(record, options.json)
    return record


def _summarise(found: dict[str, Any]) -> None:
    """The floor, and the fit of each latency curve that has enough points."""
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
            raise SystemExit("torch finds no CUDA here: --device cpu --shape tiny --quick shows that everything runs")
        settings = TINY if options.shape == ["tiny"] else QUICK if options.quick else Settings()
        if options.steps is not None:
            settings = replace(settings, steps=options.steps)
        if options.quick and options.seconds is None:
            options.seconds = 540.0
        record = measure(options, settings, Console(stderr=True))
    show(record)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, and no measurement begun after nine minutes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", nargs="+", choices=(*SHAPES, "tiny"), default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=KINDS, help="only these measurements")
    parser.add_argument("--steps", type=int, help="decode steps of each measurement")
    parser.add_argument("--seconds", type=float, help="begin no measurement when these are over")
    parser.add_argument(
        "--no-async-scheduling", action="store_true", help="begin no forward before the last one's tokens are on the host"
    )
    parser.add_argument("--kv-memory", type=int, help="bytes for keys and values; the default is what the engine takes")
    parser.add_argument("--json", type=Path, help="store the run here, after every measurement")
    parser.add_argument("--load", type=Path, help="show a stored run; measure nothing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
