"""Latency against parallelism, and speed-up against batch size (the paper's Figure 8).

Weights are random bf16 in the shape of a real model and documents are scripted: the figures say nothing about what a model
generates. Every document is a trunk and one block (see `documents`), so its parallelism is known; the engine counts it again.
Prefill is not timed. All cases are measured in turn, in every second repeat in reverse order; figures are medians over the
repeats, and ratios are medians of the ratios within a repeat.

- One document at a time: milliseconds per token at parallelism x, for each context (tokens of the prompt), with the
  least-squares fit of a / x + b. Forking divides a; b is the cost of a token that forking does not change.
- Many documents at once: speed-up of a batch over the same batch of sequential documents.

    python -m benchmarks.latency --json out.json --plot out.svg
    python -m benchmarks.latency --device cuda --shape qwen2.5-7b --contexts 8192 16384 32768 --parallelisms 1 1.5 2 3 4 6 8 \\
        --batches 1 2 4 8 16 32 64 128 --json out.json
    python -m benchmarks.latency --quick                          # small sizes: shows that everything runs
    python -m benchmarks.latency --load out.json --plot out.svg   # show a stored run again

`--clock cpu` takes the processor time of this process in place of wall-clock time: for one thread on a machine with other load.
The effect of that load on caches and memory bandwidth remains.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers.utils import logging

from benchmarks.documents import SizedDocument, sized_document
from benchmarks.fit import Fit, fit
from benchmarks.latency_plot import draw
from benchmarks.machine import describe, load_notes
from benchmarks.options import add_settings, make_parser, settings_from
from benchmarks.scripted import ScriptedEngine
from benchmarks.shape import SHAPES, random_model, shape_config
from multiverse.errors import ConfigError
from multiverse.options import Options, option
from multiverse.structure import Document

LABEL = "random weights, scripted structure: the engine is measured, not a model"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Settings(Options):
    """What is measured: documents one at a time, and several side by side."""

    shape: str = option("qwen2.5-0.5b", "A file of recipes/shapes.")
    device: Literal["cpu", "cuda"] = option("cpu", "Where the model runs.")
    clock: Literal["wall", "cpu"] = option("wall", "Wall-clock time, or processor time of this process (only on the CPU).")
    repeats: int = option(3, "Measurements of every case, interleaved.", ge=1, metavar="N")
    contexts: tuple[int, ...] = option((512, 2048), "Tokens of the prompt of single documents.", ge=1, metavar="N")
    parallelisms: tuple[float, ...] = option((1.0, 1.25, 1.5, 2.0, 3.0, 4.0), "Of single documents.", ge=1, metavar="X")
    chain: int = option(192, "Tokens of the longest chain of single documents.", ge=1, metavar="N")
    batches: tuple[int, ...] = option((1, 2, 4, 8, 16), "Numbers of documents side by side.", ge=1, metavar="N")
    batch_parallelisms: tuple[float, ...] = option(
        (1.0, 1.1, 1.25, 1.5, 2.0), "Of documents side by side; 1 must be among them.", ge=1, metavar="X"
    )
    batch_context: int = option(256, "Tokens of each prompt of documents side by side.", ge=1, metavar="N")
    batch_chain: int = option(96, "Tokens of the longest chain of each of them.", ge=1, metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if 1 not in self.batch_parallelisms:
            raise ConfigError("batch_parallelisms must contain 1, which all others are compared with")
        if self.clock == "cpu" and self.device != "cpu":
            raise ConfigError(
                f"clock=cpu does not time device={self.device}, for which this process only waits: use clock=wall"
            )


QUICK = Settings(repeats=1, contexts=(32, 64), parallelisms=(1.0, 1.5, 2.0), chain=96, batches=(1, 2), batch_context=32)


class Case(NamedTuple):
    """`batch` documents side by side, each of the requested parallelism, behind prompts of `context` tokens."""

    part: str
    context: int
    batch: int
    asked: float


@dataclass
class Measured:
    """Figures of one case.

    Attributes:
        width, chain: paths of the block, tokens of the longest chain.
        tokens: generated while the clock ran, over the whole batch.
        parallelism: as the engine counts it.
        seconds: one entry per repeat.
    """

    width: int
    chain: int
    tokens: int
    parallelism: float
    seconds: list[float] = field(default_factory=list)

    @property
    def ms(self) -> list[float]:
        """Milliseconds per token, one entry per repeat."""
        return [1000 * seconds / self.tokens for seconds in self.seconds]


@dataclass
class Run:
    """The figures of a run so far.

    Attributes:
        machine: its description.
        notes: circumstances that affect the figures.
    """

    machine: str
    settings: Settings
    cases: dict[Case, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def fits(self) -> dict[int, Fit]:
        """The fit of each context with more than two points, over the medians of the repeats."""
        found = {}
        for context in self.settings.contexts:
            points = [(one.parallelism, median(one.ms)) for case, one in self.of("latency") if case.context == context]
            if len(points) > 2:
                found[context] = fit(*zip(*points, strict=True))
        return found

    def of(self, part: str) -> list[tuple[Case, Measured]]:
        """The cases of ``latency`` or ``batch``."""
        return [(case, one) for case, one in self.cases.items() if case.part == part and one.seconds]

    def speedups(self) -> dict[Case, list[float]]:
        """Speed-up over the same batch of sequential documents, one entry per repeat."""
        found = {}
        for case, one in self.of("batch"):
            sequential = self.cases.get(case._replace(asked=1.0))
            if sequential is not None:
                found[case] = [a / b for a, b in zip(sequential.ms, one.ms, strict=False)]
        return found

    def save(self, path: Path) -> None:
        """Write the run as JSON, with medians, fits and speed-ups."""
        speedups = self.speedups()
        content = {
            "label": LABEL,
            "machine": self.machine,
            "settings": asdict(self.settings),
            "notes": self.notes,
            "fits": {context: one._asdict() for context, one in self.fits().items()},
            "cases": [
                case._asdict()
                | asdict(one)
                | {"median_ms": median(one.ms)}
                | ({"median_speedup": median(speedups[case])} if case in speedups else {})
                for case, one in self.cases.items()
                if one.seconds
            ],
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a file that `save` wrote."""
        content = json.loads(path.read_text())
        cases = {
            Case(*(entry[name] for name in Case._fields)): Measured(
                **{name: entry[name] for name in ("width", "chain", "tokens", "parallelism", "seconds")}
            )
            for entry in content["cases"]
        }
        settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content["settings"].items()}
        return cls(content["machine"], Settings(**settings), cases, content["notes"])


def measure(settings: Settings, model: Any = None, path: Path | None = None) -> Run:
    """Run all measurements; the run is stored after every repeat.

    Args:
        model: used in place of one of the settings' shape.
    """
    run = Run(describe(settings.device), settings, notes=load_notes())
    model = model if model is not None else random_model(shape_config(settings.shape), settings.device)
    ours = ScriptedEngine(model, _kv_memory(settings, model), settings.device)
    cases = list(_cases(settings, ours))
    most = max(case.batch * max(1, sized.width) for case, sized in cases)
    ours.engine.scheduler.max_batch_branches = max(ours.engine.scheduler.max_batch_branches, most)
    ours.engine.scheduler.max_requests = max(ours.engine.scheduler.max_requests, *settings.batches)
    prompts = {context: ours.prompt(context) for context in settings.contexts}
    batch = [ours.prompt(settings.batch_context) for _ in range(max(settings.batches))]
    console = Console(stderr=True)
    for context in settings.contexts:  # prefills the prompts, and warms up
        ours.run_batch(Document(None, "y" * 8), [prompts[context]], CLOCKS[settings.clock])
    for repeat in range(settings.repeats):
        order = cases if repeat % 2 == 0 else cases[::-1]
        for case, sized in track(order, f"repeat {repeat + 1} of {settings.repeats}", console=console, transient=True):
            own = [prompts[case.context]] if case.part == "latency" else batch[: case.batch]
            one = ours.run_batch(sized.document, own, CLOCKS[settings.clock])
            run.cases.setdefault(case, Measured(sized.width, sized.chain, one.tokens, one.parallelism)).seconds.append(
                one.seconds
            )
        if path is not None:
            run.save(path)
    return run


def _cases(settings: Settings, ours: ScriptedEngine) -> Iterator[tuple[Case, SizedDocument]]:
    for context in settings.contexts:
        for asked in settings.parallelisms:
            yield Case("latency", context, 1, asked), sized_document(asked, settings.chain, ours.tokens)
    for batch in settings.batches:
        for asked in settings.batch_parallelisms:
            yield Case("batch", settings.batch_context, batch, asked), sized_document(asked, settings.batch_chain, ours.tokens)


def _kv_memory(settings: Settings, model: Any) -> int:
    """Bytes of keys and values of twice all prompts and the longest documents behind them."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize
    longest = 2 * settings.chain * max((*settings.parallelisms, 8.0))
    batch = max((*settings.batches, 1)) * (settings.batch_context + 4 * settings.batch_chain)
    return int(2 * bytes_per_token * (sum(settings.contexts) + longest + batch + 1024))


def show(run: Run, console: Console | None = None) -> None:
    """Print all tables and notes."""
    console = console or Console(width=120)
    console.print(f"[bold]{run.settings.shape}[/bold], bf16, {LABEL}", highlight=False)
    if run.settings.contexts:
        console.print(_latency(run))
        for context, one in run.fits().items():
            console.print(f"  context {context:,}: {one} over {one.points} points", highlight=False)
        console.print()
    if run.settings.batches:
        console.print(_batches(run))
    for line in (*run.notes, _clock(run), run.machine):
        console.print(line, highlight=False)


def _latency(run: Run) -> Table:
    table = Table(title="One document: ms per token, median (lowest-highest)", title_justify="left", box=None)
    table.add_column("context")
    for asked in run.settings.parallelisms:
        table.add_column(f"x={asked:g}", justify="right")
    for context in run.settings.contexts:
        cells = [run.cases.get(Case("latency", context, 1, asked)) for asked in run.settings.parallelisms]
        table.add_row(f"{context:,}", *("" if one is None else _spread(one.ms, 1) for one in cells))
    return table


def _batches(run: Run) -> Table:
    context = run.settings.batch_context
    table = Table(title=f"Side by side, context {context:,}: speed-up over sequential", title_justify="left", box=None)
    table.add_column("batch")
    asked_for = [asked for asked in run.settings.batch_parallelisms if asked != 1]
    table.add_column("sequential,\nms per token", justify="right")
    for asked in asked_for:
        table.add_column(f"x={asked:g}", justify="right")
    speedups = run.speedups()
    for batch in run.settings.batches:
        sequential = run.cases.get(Case("batch", context, batch, 1.0))
        cells = [speedups.get(Case("batch", context, batch, asked)) for asked in asked_for]
        table.add_row(
            str(batch),
            "" if sequential is None else _spread(sequential.ms, 1),
            *("" if not one else _spread(one, 2) for one in cells),
        )
    return table


def _spread(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _clock(run: Run) -> str:
    what = "wall-clock time" if run.settings.clock == "wall" else "processor time of one process"
    return f"{run.settings.repeats} interleaved repeats; {what}."


def main() -> None:
    parser = make_parser(__doc__, json="after every repeat", plot=".svg, .png or .pdf", load=True, quick=True)
    add_settings(parser, Settings)
    options = parser.parse_args()
    logging.disable_progress_bar()
    if options.load is not None:
        run = Run.load(options.load)
    else:
        settings = settings_from(parser, options, QUICK if options.quick else Settings())
        if settings.device != "cpu" and not torch.cuda.is_available():
            parser.error(f"--device {settings.device}: torch finds no CUDA device")
        if not (SHAPES / f"{settings.shape}.json").exists():
            parser.error(
                f"--shape {settings.shape}: choose from {', '.join(sorted(file.stem for file in SHAPES.glob('*.json')))}"
            )
        run = measure(settings, path=options.json)
    show(run)
    if options.plot is not None:
        draw(run, options.plot)


if __name__ == "__main__":
    main()
