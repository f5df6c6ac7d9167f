"""Two hundred requests at once on a pool sized for twenty, for ten minutes: everybody finishes, nothing leaks.

The embedded model answers random problems at random temperatures, in parallel and in a line; some requests are aborted on
the way, some run into their bounds. Every slot is accounted for at every hundredth step, and the process's memory is written
down, with what tells a leak from holes and Python from the rest: what the C library's heap has in use and what it only holds,
and how many blocks Python has. Is the curve not flat, the one of these that grows says where to look. Huge pages are
switched off for the process: where the system hands them out unasked, it fills the holes between what is in use by and by, and
all of that counts as resident, though nobody asked for it.

    python -m benchmarks.soak                 # ten minutes
    python -m benchmarks.soak --seconds 30
    python -m benchmarks.soak --leak 100      # KiB a second lost on purpose: it has to be found
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

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
MIB = 1 << 20
_PR_SET_THP_DISABLE = 41  # linux/prctl.h


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    )


class Memory(NamedTuple):
    """What the process holds at one moment.

    Attributes:
        seconds: since the beginning.
        resident: MiB.
        heap_used, heap_free: of the C library's heap, MiB in use, and held without use.
        python_blocks: number of blocks that Python has allocated.
    """

    seconds: float
    resident: float
    heap_used: float
    heap_free: float
    python_blocks: int


def small_pages() -> bool:
    """Let this process have no huge pages; whether the system went along."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0


def memory(seconds: float) -> Memory:
    """The process's memory now; the heap is told by glibc alone."""
    heap = _Heap()
    if mallinfo2 := getattr(ctypes.CDLL(None), "mallinfo2", None):
        mallinfo2.restype = _Heap
        heap = mallinfo2()
    used, free = (heap.uordblks + heap.hblkhd) / MIB, heap.fordblks / MIB
    return Memory(round(seconds, 1), round(resident_mib(), 1), round(used, 1), round(free, 1), sys.getallocatedblocks())


def resident_mib() -> float:
    """Memory of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("this needs /proc/self/status")


class Soak:
    """Keeps the engine full until the time is up, then lets it run empty.

    Args:
        leak: bytes a second that are lost on purpose.
    """

    def __init__(self, seed: int, leak: float = 0.0) -> None:
        self.leak = leak
        self.lost: list[bytes] = []
        self.rng = random.Random(seed)
        self.llm = LLM(kv_memory=1 << 24)
        answers = self.llm.generate([self.prompt(number) for number in range(16)])
        typical = [generation.usage for generation in answers]
        tokens = median(usage.prompt_tokens + usage.total_tokens for usage in typical)
        self.llm = LLM(kv_memory=int(SIZED_FOR * tokens * self.llm.engine.backend.pool.bytes_per_slot))
        self.alive: list[Request] = []
        self.reasons: Counter[str] = Counter()
        self.tokens = self.forks = self.steps = 0
        self.memory: list[Memory] = []

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
                before = self.memory[-1].seconds if self.memory else -math.inf
                if now - before >= min(5.0, seconds / 40):
                    self.memory.append(memory(now))
                    self.lost.append(b"x" * int(self.leak * min(now, now - before)))
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
        early, late = self._middle(quarter, 2 * quarter), self._middle(3 * quarter, 4 * quarter)
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
            "memory_second_quarter": early._asdict(),
            "memory_last_quarter": late._asdict(),
            "memory_growth": round(late.resident / early.resident - 1, 4),
            "memory": self.memory,
        }

    def _middle(self, start: int, end: int) -> Memory:
        """Medians over some of the samples."""
        return Memory(*map(median, zip(*self.memory[start:end], strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leak", type=float, default=0, help="KiB a second to lose on purpose")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not small_pages():
        print("huge pages could not be switched off: memory may seem to grow", file=sys.stderr)
    soak = Soak(options.seed, options.leak * 1024)
    soak.run(options.seconds)
    report = soak.report()
    for name, value in report.items():
        if name != "memory":
            print(f"{name}: {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(report) + "\n")
    growth = report["memory_growth"]
    assert isinstance(growth, float)
    if growth > GROWTH:
        sys.exit(f"memory grew by {growth:.1%} between the second and the last quarter; at most {GROWTH:.0%} counts as flat")


if __name__ == "__main__":
    main()
