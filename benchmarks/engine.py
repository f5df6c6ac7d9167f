"""Every speed claim about the engine, each with its other side, measured in one interleaved run.

The shape is Qwen2.5-0.5B, the weights are random bf16, the structure is scripted: machinery is measured here, not a model.
Reading the prompt is never in a figure. Every repeat measures every side in turn, every other one in reverse; figures are
medians over the repeats, ratios are taken within each repeat first.

- Decode speed of this engine (forked branches, and as many unrelated requests), of llama.cpp and vLLM on CPU (where `make
  bench-envs` has built their environments), and of transformers' generate with and without our packed linears. All but the
  unrelated requests continue one shared prompt.
- The bound at batch 1: the bytes of all weights over the fastest reading of memory in the same run.
- What the machinery costs: a step inside a block against a plain step of as many rows that see as many tokens.
- What fork and join cost, and how that grows with the length of the branches.
- Whole documents against the same number of tokens written in sequence.

    python -m benchmarks.engine --json out.json --plot out.svg
    python -m benchmarks.engine --quick                           # does it run at all? its figures mean little
    python -m benchmarks.engine --load out.json --plot out.svg    # show a stored run again
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils import logging

from benchmarks.chart import draw
from benchmarks.machine import describe
from benchmarks.others.environments import NAMES
from benchmarks.record import Record
from benchmarks.report import show
from benchmarks.tasks import Bench, Settings

WARM_STEPS = 4
BUSY = 0.5
"""Load average above which the machine is not quiet."""
QUICK = Settings(repeats=2, steps=8, rows=(1, 4), prefixes=(64,), lengths=(8, 32), letters=32, widths=(2,))


def main() -> None:
    options = _options()
    if options.load is not None:
        record = Record.load(options.load)
    else:
        settings = QUICK if options.quick else Settings()
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(options).items()}
        chosen = {name: given[name] for name in asdict(settings) if given[name] is not None}
        record = measure(Settings(**asdict(settings) | chosen), options.json)
    show(record)
    if options.plot is not None:
        draw(record, options.plot)


def measure(settings: Settings, path: Path | None) -> Record:
    """Run everything; what is there so far is stored after every repeat."""
    logging.disable_progress_bar()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that workers and their files go, too
    record = Record(machine=describe(), settings=asdict(settings))
    load = os.getloadavg()[0]
    if load > BUSY:
        record.notes.append(f"The machine was busy when this began: load average {load:.1f}.")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("loading all engines", total=None)
        bench = Bench(settings, record)
        try:
            tasks = list(bench.tasks())
            warm = [task for task in tasks if task.warm]
            progress.update(bar, total=len(warm) + settings.repeats * len(tasks))
            for task in warm:
                progress.update(bar, description=f"warm-up: {task.name}")
                task.run(WARM_STEPS)
                progress.advance(bar)
            record.forget()
            for repeat in range(settings.repeats):
                for task in tasks if repeat % 2 == 0 else reversed(tasks):
                    progress.update(bar, description=f"{repeat + 1}/{settings.repeats}: {task.name}")
                    task.run(settings.steps)
                    progress.advance(bar)
                progress.console.print(f"repeat {repeat + 1} of {settings.repeats} is done")
                if path is not None:
                    record.save(path)
        finally:
            bench.close()
    return record


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that everything works")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--steps", type=int, help="decode steps of each measurement of speed")
    parser.add_argument("--rows", type=int, nargs="+", help="numbers of rows")
    parser.add_argument("--prefixes", type=int, nargs="+", help="tokens that each row sees when the clock starts")
    parser.add_argument("--lengths", type=int, nargs="*", help="letters a branch of the blocks whose join is timed")
    parser.add_argument("--letters", type=int, help="letters a branch of the whole documents")
    parser.add_argument("--widths", type=int, nargs="*", help="branches of the whole documents; parallelism is (width + 1) / 2")
    parser.add_argument("--others", nargs="*", choices=tuple(NAMES), help="other engines to compare with")
    parser.add_argument("--json", type=Path, help="store the run here, after every repeat")
    parser.add_argument("--plot", type=Path, help="draw the run here, as SVG")
    parser.add_argument("--load", type=Path, help="show a stored run; measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
