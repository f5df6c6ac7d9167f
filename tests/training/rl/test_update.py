"""From the engine's rollouts to a loss, as a step of training does it: the ratio at the first update is 1 at every token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from multiverse import SamplingParams
from multiverse.structure import Positions
from multiverse.training.rl.advantages import advantages
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.batch import Packing, make_batches
from multiverse.training.rl.collect import Draw, collect
from multiverse.training.rl.logprobs import policy_logprobs
from multiverse.training.rl.loss import policy_loss
from multiverse.training.rl.policy import Policy
from multiverse.training.rl.rollout import Group, Scores
from tests.training.rl.forking import BOTH, forking_model, questions, rollouts_of

PARAMS = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=120, max_width=3, max_branch_tokens=60)
KV_MEMORY = 220 << 10
"""Too little for all rollouts at once, so that some are preempted."""


@pytest.mark.parametrize(
    ("family", "temperature", "top_p", "positions"),
    [
        ("llama", 1.0, 1.0, "engine"),
        ("qwen3", 0.7, 0.9, "engine"),
        ("qwen2", 1.0, 0.9, "released"),
        ("sliding", 0.7, 1.0, "engine"),
    ],
)
def test_the_ratio_at_the_first_update_is_1(family: str, temperature: float, top_p: float, positions: Positions) -> None:
    dialect = replace(BOTH, positions=positions)
    model, tokenizer, tokens = forking_model(family, dialect)
    policy = Policy(model, tokenizer, tokens, kv_memory=KV_MEMORY)
    params = replace(PARAMS, temperature=temperature, top_p=top_p)
    drawn = collect(policy, questions(4, dialect), group_size=3, draw=Draw(seed=1, step=0, version=0), params=params)
    assert any(label for one in rollouts_of(drawn) for label in one.generation.branches)
    groups = [
        Group(one.question, one.rollouts, [Scores(float(number)) for number in range(len(one.rollouts))]) for one in drawn
    ]
    algorithm = Algorithm()
    pad_id = tokenizer.pad_token_id
    batches = make_batches(advantages(groups, algorithm).groups, algorithm, Packing(pad_id, packed_length=600))
    assert len(batches) > 1
    assert any(len(batch.rollouts) > 1 and (batch.rows["prefixes"] >= 0).any() for batch in batches)
    total = None
    for batch in batches:
        logprob_T, entropy_T = policy_logprobs(model, batch)
        assert (logprob_T - batch.tokens.old_T).abs().max() <= 1e-4
        loss, statistics = policy_loss(logprob_T, entropy_T, batch.tokens, algorithm)
        loss.backward()  # type: ignore[no-untyped-call]
        total = statistics if total is None else total + statistics
    assert total is not None
    metrics = total.metrics(algorithm)
    assert metrics["ratio_deviation"] <= 2e-4
    assert metrics["tokens_with_loss"] == sum(one.num_sampled for one in rollouts_of(groups)) > 400
    assert metrics["entropy"] > 0
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())
    with torch.no_grad():  # a small step against the gradient
        for weight in model.parameters():
            weight -= 1e-2 * weight.grad  # type: ignore[operator]
        gained = sum(
            float((batch.tokens.advantage_T * (policy_logprobs(model, batch).logprob_T - batch.tokens.old_T)).sum())
            for batch in batches
        )
    assert gained > 1e-3, "what was better than its group becomes likelier, and what was worse less likely"
