"""Decode speed with weights in 16, 8 and 4 bits on a CPU: this engine beside llama.cpp at the same bits, interleaved.

The shape is Qwen2.5-0.5B with random weights; branches of one request continue one prompt. llama.cpp quantises the same weights
with its own tool (Q8_0, Q4_0, Q4_K_M), vLLM runs them in bfloat16; both only where they are installed (make bench-envs).
Prefill is not timed. Each repeat measures all sides in turn, every second one in reverse order; figures are medians, ratios
are medians of the ratios within a repeat.

    python -m benchmarks.quantized --json out.json
    python -m benchmarks.quantized --rows 1 8 --others          # this engine alone
    python -m benchmarks.quantized --load out.json
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Literal

import torch

from benchmarks.machine import describe, load_notes, resident_mib
from benchmarks.options import add_settings, make_parser, settings_from
from benchmarks.others.environments import NAMES, open_worker
from benchmarks.others.protocol import Decode, Opening
from benchmarks.others.worker import Worker, WorkerError
from benchmarks.scripted import ScriptedEngine
from benchmarks.shape import random_model, shape_config
from multiverse.backends.cpu.quantised_linears import BITS, quantise_model
from multiverse.options import Options, option

KV_MEMORY = 512 << 20
WARM_STEPS = 4
BASE = "bf16"
AGAINST = {
    "bf16": "llama.cpp BF16",
    "int8": "llama.cpp Q8_0",
    "int4": "llama.cpp Q4_0",
    "llama.cpp Q4_K_M": "llama.cpp Q4_0",
}
"""The side that each is compared with, beside this engine's own in bfloat16."""

Measure = Callable[[int, int, int], float]
"""Seconds of a measurement: rows, prefix and steps."""


@dataclass(frozen=True)
class Settings(Options):
    """What `benchmarks.quantized` measures, and how often."""

    repeats: int = option(5, "Measurements of every case, interleaved.", ge=1, metavar="N")
    steps: int = option(24, "Decode steps per measurement.", ge=1, metavar="N")
    rows: tuple[int, ...] = option((1, 4, 8, 16), "Numbers of branches.", ge=1, metavar="N")
    prefixes: tuple[int, ...] = option((512,), "Tokens that each branch sees when the clock starts.", ge=1, metavar="N")
    shape: str = option("qwen2.5-0.5b", "A file of recipes/shapes, by its stem, or tiny.", metavar="NAME")
    others: tuple[Literal["llama", "vllm"], ...] = option(("llama", "vllm"), "Other engines to compare with, if installed.")


@dataclass
class Record:
    """Figures of a run: tokens a second by side, rows and prefix, one per repeat."""

    machine: str
    settings: dict[str, Any]
    notes: list[str]
    versions: list[str] = field(default_factory=list)
    memory_mib: dict[str, float] = field(default_factory=dict)
    speeds: dict[str, dict[str, list[float]]] = field(default_factory=dict)


class Sides:
    """All engines, loaded."""

    def __init__(self, settings: Settings, record: Record, stack: ExitStack) -> None:
        self.settings, self.record = settings, record
        self.measures: dict[str, Measure] = {}
        self._prompts: dict[int, list[int]] = {}
        config = shape_config(settings.shape)
        model = random_model(config)
        self._open_others(model, stack)
        for name in (BASE, *BITS):
            before = resident_mib()
            own = model if name == BASE else random_model(config)
            if name in BITS:
                quantise_model(own, BITS[name])
            engine = ScriptedEngine(own, KV_MEMORY)
            record.memory_mib[name] = resident_mib() - before
            self.measures[name] = partial(self._ours, engine)

    def _prompt(self, prefix: int) -> list[int]:
        generator = torch.Generator().manual_seed(prefix)
        return self._prompts.setdefault(prefix, torch.randint(0, 200, (prefix,), generator=generator).tolist())

    def _ours(self, engine: ScriptedEngine, rows: int, prefix: int, steps: int) -> float:
        if rows == 1:
            return sum(engine.separate(1, prefix, steps))
        return sum(engine.branches(rows, prefix, steps, self._prompt(prefix)))

    def _open_others(self, model: Any, stack: ExitStack) -> None:
        logs, settings = Path(mkdtemp(prefix="multiverse-bench-")), self.settings
        kinds = [("llama", kind) for kind in ("BF16", "Q8_0", "Q4_0", "Q4_K_M")] + [("vllm", "BF16")]
        with TemporaryDirectory() as folder:
            if settings.others:
                model.save_pretrained(folder)
            longest = max(settings.prefixes) + settings.steps + 8
            for name, kind in kinds:
                if name not in settings.others:
                    continue
                opening = Opening(folder, torch.get_num_threads(), max(settings.rows), longest, kind)
                (logs / kind).mkdir(exist_ok=True)
                worker = open_worker(name, opening, logs / kind)
                if isinstance(worker, str):
                    self.record.notes.append(worker)
                    continue
                stack.callback(worker.close)
                self.record.versions.append(f"{worker.version} ({kind})")
                self.measures[f"{NAMES[name]} {kind}"] = partial(self._other, worker)

    def _other(self, worker: Worker, rows: int, prefix: int, steps: int) -> float:
        return worker.seconds(Decode(rows, self._prompt(prefix), steps))

    def run(self, side: str, rows: int, prefix: int, steps: int) -> float | None:
        """Tokens a second; `None` if another engine fails, which is then left out."""
        try:
            return rows * steps / self.measures[side](rows, prefix, steps)
        except WorkerError as error:
            self.record.notes.append(f"{side}: failed at {rows} rows: {error}")
            del self.measures[side]
            return None


def measure(settings: Settings, path: Path | None) -> Record:
    """Run all measurements; the record is stored after every repeat."""
    record = Record(describe(), asdict(settings), load_notes())
    with ExitStack() as stack:
        sides = Sides(settings, record, stack)
        cases = [(rows, prefix, side) for prefix in settings.prefixes for rows in settings.rows for side in sides.measures]
        for rows, prefix, side in cases:
            if side in sides.measures:
                sides.run(side, rows, prefix, WARM_STEPS)
        for repeat in range(settings.repeats):
            for rows, prefix, side in cases if repeat % 2 == 0 else reversed(cases):
                speed = sides.run(side, rows, prefix, settings.steps) if side in sides.measures else None
                if speed is not None:
                    record.speeds.setdefault(side, {}).setdefault(f"{rows} rows, prefix {prefix}", []).append(speed)
            if path is not None:
                path.write_text(json.dumps(asdict(record), indent=1) + "\n")
            print(f"repeat {repeat + 1} of {settings.repeats} is done", flush=True)
    return record


def ratio(one: list[float], other: list[float]) -> float:
    """Median of the ratios within a repeat."""
    return median(a / b for a, b in zip(one, other, strict=False))


def show(record: Record) -> None:
    """Print a table: tokens a second, and the ratios."""
    for case in next(iter(record.speeds.values())):
        print(f"\n{case}")
        for side, speeds in record.speeds.items():
            own, line = speeds.get(case), ""
            if not own:
                continue
            for other in (BASE, AGAINST.get(side)):
                theirs = record.speeds.get(other or "", {}).get(case)
                if other is not None and other != side and theirs:
                    line += f"  {ratio(own, theirs):5.2f} of {other}"
            print(f"  {side:18} {median(own):8.1f} tokens/s{line}")
    memory = ", ".join(f"{side} {mib:.0f} MiB" for side, mib in record.memory_mib.items())
    print(f"\nmemory of this engine, after loading: {memory}")
    print("\n".join([*record.versions, *record.notes, record.machine]))


def main() -> None:
    parser = make_parser(__doc__, json="after every repeat", load=True, quick=True)
    add_settings(parser, Settings)
    options = parser.parse_args()
    if options.load is not None:
        show(Record(**json.loads(options.load.read_text())))
        return
    quick = Settings(repeats=1, steps=2, rows=(1, 4), prefixes=(64,), shape="tiny", others=())
    show(measure(settings_from(parser, options, quick if options.quick else Settings()), options.json))


if __name__ == "__main__":
    main()
