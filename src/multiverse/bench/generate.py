"""Greedy `generate` of transformers, timed from its first new token to its last."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList


class _Clock(StoppingCriteria):
    """Records the time of each token; never stops."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        self.times.append(time.perf_counter())
        return torch.zeros(len(input_ids), dtype=torch.bool)


def _generate(model: Any, ids: Tensor, steps: int, **settings: Any) -> list[float]:
    """Times of the `steps` + 1 tokens that are generated for each row of `ids`."""
    clock = _Clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=steps + 1,
        min_new_tokens=steps + 1,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([clock]),
        **settings,
    )
    assert len(clock.times) == steps + 1, f"generate returned {len(clock.times)} tokens, not {steps + 1}"
    return clock.times


@torch.inference_mode()
def generate_seconds(model: Any, rows: int, prompt: list[int], steps: int) -> float:
    """Seconds of `steps` decode steps of `rows` continuations of one prompt.

    The prompt is prefilled once, untimed, and its keys and values are repeated for every row.
    """
    ids = torch.tensor([prompt], device=model.device)
    cache = DynamicCache(config=model.config)
    model(ids[:, :-1], past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(rows)
    times = _generate(model, ids.repeat(rows, 1), steps, past_key_values=cache)
    return times[-1] - times[0]


@torch.inference_mode()
def first_token_seconds(model: Any, prompt: list[int]) -> float:
    """Seconds from a prompt to the first token."""
    began = time.perf_counter()
    return _generate(model, torch.tensor([prompt], device=model.device), 0)[0] - began


@torch.inference_mode()
def static_seconds(model: Any, rows: int, prompt: list[int], steps: int) -> list[float]:
    """Seconds of each decode step of `rows` continuations with the static cache, for which transformers compiles on CUDA.

    `generate` prefills the prompt before the clock starts. The caller warms up, since the first call compiles.
    """
    ids = torch.tensor([prompt], device=model.device).repeat(rows, 1)
    times = _generate(model, ids, steps, cache_implementation="static")
    return [after - before for before, after in pairwise(times)]
