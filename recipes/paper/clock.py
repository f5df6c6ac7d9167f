"""Wall-clock times relative to a reference workload that is timed right before them.

Seconds depend on the machine and its load. The reference is plain decoding by the same engine with the same model, so a time
divided by it is the number of plain tokens that could have been decoded in the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

from multiverse.engine.engine import Engine
from multiverse.engine.model import LoadedModel
from multiverse.engine.params import SamplingParams

from .ask import Respondent

PROMPT, STEPS, ROWS = 64, 64, 32


class Reference:
    """Plain batched decoding: only the model and the engine's loop."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.engine = Engine(loaded, None, prefix_cache=False)
        self.params = SamplingParams(temperature=0, max_tokens=STEPS, ignore_eos=True)

    def __call__(self, rows: int) -> float:
        """Seconds of one step with this many rows."""
        start = time.perf_counter()
        self.engine.run([self.engine.submit([5 + row] * PROMPT, self.params) for row in range(rows)])
        return (time.perf_counter() - start) / STEPS


def alone(
    respondent: Respondent, reference: Reference, questions: list[str], on_progress: Callable[[], None]
) -> dict[str, Any]:
    """Answer questions one by one, each after a reference: mean seconds, and medians of the ratios."""
    seconds, steps = [], []
    for question in questions:
        prompt = respondent.prompt(question)
        respondent.engine.cache.clear()
        steps.append(reference(1))
        start = time.perf_counter()
        respondent([prompt])
        seconds.append(time.perf_counter() - start)
        on_progress()
    return {
        "n": len(questions),
        "seconds": round(fmean(seconds), 4),
        "reference_step": round(median(steps), 6),
        "plain_tokens": round(median(a / b for a, b in zip(seconds, steps, strict=True)), 1),
    }
