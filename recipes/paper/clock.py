"""Wall-clock that can be compared: every measurement stands beside a reference workload timed at the same moment.

Seconds depend on the machine and on what else runs there. The reference is plain decoding by the same engine with the same
model, so a time divided by it says how many plain tokens could have been decoded meanwhile.
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
    """Plain decoding of rows side by side: nothing but the model and the engine's loop."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.engine = Engine(loaded, None, prefix_cache=False)
        self.params = SamplingParams(temperature=0, max_tokens=STEPS, ignore_eos=True)

    def __call__(self, rows: int) -> float:
        """Seconds of one step of this many rows."""
        start = time.perf_counter()
        self.engine.run([self.engine.submit([5 + row] * PROMPT, self.params) for row in range(rows)])
        return (time.perf_counter() - start) / STEPS


def alone(respondent: Respondent, reference: Reference, questions: list[str], tick: Callable[[], None]) -> dict[str, Any]:
    """One question after the other, a reference before each: means of seconds, medians of ratios."""
    seconds, steps = [], []
    for question in questions:
        prompt = respondent.prompt(question)
        respondent.engine.cache.clear()
        steps.append(reference(1))
        start = time.perf_counter()
        respondent([prompt])
        seconds.append(time.perf_counter() - start)
        tick()
    return {
        "n": len(questions),
        "seconds": round(fmean(seconds), 4),
        "reference_step": round(median(steps), 6),
        "plain_tokens": round(median(a / b for a, b in zip(seconds, steps, strict=True)), 1),
    }
