"""What ``deterministic=True`` costs: decode steps and prefill with and without, measured alternately.

Figures are medians of milliseconds over the repeats; the ratio is the median of the ratios within a repeat. The model is a
folder that is given, or six layers of the shape of Qwen2.5-0.5B with random weights.

    python -m benchmarks.deterministic
    python -m benchmarks.deterministic --model FOLDER --repeats 9 --json out.json
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe
from benchmarks.options import make_parser
from benchmarks.shape import byte_tokenizer, random_model, shape_config
from multiverse import LLM, SamplingParams

KV_MEMORY = 1 << 30


def random_layers(folder: Path) -> Path:
    """Six layers of Qwen2.5-0.5B's shape with random weights."""
    random_model(shape_config("qwen2.5-0.5b", num_hidden_layers=6)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def prompts(rows: int, length: int, seed: int) -> list[list[int]]:
    """Random prompts."""
    rng = random.Random(seed)
    return [[rng.randrange(250) for _ in range(length)] for _ in range(rows)]


def decode(llm: LLM, seed: int, *, rows: int, prompt: int, steps: int) -> float:
    """Milliseconds of a step with so many rows, each behind a prompt of its own."""
    engine = llm.engine
    params = SamplingParams(temperature=0, max_tokens=steps + 8, ignore_eos=True, max_depth=0)
    requests = [engine.submit(own, params) for own in prompts(rows, prompt, seed)]
    while any(not request.num_generated for request in requests):
        engine.step()
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - start)
    for request in requests:
        engine.abort(request)
    return median(times) * 1000


def prefill(llm: LLM, seed: int, *, length: int) -> float:
    """Milliseconds from a prompt to its first token."""
    (prompt,) = prompts(1, length, seed)
    start = time.perf_counter()
    llm.engine.run([llm.engine.submit(prompt, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))])
    return (time.perf_counter() - start) * 1000


def measure(model: Path, dtype: str, repeats: int, length: int, steps: int) -> dict[str, tuple[float, float, float]]:
    """Milliseconds without and with, and the ratio, of each case."""
    llms = [LLM(model, dtype=dtype, kv_memory=KV_MEMORY, prefix_cache=False, deterministic=on) for on in (False, True)]
    cases: dict[str, Callable[[LLM, int], float]] = {}
    for rows in (1, 8, 16):
        cases[f"step, {rows} row{'s' * (rows > 1)}"] = partial(decode, rows=rows, prompt=length, steps=steps)
    for size in (length, 4 * length):
        cases[f"prefill, {size} tokens"] = partial(prefill, length=size)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for repeat in range(-1, repeats):  # the first is not counted
        for name, case in cases.items():
            order = (0, 1) if repeat % 2 else (1, 0)
            times = {which: case(llms[which], repeat) for which in order}
            if repeat >= 0:
                found[name].append((times[0], times[1]))
    return {
        name: (median(a for a, _ in pairs), median(b for _, b in pairs), median(b / a for a, b in pairs))
        for name, pairs in found.items()
    }


def main() -> None:
    """Measure, print and store."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a model instead of random layers")
    parser.add_argument("--repeats", type=int, default=7, metavar="N")
    parser.add_argument(
        "--prompt", type=int, default=512, metavar="N", help="tokens of a prompt; a long one is four times as long"
    )
    parser.add_argument("--steps", type=int, default=16, metavar="N", help="decode steps of a repeat")
    options = parser.parse_args()
    with ExitStack() as stack:
        model = options.model or random_layers(Path(stack.enter_context(TemporaryDirectory())))
        figures = {
            dtype: measure(model, dtype, options.repeats, options.prompt, options.steps) for dtype in ("bfloat16", "float32")
        }
    machine = describe()
    table = Table("", "without, ms", "deterministic, ms", "ratio", title=f"{options.model or 'six layers of 0.5B'}: {machine}")
    for dtype, cases in figures.items():
        for name, (without, with_, ratio) in cases.items():
            table.add_row(f"{dtype}, {name}", f"{without:.2f}", f"{with_:.2f}", f"{ratio:.2f}")
    Console(width=140).print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": str(machine), "figures": figures}, indent=1))


if __name__ == "__main__":
    main()
