"""Soak test: two hundred requests at once on a pool sized for twenty, for ten minutes. All must finish, and nothing may leak.

The embedded model answers random problems at random temperatures, in parallel and sequentially; some requests are aborted, some
reach their limits. Every hundredth step checks that every slot is accounted for. The memory of the process is recorded, with
figures that tell a leak from fragmentation: bytes of the C library's heap in use and free, and the number of Python's blocks.
Transparent huge pages are disabled for the process, because they make fragments of free memory resident.

    python -m benchmarks.soak                 # ten minutes
    python -m benchmarks.soak --seconds 30
    python -m benchmarks.soak --leak 100      # KiB per second that leak on purpose: the test must fail
"""

from __future__ import annotations

import ctypes
import json
import math
import random
import sys
import time
from collections import Counter
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from benchmarks.machine import MAX_GROWTH, describe, resident_mib
from benchmarks.options import make_parser
from multiverse import LLM, SamplingParams
from multiverse.engine import Request
from multiverse.prompting import Mode, ask
from multiverse.tasks import CALCULATIONS, generate

CONCURRENT = 200
SIZED_FOR = 20
MIB = 1 << 20
_PR_SET_THP_DISABLE = 41  # linux/prctl.h


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = (
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    )


class Memory(NamedTuple):
    """Memory of the process at one time.

    Attributes:
        seconds: since the start.
        resident: MiB.
        heap_used, heap_free: MiB of the C library's heap in use and free; 0 without glibc.
        python_blocks: number of blocks that Python has allocated.
    """

    seconds: float
    resident: float
    heap_used: float
    heap_free: float
    python_blocks: int


def disable_huge_pages() -> bool:
    """Disable transparent huge pages for this process; whether that succeeded."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0


def memory(seconds: float) -> Memory:
    """The memory of this process now."""
    heap = _Heap()
    if mallinfo2 := getattr(ctypes.CDLL(None), "mallinfo2", None):
        mallinfo2.restype = _Heap
        heap = mallinfo2()
    used, free = (heap.uordblks + heap.hblkhd) / MIB, heap.fordblks / MIB
    return Memory(round(seconds, 1), round(resident_mib(), 1), round(used, 1), round(free, 1), sys.getallocatedblocks())


class Soak:
    """Keeps the engine full for a time, then lets it finish all requests.

    Args:
        seed: of the problems and of their settings.
        leak: bytes per second that leak on purpose.
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
        """A random problem as a prompt of the model."""
        family = self.rng.choice(sorted(CALCULATIONS))
        mode: Mode = self.rng.choice(["parallel", "sequential"])
        chat = ask(generate(family, 1, seed=seed)[0].question, mode)
        return self.llm.encode_chat(chat)

    def submit(self) -> None:
        """Submit one more request."""
        params = SamplingParams(
            temperature=self.rng.choice([0, 0.6, 1.2]),
            max_tokens=self.rng.choice([60, 300, 600]),
            thinking_budget=self.rng.choice([None, None, 50]),
            seed=self.rng.randrange(1 << 30),
        )
        priority = self.rng.choice([0, 0, 0, 1])
        self.alive.append(self.llm.engine.submit(self.prompt(self.rng.randrange(1 << 30)), params, priority=priority))

    def step(self) -> None:
        """Run one step, and collect the requests that it finishes."""
        engine = self.llm.engine
        if self.rng.random() < 0.002 and self.alive:
            engine.abort(self.rng.choice(self.alive))
        engine.step()
        self.steps += 1
        if self.steps % 100 == 0:
            engine.check_integrity()
        alive = []
        for request in self.alive:
            if request.finish_reason is None:
                alive.append(request)
            else:
                self.reasons[request.finish_reason] += 1
                self.tokens += request.num_generated
                self.forks += sum(len(branch.blocks) for branch in request.tree.branches)
        self.alive = alive

    def run(self, seconds: float) -> None:
        """Keep the engine full for this time, then finish all requests."""
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
            progress.update(bar, description="finishing")
            while self.llm.engine.busy:
                self.step()

    def report(self) -> dict[str, object]:
        """The figures; raises `AssertionError` if a request did not finish or a slot is not free."""
        engine = self.llm.engine
        engine.check_integrity()
        assert not self.alive, f"{len(self.alive)} requests never finished"
        assert engine.slots.owned == 0, f"{engine.slots.owned} slots leaked"
        engine.cache.clear()
        assert engine.slots.free == engine.slots.size, "slots are not free after the cache was cleared"
        quarter = len(self.memory) // 4
        early, late = self._medians(quarter, 2 * quarter), self._medians(3 * quarter, 4 * quarter)
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

    def _medians(self, start: int, end: int) -> Memory:
        """Medians over a range of samples."""
        return Memory(*map(median, zip(*self.memory[start:end], strict=True)))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leak", type=float, default=0, help="KiB per second that leak on purpose")
    options = parser.parse_args()
    if not disable_huge_pages():
        print("transparent huge pages could not be disabled: memory may seem to grow", file=sys.stderr)
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
    if growth > MAX_GROWTH:
        sys.exit(
            f"memory grew by {growth:.1%} between the second and the last quarter; at most {MAX_GROWTH:.0%} counts as flat"
        )


if __name__ == "__main__":
    main()
