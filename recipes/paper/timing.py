"""Wall-clock times of the joins at equal content: every way generates the same documents, on the same engine.

    python -m recipes.paper.timing                      # the comparison's own shape
    python -m recipes.paper.timing --shape qwen-0.5b --limit 1 --repeats 3

The generated tokens are scripted, so the weights are random; the model computes every step all the same. Within each repeat all
ways are timed in turn, and medians of the ratios within a repeat are reported, so that other load on the machine affects all of
them alike. Results are stored in this folder, one file per shape.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from benchmarks.machine import describe
from benchmarks.shape import random_model
from multiverse.backends import select
from multiverse.engine.engine import Engine
from multiverse.engine.model import LoadedModel, embedded_model, prepare
from multiverse.engine.params import SamplingParams
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Document, TokenDialect, resolve
from multiverse.tasks import Problem
from recipes.mini.model import SHAPES, build_model

from . import data
from .arms import ARMS, HERE
from .ask import answer_of, prompt_ids
from .joined import Answer, JoinedDecoder

ROOM = 4096
KV_MEMORY = 1 << 30
WAYS = ("multiverse", "sequential", "text-join", "message-join")
"""Arms whose content is the same but for tags; the first is what the others are compared with."""

CASES = {
    "worksheet-3": ("worksheet", 3),
    "worksheet-6": ("worksheet", 6),
    "countdown": ("countdown", 4),
    "nested": ("nested", 2),
}
"""Family and width."""


def shape(name: str) -> LoadedModel:
    """A model with random bf16 weights and the comparison's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    torch.manual_seed(0)
    model = random_model() if name == "qwen-0.5b" else build_model(SHAPES[name], tokenizer).bfloat16()
    return prepare(model, tokenizer, f"{name}, random weights", select(torch.device("cpu"), model.dtype))


class Ways:
    """Every way of generating the reference solution of a problem.

    Args:
        kv_memory: bytes for keys and values, for each of the engines.
    """

    def __init__(self, loaded: LoadedModel, kv_memory: int = KV_MEMORY) -> None:
        self.tokens: TokenDialect = resolve(loaded.tokenizer)
        self.loaded = loaded
        self.end = int(loaded.tokenizer.eos_token_id)
        self.sampler = ScriptedSampler()
        self.engine = Engine(loaded, self.tokens, kv_memory=kv_memory, sampler=self.sampler)
        self.joined = {
            name: JoinedDecoder(loaded, self.tokens, ARMS[name].join, ROOM, kv_memory=kv_memory)
            for name in WAYS
            if ARMS[name].decoding == "joined"
        }

    def write(self, way: str, problems: list[Problem]) -> tuple[float, list[Answer]]:
        """Seconds of one batch with an empty prefix cache, and its answers."""
        prompts = [prompt_ids(self.tokens, self.loaded.tokenizer, problem.question, ARMS[way]) for problem in problems]
        parallel = ARMS[way].mode == "parallel"
        scripts = [self._script(problem.structured if parallel else problem.sequential) for problem in problems]
        engine = self.joined[way].engine if way in self.joined else self.engine
        engine.cache.clear()
        start = time.perf_counter()
        answers = self.joined[way](prompts, scripts) if way in self.joined else self._engine(prompts, scripts)
        return time.perf_counter() - start, answers

    def _script(self, document: Document) -> Script:
        return Script(document, self.tokens, self.end)

    def _engine(self, prompts: list[list[int]], scripts: list[Script]) -> list[Answer]:
        requests = []
        for prompt, script in zip(prompts, scripts, strict=True):
            request = self.engine.submit(prompt, SamplingParams(temperature=0, max_tokens=ROOM, guard=False))
            self.sampler.scripts[request.id] = script
            requests.append(request)
        self.engine.run(requests)
        self.sampler.scripts.clear()
        return [answer_of(self.engine.generation(request)) for request in requests]


def compare(ways: Ways, cases: dict[str, list[Problem]], repeats: int, tick: Callable[[], None]) -> dict[str, Any]:
    """For each case and way: medians of seconds and of ratios to the first way, and token counts of the answers."""
    seconds: dict[tuple[str, str], list[float]] = {}
    took: dict[tuple[str, str], list[Answer]] = {}
    for repeat in range(repeats):
        for case, problems in cases.items():
            for turn in range(len(WAYS)):
                way = WAYS[(turn + repeat) % len(WAYS)]
                spent, took[case, way] = ways.write(way, problems)
                seconds.setdefault((case, way), []).append(spent)
                tick()
    return {case: {way: _row(seconds, took, case, way) for way in WAYS} for case in cases}


def _row(
    seconds: dict[tuple[str, str], list[float]], took: dict[tuple[str, str], list[Answer]], case: str, way: str
) -> dict[str, float]:
    own, first, answers = seconds[case, way], seconds[case, WAYS[0]], took[case, way]
    ratios = [a / b for a, b in zip(own, first, strict=True)]
    return {
        "seconds": round(median(own), 5),
        "ratio": round(median(ratios), 4),
        "ratio_low": round(min(ratios), 4),
        "ratio_high": round(max(ratios), 4),
        "critical_path_tokens": sum(answer.critical_path_tokens for answer in answers) / len(answers),
        "total_tokens": sum(answer.total_tokens for answer in answers) / len(answers),
        "recomputed": sum(answer.recomputed for answer in answers) / len(answers),
        "stored": sum(answer.stored for answer in answers) / len(answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["paper", "qwen-0.5b"], default="paper")
    parser.add_argument("--limit", type=int, default=8, help="problems of each case in a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path, help="recipes/paper/timing-SHAPE.json if not given")
    options = parser.parse_args()
    disable_progress_bar()
    ways = Ways(shape(options.shape))
    sets = {case: data.held_out(CASES[case][0], options.limit, CASES[case][1]) for case in options.cases}
    rounds = {"one at a time": {case: problems[:1] for case, problems in sets.items()}}
    if options.limit > 1:
        rounds[f"{options.limit} at once"] = sets
    result: dict[str, Any] = {
        "shape": options.shape,
        "machine": describe(),
        "date": date.today().isoformat(),
        "repeats": options.repeats,
        "rounds": {},
    }
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing", total=(1 + options.repeats) * len(sets) * len(WAYS) * len(rounds))

        def tick() -> None:
            bar.advance(task)

        compare(ways, rounds["one at a time"], 1, tick)  # warm-up, not measured
        bar.update(task, total=(options.repeats * len(rounds) + 1) * len(sets) * len(WAYS))
        for name, cases in rounds.items():
            result["rounds"][name] = compare(ways, cases, options.repeats, tick)
    path: Path = options.json if options.json is not None else HERE / f"timing-{options.shape}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(path)


def table(result: dict[str, Any]) -> str:
    """Markdown: wall-clock of each way over that of the first."""
    head = ("case", "asked", "way", "time over KV join (range)", "seconds", "critical path", "tokens", "read again", "stored")
    lines = [f"{result['shape']}:", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, cases in result["rounds"].items():
        for case, rows in cases.items():
            for way, row in rows.items():
                cells = [
                    case,
                    name,
                    way,
                    f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})",
                    f"{row['seconds']:.3f}",
                    *(f"{row[key]:.0f}" for key in ("critical_path_tokens", "total_tokens", "recomputed", "stored")),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{result['repeats']} repeats. {result['machine']}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
