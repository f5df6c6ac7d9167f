"""Two hundred requests at once on a pool sized for twenty, for ten minutes: everybody finishes, nothing leaks.

The embedded model answers random problems at random temperatures, in parallel and in a line; some requests are aborted on
the way, some run into their bounds. Every slot is accounted for at every hundredth step, and the process's memory is written
down.

    python -m benchmarks.soak                 # ten minutes
    python -m benchmarks.soak --seconds 30
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import Progress

from benchmarks.machine import describe
from multiverse import LLM, SamplingParams
from multiverse.engine import Request
from multiverse.prompting import Mode, ask
from multiverse.tasks import FAMILIES, generate

CONCURRENT = 200
SIZED_FOR = 20
# Flat: the last quarter of the run may hold so much more memory than the second one.
GROWTH = 0.02


def resident_mib() -> float:
    """Memory of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("this needs /proc/self/status")


class Soak:
    """Keeps the engine full until the time is up, then lets it run empty."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.llm = LLM(kv_memory=1 << 24)
        answers = self.llm.generate([self.prompt(number) for number in range(16)])
        typical = [generation.usage for generation in answers]
        tokens = median(usage.prompt_tokens + usage.total_tokens for usage in typical)
        self.llm = LLM(kv_memory=int(SIZED_FOR * tokens * self.llm.engine.runner.pool.bytes_per_slot))
        self.alive: list[Request] = []
        self.reasons: Counter[str] = Counter()
        self.tokens = self.forks = self.steps = 0
        self.memory: list[tuple[float, float]] = []

    def prompt(self, seed: int) -> list[int]:
        """A random problem as the model wants it."""
        family = self.rng.choice(sorted(FAMILIES))
        mode: Mode = self.rng.choice(["parallel", "sequential"])
        chat = ask(generate(family, 1, seed=seed)[0].question, mode)
        text = self.llm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        token_ids: list[int] = self.llm.tokenizer.encode(text, add_special_tokens=False)
        return token_ids

    def submit(self) -> None:
        """One more request."""
        params = SamplingParams(
            temperature=self.rng.choice([0, 0.6, 1.2]),
            max_tokens=self.rng.choice([60, 300, 600]),
            thinking_budget=self.rng.choice([None, None, 50]),
            seed=self.rng.randrange(1 << 30),
        )
        priority = self.rng.choice([0, 0, 0, 1])
        self.alive.append(self.llm.engine.submit(self.prompt(self.rng.randrange(1 << 30)), params, priority=priority))

    def step(self) -> None:
        """One forward, and what comes with it."""
        engine = self.llm.engine
        if self.rng.random() < 0.002 and self.alive:
            engine.abort(self.rng.choice(self.alive))
        engine.step()
        self.steps += 1
        if self.steps % 100 == 0:
            engine.check_integrity()
        still = []
        for request in self.alive:
            if request.finish_reason is None:
                still.append(request)
            else:
                self.reasons[request.finish_reason] += 1
                self.tokens += request.written
                self.forks += request.forks
        self.alive = still

    def run(self, seconds: float) -> None:
        """Keep it full for so long, then empty it."""
        start = time.monotonic()
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("soaking", total=seconds)
            while (now := time.monotonic() - start) < seconds:
                while len(self.alive) < CONCURRENT:
                    self.submit()
                self.step()
                if not self.memory or now - self.memory[-1][0] >= min(5.0, seconds / 40):
                    self.memory.append((now, resident_mib()))
                progress.update(bar, completed=now)
            progress.update(bar, description="running empty")
            while self.llm.engine.busy:
                self.step()

    def report(self) -> dict[str, object]:
        """What happened; raises `AssertionError` if anything is left over."""
        engine = self.llm.engine
        engine.check_integrity()
        assert not self.alive, f"{len(self.alive)} requests never finished"
        assert engine.slots.owned == 0, f"{engine.slots.owned} slots leaked"
        engine.cache.clear()
        assert engine.slots.free == engine.slots.size, "the cache kept slots back"
        quarter = len(self.memory) // 4
        early = median(mib for _, mib in self.memory[quarter : 2 * quarter])
        late = median(mib for _, mib in self.memory[-quarter:])
        return {
            "machine": describe(),
            "concurrent": CONCURRENT,
            "slots": engine.slots.size,
            "finished": dict(self.reasons),
            "steps": self.steps,
            "tokens": self.tokens,
            "forks": self.forks,
            "preemptions": engine.scheduler.preemptions,
            "evicted_tokens": engine.cache.evicted,
            "cache_hit_share": round(engine.cache.hits / max(1, engine.cache.queries), 3),
            "memory_mib_second_quarter": round(early, 1),
            "memory_mib_last_quarter": round(late, 1),
            "memory_growth": round(late / early - 1, 4),
            "memory_mib": [(round(at, 1), round(mib, 1)) for at, mib in self.memory],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    soak = Soak(options.seed)
    soak.run(options.seconds)
    report = soak.report()
    for name, value in report.items():
        if name != "memory_mib":
            print(f"{name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report) + "\n")
    growth = report["memory_growth"]
    assert isinstance(growth, float)
    if growth > GROWTH:
        sys.exit(f"memory grew by {growth:.1%} between the second and the last quarter; at most {GROWTH:.0%} counts as flat")


if __name__ == "__main__":
    main()
