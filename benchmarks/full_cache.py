"""Time of `Scheduler.schedule` when the prefix cache is full: of a few long conversations, and of many.

In each step 32 branches need slots that the cache must evict; only the scheduler is timed, no model runs. Both sides are
measured in turn; the ratio is the median over the repeats.

    python -m benchmarks.full_cache
"""

from __future__ import annotations

import time
from itertools import count
from statistics import fmean, median

from benchmarks.machine import describe
from benchmarks.options import make_parser
from multiverse import SamplingParams
from multiverse.engine import ModelInfo, Request, Scheduler, SlotPool
from multiverse.engine.scheduler import Chunk

SLOTS, ROWS, STEPS = 200_000, 32, 200
FEW, MANY = 20, 2_000


def request(number: int, prompt: int, max_tokens: int) -> Request:
    """A request whose prompt shares no prefix with another."""
    tokens = list(range(number * SLOTS, number * SLOTS + prompt))
    return Request(number, tokens, SamplingParams(max_tokens=max_tokens), ModelInfo(None, lambda _: "", 1 << 20))


def answer(scheduler: Scheduler, chunks: list[Chunk]) -> None:
    """Append a token to each branch that samples one, as the engine does."""
    for chunk in chunks:
        if chunk.sample:
            chunk.request.advance(chunk.branch, 7)
            if not chunk.request.prompt_computed:
                scheduler.insert_prompt(chunk.request)
    for chunk in chunks:
        if chunk.sample and chunk.request.finish_reason is not None:
            scheduler.finish(chunk.request)


def measure(conversations: int) -> float:
    """Mean seconds of `schedule` when the cache is full of this number of conversations."""
    scheduler = Scheduler(SlotPool(SLOTS), max_batch_tokens=SLOTS, max_requests=ROWS, max_batch_branches=ROWS)
    numbers = count(1)
    for _ in range(conversations):
        scheduler.add(request(next(numbers), SLOTS // conversations, 1))
        answer(scheduler, scheduler.schedule())
    for _ in range(ROWS):
        scheduler.add(request(next(numbers), 1, STEPS + 1))
    answer(scheduler, scheduler.schedule())
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        chunks = scheduler.schedule()
        seconds.append(time.perf_counter() - began)
        answer(scheduler, chunks)
    return fmean(seconds)


def main() -> None:
    parser = make_parser(__doc__, json=None)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    pairs = [(measure(FEW), measure(MANY)) for _ in range(options.repeats)]
    for conversations, seconds in zip((FEW, MANY), zip(*pairs, strict=True), strict=True):
        print(f"{1000 * median(seconds):6.2f} ms for {ROWS} branches beside {conversations:5,} cached conversations")
    ratios = sorted(many / few for few, many in pairs)
    print(f"ratio: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(describe())


if __name__ == "__main__":
    main()
