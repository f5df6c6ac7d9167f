"""Two checkouts side by side, on one machine in one run: decode steps, `schedule()`, and 60 streaming clients.

Each checkout runs in processes of its own that stay up (`spine_worker`, and ``multiverse serve`` with the embedded model).
Every repeat measures each case on both sides directly one after the other, and begins with the other side in every other
repeat. Figures are medians over the repeats; the ratio is the median of the ratios within a repeat, beside their quartiles.

- Milliseconds of a decode step at 1, 8 and 16 rows behind prompts of 512 tokens: six layers of the shape of Qwen2.5-0.5B with
  random weights in bf16 and fp32, and the embedded model, whose steps are short, so that what the engine itself takes shows.
- Microseconds of `schedule()` with 64 running requests, measured within whole steps of a tiny random model.
- The same with 8 running requests and a prompt of 30,000 tokens that memory does not admit, and without that prompt.
- 60 clients that stream chats over HTTP at once, every other one with branch events: tokens a second over all of them, and the
  median of the time between two chunks of one client.

    python -m benchmarks.spine --before CHECKOUT --after CHECKOUT --json out.json
    python -m benchmarks.spine --before . --after . --repeats 3    # how far apart are two measurements of the same code?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

from benchmarks.clients import CHAT, events, open_client
from benchmarks.machine import describe
from benchmarks.recordings.checkout import Checkout
from benchmarks.shape import QWEN_05B, byte_tokenizer
from multiverse.bench.processes import started
from multiverse.tasks import CALCULATIONS, problems

SIDES = ("before", "after")
WORKER = Path(__file__).with_name("spine_worker.py")
KV_MEMORY = 8 << 20
"""Of the tiny model with a blocked prompt: 32,768 tokens of 256 bytes."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        rows, prompt, steps: of decode steps.
        models: name and type of each model whose steps are timed.
        requests: running while `schedule()` is timed.
        beside, waiting: running requests beside a blocked prompt of so many tokens.
        schedules: timed calls of `schedule()` in each repeat.
        clients, tokens: of the server, and most tokens of an answer.
    """

    repeats: int = 7
    rows: tuple[int, ...] = (1, 8, 16)
    prompt: int = 512
    steps: int = 24
    models: tuple[tuple[str, str], ...] = (("layers", "bfloat16"), ("layers", "float32"), ("mini", "float32"))
    requests: int = 64
    beside: int = 8
    waiting: int = 30_000
    schedules: int = 80
    clients: int = 60
    tokens: int = 150


@dataclass
class Figures:
    """One entry a repeat, by case and side; `unit` and whether more is better by case."""

    machine: str
    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    units: dict[str, str] = field(default_factory=dict)

    def add(self, case: str, unit: str, side: str, value: float) -> None:
        """Note a measurement."""
        self.units[case] = unit
        self.values[case][side].append(value)

    def ratios(self, case: str) -> list[float]:
        """After over before, repeat by repeat."""
        before, after = (self.values[case][side] for side in SIDES)
        return [new / old for old, new in zip(before, after, strict=True)]

    def ratio(self, case: str) -> float:
        """After over before: the median over the repeats."""
        return median(self.ratios(case))

    def slower(self, case: str) -> float:
        """By how much the side after is slower, as a share; negative if it is faster."""
        ratio = self.ratio(case)
        return (1 / ratio if self.units[case].endswith("/s") else ratio) - 1


class Side:
    """One checkout's worker and server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(self, name: str, **arguments: Any) -> Any:
        """What the worker measured."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([name, arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with code {self.process.wait()}; its message is above")
        return json.loads(line)


Measure = Callable[[Side], dict[str, tuple[float, str]]]


def cases(settings: Settings) -> Iterator[Measure]:
    """Everything that a repeat measures: each gives values and units by the case's name."""
    for model, dtype in settings.models:
        for rows in settings.rows:
            yield partial(_decode, settings, model, dtype, rows)
    yield partial(_schedule, settings)
    yield partial(_blocked, settings)
    yield partial(_serve, settings)


def _decode(settings: Settings, model: str, dtype: str, rows: int, side: Side) -> dict[str, tuple[float, str]]:
    seconds = side.ask("decode", model=model, dtype=dtype, rows=rows, prompt=settings.prompt, steps=settings.steps)
    return {f"step, {model} {dtype}, {rows} rows": (1e3 * median(seconds), "ms")}


def _schedule(settings: Settings, side: Side) -> dict[str, tuple[float, str]]:
    seconds = side.ask("schedule", model="tiny", rows=settings.requests, prompt=32, steps=settings.schedules)
    return {f"schedule(), {settings.requests} requests": (1e6 * median(seconds), "µs")}


def _blocked(settings: Settings, side: Side) -> dict[str, tuple[float, str]]:
    running = {"rows": settings.beside, "prompt": 500, "steps": settings.schedules}
    without, blocked = side.ask("blocked", model="tiny", waiting=settings.waiting, kv_memory=KV_MEMORY, **running)
    name = f"schedule(), {settings.beside} requests"
    return {
        f"{name}, nothing waits": (1e6 * median(without), "µs"),
        f"{name}, a prompt of {settings.waiting:,} blocked": (1e6 * median(blocked), "µs"),
        "blocked over not": (median(blocked) / median(without), "x"),
    }


def _serve(settings: Settings, side: Side) -> dict[str, tuple[float, str]]:
    speed, between = asyncio.run(stream(side.port, settings.clients, settings.tokens))
    return {
        f"{settings.clients} streaming clients, all": (speed, "tokens/s"),
        f"{settings.clients} streaming clients, between chunks": (1e3 * between, "ms"),
    }


async def stream(port: int, clients: int, tokens: int) -> tuple[float, float]:
    """Tokens a second over all clients, and the median of the seconds between two chunks of one client."""
    per_family = -(-clients // len(CALCULATIONS))
    drawn = [
        problem for family in CALCULATIONS for _, problem in zip(range(per_family), problems(family, seed=3), strict=False)
    ]
    began = time.perf_counter()
    results = await asyncio.gather(*(_client(port, number, drawn[number].question, tokens) for number in range(clients)))
    seconds = time.perf_counter() - began
    gaps = [after - before for _, times in results for before, after in pairwise(times)]
    return sum(count for count, _ in results) / seconds, median(gaps)


async def _client(port: int, number: int, question: str, tokens: int) -> tuple[int, list[float]]:
    """Tokens of one answer, and when each chunk came."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "stream": True, "max_tokens": tokens}
    body |= {"stream_options": {"include_usage": True}, "temperature": 0.6, "seed": number}
    if number % 2:
        body["multiverse"] = {"branches": True}
    count, times = 0, []
    async with (
        open_client(("127.0.0.1", port)) as http,
        http.stream("POST", CHAT, content=json.dumps(body).encode()) as response,
    ):
        async for chunk in events(response):
            times.append(time.perf_counter())
            count = (chunk.get("usage") or {}).get("completion_tokens", count)
    return count, times


def measure(checkouts: dict[str, Path], settings: Settings) -> Figures:
    """Measure everything, the first repeat being a warm-up that is not kept."""
    figures = Figures(describe())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folders: dict[str, str | None] = {name: write_model(folder / name, *shape) for name, shape in shapes().items()}
        folders["mini"] = None
        sides = {name: stack.enter_context(opened(path, folder / name, folders)) for name, path in checkouts.items()}
        for repeat in range(settings.repeats + 1):
            order = SIDES if repeat % 2 else SIDES[::-1]
            for case in cases(settings):
                for name in order:
                    for title, (value, unit) in case(sides[name]).items():
                        if repeat:
                            figures.add(title, unit, name, value)
            print(f"repeat {repeat} of {settings.repeats} is done", file=sys.stderr, flush=True)
    return figures


@contextmanager
def opened(path: Path, scratch: Path, folders: dict[str, str | None]) -> Iterator[Side]:
    """A checkout's worker and server."""
    checkout = Checkout(path, scratch)
    command = [sys.executable, "-P", str(WORKER), json.dumps(folders)]
    environment = checkout.environment | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with started(command, env=environment, **pipes) as process, checkout.server() as port:
        yield Side(process, port)


def shapes() -> dict[str, tuple[Qwen2Config, torch.dtype]]:
    """Random models: six layers of a real shape, and a tiny one with many positions."""
    layers = QWEN_05B.to_dict() | {"num_hidden_layers": 6, "vocab_size": 32_000, "layer_types": None}
    tiny = layers | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 512}
    tiny |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 65_536}
    return {"layers": (Qwen2Config(**layers), torch.bfloat16), "tiny": (Qwen2Config(**tiny), torch.float32)}


def write_model(folder: Path, config: Qwen2Config, dtype: torch.dtype) -> str:
    """Write a model with random weights, the same in every run; its folder."""
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(config)
    model.to(dtype).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def show(figures: Figures) -> None:
    """Print a table; ratios are after over before."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in (*SIDES, "ratio", "quartiles", "slower by"):
        table.add_column(name, justify="right")
    for case, values in figures.values.items():
        middles = [f"{median(values[side]):.4g} {figures.units[case]}" for side in SIDES]
        ratios = figures.ratios(case)
        low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        table.add_row(case, *middles, f"{figures.ratio(case):.3f}", f"{low:.3f} to {high:.3f}", f"{figures.slower(case):+.1%}")
    console = Console(width=130)
    console.print(table)
    console.print(figures.machine)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spine", description=__doc__, formatter_class=form)
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="a checkout")
    parser.add_argument("--after", type=Path, required=True, metavar="DIR", help="another checkout")
    parser.add_argument("--repeats", type=int, default=Settings.repeats)
    parser.add_argument("--json", type=Path, metavar="FILE", help="store every repeat's figures")
    options = parser.parse_args()
    logging.disable_progress_bar()
    figures = measure({"before": options.before, "after": options.after}, Settings(repeats=options.repeats))
    show(figures)
    if options.json is not None:
        ratios = {case: figures.ratio(case) for case in figures.values}
        stored = {"machine": figures.machine, "units": figures.units, "ratios": ratios, "values": figures.values}
        options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
