"""Latency against parallelism, and speed-up against batch size: the two questions of the paper's Figure 8.

The shape is a real one, the weights are random bf16, the structure is scripted: machinery is measured here, not a model.
Every document is a stretch in a line and one block (see `mixtures`), so that its parallelism is known beforehand; the engine
counts it again. Reading the prompt is never in a figure. All cases are measured in turn, in every other repeat in reverse;
figures are medians over the repeats, ratios are taken within each repeat first.

- One document at a time: milliseconds per token at parallelism x, for each context (tokens of the prompt), with the
  least-squares fit of a / x + b. What forking can make cheaper is a; what it cannot is b.
- Many documents at once: how many times as fast a batch is as the same batch told in a line.

    python -m benchmarks.latency --json out.json --plot out.svg
    python -m benchmarks.latency --device cuda --shape qwen2.5-7b --contexts 8192 16384 32768 --parallelisms 1 1.5 2 3 4 6 8 \\
        --batches 1 2 4 8 16 32 64 128 --json out.json
    python -m benchmarks.latency --quick                          # does it run at all? its figures mean little
    python -m benchmarks.latency --load out.json --plot out.svg   # show a stored run again

`--clock cpu` counts the processor time of this process in place of the time on the wall: for one thread on a machine that
others use too. What others do to caches and memory is still in it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers.utils import logging

from benchmarks.fit import Fit, fit
from benchmarks.latency_plot import draw
from benchmarks.machine import describe
from benchmarks.mixtures import Mixture, mixture
from benchmarks.ours import Ours
from benchmarks.shape import SHAPES, shaped_model
from multiverse.structure import Document

LABEL = "random weights, scripted structure: the machinery is measured, not a model"
BUSY = 0.5
"""Load average above which the machine is not quiet."""
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        shape: a file of `recipes/shapes`.
        clock: ``wall``, or ``cpu`` for the processor time of this process.
        contexts, parallelisms, chain: of single documents: tokens of the prompt, parallelism, tokens of the longest chain.
        batches, batch_parallelisms, batch_context, batch_chain: the same of documents side by side.
    """

    shape: str = "qwen2.5-0.5b"
    device: str = "cpu"
    clock: str = "wall"
    repeats: int = 3
    contexts: tuple[int, ...] = (512, 2048)
    parallelisms: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
    chain: int = 192
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    batch_parallelisms: tuple[float, ...] = (1.0, 1.1, 1.25, 1.5, 2.0)
    batch_context: int = 256
    batch_chain: int = 96


QUICK = Settings(repeats=1, contexts=(32, 64), parallelisms=(1.0, 1.5, 2.0), chain=96, batches=(1, 2), batch_context=32)


class Case(NamedTuple):
    """So many documents side by side, each of the parallelism that was asked for, behind prompts of `context` tokens."""

    part: str
    context: int
    batch: int
    asked: float


@dataclass
class Measured:
    """One case.

    Attributes:
        width, chain: paths of the block, tokens of the longest chain.
        tokens: written while the clock ran, over the whole batch.
        parallelism: as the engine counts it.
        seconds: one entry a repeat.
    """

    width: int
    chain: int
    tokens: int
    parallelism: float
    seconds: list[float] = field(default_factory=list)

    @property
    def ms(self) -> list[float]:
        """Milliseconds per token, repeat by repeat."""
        return [1000 * seconds / self.tokens for seconds in self.seconds]


@dataclass
class Run:
    """What a run has measured so far.

    Attributes:
        notes: what its figures depend on besides.
    """

    machine: str
    settings: Settings
    cases: dict[Case, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def fits(self) -> dict[int, Fit]:
        """The fit of each context with enough points, over the medians of the repeats."""
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
        """How many times as fast as the same batch in a line, repeat by repeat."""
        found = {}
        for case, one in self.of("batch"):
            line = self.cases.get(case._replace(asked=1.0))
            if line is not None:
                found[case] = [a / b for a, b in zip(line.ms, one.ms, strict=False)]
        return found

    def save(self, path: Path) -> None:
        """Write it as JSON, with what follows from it."""
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
        """Read what `save` wrote."""
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
    """Run everything; what is there is stored after every repeat.

    Args:
        model: taken in place of one of the settings' shape.
    """
    run = Run(describe(settings.device), settings)
    load = os.getloadavg()[0]
    if load > BUSY:
        run.notes.append(f"The machine was busy when this began: load average {load:.1f}.")
    model = model if model is not None else shaped_model(settings.shape, settings.device)
    ours = Ours(model, _kv_memory(settings, model), settings.device)
    cases = list(_cases(settings, ours))
    most = max(case.batch * max(1, made.width) for case, made in cases)
    ours.engine.scheduler.max_batch_branches = max(ours.engine.scheduler.max_batch_branches, most)
    ours.engine.scheduler.max_requests = max(ours.engine.scheduler.max_requests, *settings.batches)
    prompts = {context: ours.prompt(context) for context in settings.contexts}
    batch = [ours.prompt(settings.batch_context) for _ in range(max(settings.batches))]
    console = Console(stderr=True)
    for context in settings.contexts:  # reads the prompts, and warms up
        ours.together(Document(None, "y" * 8), [prompts[context]], CLOCKS[settings.clock])
    for repeat in range(settings.repeats):
        order = cases if repeat % 2 == 0 else cases[::-1]
        for case, made in track(order, f"repeat {repeat + 1} of {settings.repeats}", console=console, transient=True):
            own = [prompts[case.context]] if case.part == "latency" else batch[: case.batch]
            one = ours.together(made.document, own, CLOCKS[settings.clock])
            run.cases.setdefault(case, Measured(made.width, made.chain, one.tokens, one.parallelism)).seconds.append(
                one.seconds
            )
        if path is not None:
            run.save(path)
    return run


def _cases(settings: Settings, ours: Ours) -> Iterator[tuple[Case, Mixture]]:
    for context in settings.contexts:
        for asked in settings.parallelisms:
            yield Case("latency", context, 1, asked), mixture(asked, settings.chain, ours.tokens)
    for batch in settings.batches:
        for asked in settings.batch_parallelisms:
            yield Case("batch", settings.batch_context, batch, asked), mixture(asked, settings.batch_chain, ours.tokens)


def _kv_memory(settings: Settings, model: Any) -> int:
    """Bytes for twice all prompts and the longest documents behind them."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    slot = 2 * config.num_hidden_layers * config.num_key_value_heads * head * model.dtype.itemsize
    long = 2 * settings.chain * max((*settings.parallelisms, 8.0))
    side = max((*settings.batches, 1)) * (settings.batch_context + 4 * settings.batch_chain)
    return int(2 * slot * (sum(settings.contexts) + long + side + 1024))


def show(run: Run, console: Console | None = None) -> None:
    """Print everything."""
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
    table = Table(title=f"Side by side, context {context:,}: times as fast as in a line", title_justify="left", box=None)
    table.add_column("batch")
    asked_for = [asked for asked in run.settings.batch_parallelisms if asked != 1]
    table.add_column("in a line,\nms per token", justify="right")
    for asked in asked_for:
        table.add_column(f"x={asked:g}", justify="right")
    speedups = run.speedups()
    for batch in run.settings.batches:
        line = run.cases.get(Case("batch", context, batch, 1.0))
        cells = [speedups.get(Case("batch", context, batch, asked)) for asked in asked_for]
        table.add_row(
            str(batch), "" if line is None else _spread(line.ms, 1), *("" if not one else _spread(one, 2) for one in cells)
        )
    return table


def _spread(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _clock(run: Run) -> str:
    what = "time on the wall" if run.settings.clock == "wall" else "processor time of one process"
    return f"{run.settings.repeats} interleaved repeats; {what}."


def main() -> None:
    options = _options()
    logging.disable_progress_bar()
    if options.load is not None:
        run = Run.load(options.load)
    else:
        settings = QUICK if options.quick else Settings()
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(options).items()}
        chosen = {name: given[name] for name in asdict(settings) if given[name] is not None}
        run = measure(Settings(**asdict(settings) | chosen), path=options.json)
    show(run)
    if options.plot is not None:
        draw(run, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that everything works")
    parser.add_argument("--shape", choices=sorted(file.stem for file in SHAPES.glob("*.json")))
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--clock", choices=CLOCKS, help="time on the wall, or processor time of this process (CPU only)")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--contexts", type=int, nargs="*", help="tokens of the prompt of single documents")
    parser.add_argument("--parallelisms", type=float, nargs="+", help="of single documents")
    parser.add_argument("--chain", type=int, help="tokens of the longest chain of single documents")
    parser.add_argument("--batches", type=int, nargs="*", help="numbers of documents side by side")
    parser.add_argument("--batch-parallelisms", type=float, nargs="+", help="of documents side by side; 1 has to be among them")
    parser.add_argument("--batch-context", type=int, help="tokens of each prompt of documents side by side")
    parser.add_argument("--batch-chain", type=int, help="tokens of the longest chain of each of them")
    parser.add_argument("--json", type=Path, help="store the run here, after every repeat")
    parser.add_argument("--plot", type=Path, help="draw the run here, as .svg, .png or .pdf")
    parser.add_argument("--load", type=Path, help="show a stored run; measure nothing")
    options = parser.parse_args()
    if options.batch_parallelisms and 1 not in options.batch_parallelisms:
        parser.error("--batch-parallelisms: 1 has to be among them, since all others are compared with it")
    if options.clock == "cpu" and (options.device or "cpu") != "cpu":
        parser.error("--clock cpu: on another device this process only waits; leave --clock away")
    if options.device not in (None, "cpu") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch does not find CUDA here")
    return options


if __name__ == "__main__":
    main()
