"""One side of `benchmarks.spine`: measures the `multiverse` that is on the path, as it is asked to on standard input.

It stands alone and uses only names that last: `LLM`, `SamplingParams`, `Engine.submit`, `step`, `abort` and
`Scheduler.schedule`. A question and its answer are one line of JSON each; the answer is a list of seconds.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

from multiverse import LLM, SamplingParams

VOCABULARY = 200
"""Random prompts are of the first token ids, which are no tags."""
WARM = 6
"""Steps before the clock starts, once all prompts are prefilled."""


class Side:
    """Models that have been loaded, by name and type.

    Args:
        folders: where each model is; `None` is the embedded one.
    """

    def __init__(self, folders: dict[str, str | None]) -> None:
        self.folders = folders
        self.random = random.Random(0)
        self._loaded: dict[tuple[str, str, int], Any] = {}

    def engine(self, model: str, dtype: str = "auto", kv_memory: int = 1 << 28) -> Any:
        """The engine of a model, loaded at the first call."""
        key = model, dtype, kv_memory
        if key not in self._loaded:
            self._loaded[key] = LLM(self.folders[model], dtype=dtype, device="cpu", kv_memory=kv_memory)
        return self._loaded[key].engine

    def submit(self, engine: Any, prompt: int, steps: int) -> Any:
        """A request with a random prompt of so many tokens, which generates at least so many and does not fork."""
        params = SamplingParams(temperature=0, max_tokens=steps, ignore_eos=True, max_depth=0)
        return engine.submit([self.random.randrange(VOCABULARY) for _ in range(prompt)], params)

    def decode(self, model: str, dtype: str, rows: int, prompt: int, steps: int) -> list[float]:
        """Seconds of each step in which `rows` requests write a token each."""
        engine = self.engine(model, dtype)
        with self._running(engine, rows, prompt, steps):
            return [_timed(engine.step) for _ in range(steps)]

    def schedule(self, model: str, rows: int, prompt: int, steps: int) -> list[float]:
        """Seconds of each call of `schedule` in steps of `rows` requests."""
        engine = self.engine(model)
        with self._running(engine, rows, prompt, steps):
            return _schedules(engine, steps)

    def blocked(self, model: str, rows: int, prompt: int, steps: int, waiting: int, kv_memory: int) -> list[list[float]]:
        """Seconds of each call of `schedule` without and with a prompt that waits for memory, in turn."""
        engine = self.engine(model, kv_memory=kv_memory)
        found: list[list[float]] = [[], []]
        with self._running(engine, rows, prompt, 2 * steps):
            for _ in range(2):
                found[0] += _schedules(engine, steps // 2)
                request = self.submit(engine, waiting, 64)
                found[1] += _schedules(engine, steps // 2)
                assert request in engine.scheduler.waiting, "the long prompt was admitted: there is too much memory"
                engine.abort(request)
        return found

    @contextmanager
    def _running(self, engine: Any, rows: int, prompt: int, steps: int) -> Iterator[None]:
        """Requests whose prompts are prefilled and that run for at least so many further steps."""
        reading = WARM + rows * prompt // 1024  # a forward reads up to 2048 tokens
        requests = [self.submit(engine, prompt, steps + reading + 8) for _ in range(rows)]
        for _ in range(reading):
            engine.step()
        try:
            yield
            assert all(request.finish_reason is None for request in requests), "a request ended while it was timed"
        finally:
            for request in requests:
                engine.abort(request)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _schedules(engine: Any, steps: int) -> list[float]:
    seconds: list[float] = []
    scheduler = engine.scheduler
    whole = scheduler.schedule

    def schedule() -> Any:
        began = time.perf_counter()
        chunks = whole()
        seconds.append(time.perf_counter() - began)
        return chunks

    scheduler.schedule = schedule
    try:
        for _ in range(steps):
            engine.step()
    finally:
        del scheduler.schedule
    return seconds


def main() -> None:
    """Answer until standard input is closed; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    logging.disable_progress_bar()
    side = Side(json.loads(sys.argv[1]))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(side, name)(**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
