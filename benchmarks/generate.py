"""transformers' own `generate`, greedy, timed from its first new token to its last."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList


class _Clock(StoppingCriteria):
    """Notes when each token is there; never stops anything."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


@torch.inference_mode()
def generate_seconds(model: Any, rows: int, prompt: list[int], steps: int) -> float:
    """Seconds of `steps` decode steps of `rows` continuations of one prompt.

    The prompt is read once and its keys and values repeated for every row: reading it is not what is measured.
    """
    ids = torch.tensor([prompt])
    cache = DynamicCache(config=model.config)
    model(ids[:, :-1], past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(rows)
    clock = _Clock()
    ids = ids.repeat(rows, 1)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=steps + 1,
        min_new_tokens=steps + 1,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    assert len(clock.times) == steps + 1, f"generate wrote {len(clock.times)} tokens, not {steps + 1}"
    return clock.times[-1] - clock.times[0]


@torch.inference_mode()
def static_seconds(model: Any, rows: int, prompt: list[int], steps: int) -> list[float]:
    """Seconds of each decode step of `rows` continuations, with the static cache, for which transformers compiles on CUDA.

    The prompt is read by `generate` itself, before the clock starts. What a first call compiles is up to the caller to warm up.
    """
    ids = torch.tensor([prompt], device=model.device).repeat(rows, 1)
    clock = _Clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        cache_implementation="static",
        max_new_tokens=steps + 1,
        min_new_tokens=steps + 1,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([clock]),
    )
    assert len(clock.times) == steps + 1, f"generate wrote {len(clock.times)} tokens, not {steps + 1}"
    return [after - before for before, after in pairwise(clock.times)]
