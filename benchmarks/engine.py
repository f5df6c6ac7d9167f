"""Decode speed of the engine on CPU beside other engines, and the cost of fork and join, in one interleaved run.

The shape is Qwen2.5-0.5B with random bf16 weights, and documents are scripted: the figures say nothing about what a model
generates. Prefill is not timed. Each repeat measures all sides in turn, every second one in reverse order; figures are medians
over the repeats, and ratios are medians of the ratios within a repeat.

- Decode speed of this engine (branches of one request, and as many separate requests), of llama.cpp and vLLM on CPU (if `make
  bench-envs` has installed them), and of transformers' `generate` with and without our packed linears. All but the separate
  requests continue one shared prompt.
- The limit at batch 1: memory bandwidth over the bytes of all weights.
- The overhead of branches: a step inside a block against a plain step of as many rows that see as many tokens.
- The cost of fork and join, by the length of the branches.
- Whole documents against the same number of tokens in sequence.

    python -m benchmarks.engine --json out.json --plot out.svg
    python -m benchmarks.engine --quick                           # small sizes: shows that everything runs
    python -m benchmarks.engine --load out.json --plot out.svg    # show a stored run again
"""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils import logging

from benchmarks.engine_plot import draw
from benchmarks.machine import describe, load_notes
from benchmarks.options import add_settings, make_parser, settings_from
from benchmarks.record import Record
from benchmarks.report import show
from benchmarks.tasks import Bench, Settings

WARM_STEPS = 4
QUICK = Settings(repeats=2, steps=8, rows=(1, 4), prefixes=(64,), lengths=(8, 32), letters=32, widths=(2,))


def main() -> None:
    parser = make_parser(__doc__, json="after every repeat", plot=".svg, .png or .pdf", load=True, quick=True)
    add_settings(parser, Settings)
    options = parser.parse_args()
    if options.load is not None:
        record = Record.load(options.load)
    else:
        record = measure(settings_from(parser, options, QUICK if options.quick else Settings()), options.json)
    show(record)
    if options.plot is not None:
        draw(record, options.plot)


def measure(settings: Settings, path: Path | None) -> Record:
    """Run all measurements; the record is stored after every repeat."""
    logging.disable_progress_bar()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # exits normally, which ends the workers
    record = Record(machine=describe(), settings=asdict(settings), notes=load_notes())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("loading the engines", total=None)
        bench = Bench(settings, record)
        try:
            tasks = list(bench.tasks())
            warm = [task for task in tasks if task.warm]
            progress.update(bar, total=len(warm) + settings.repeats * len(tasks))
            for task in warm:
                progress.update(bar, description=f"warm-up: {task.name}")
                task.run(WARM_STEPS)
                progress.advance(bar)
            record.clear()
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


if __name__ == "__main__":
    main()
