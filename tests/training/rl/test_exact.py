"""What is rolled out is what is trained: the engine's log-probabilities of sampled rollouts against the trainer's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multiverse import LLM, SamplingParams
from multiverse.structure import DIALECTS, Positions, TokenDialect, layout
from multiverse.training.rl.collect import Draw, collect
from multiverse.training.rl.policy import Policy
from multiverse.training.rl.rollout import Rollout
from tests.training.rl.forking import BOTH, forking_model, largest_difference, questions, rollouts_of, trained_logprobs

TOLERANCE = 1e-4
PARAMS = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=100, max_width=3, max_branch_tokens=50)
SLOTS = 700
"""Tokens that fit in memory: less than what all rollouts take together, so that some are preempted."""


def update(model: Any, rollouts: list[Rollout]) -> None:
    """One step of an optimizer, with gradients of about the kind that reinforcement learning has."""
    assert model.training
    parameters = list(model.parameters())
    assert all(parameter.requires_grad for parameter in parameters)
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    found = trained_logprobs(model, rollouts)
    torch.stack([values.mean() * (1 if at % 2 else -1) for at, values in enumerate(found) if len(values)]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters)
    optimizer.step()


def check_layout(one: Rollout, tokens: TokenDialect) -> None:
    """Positions, visibility and sources are those of the text's layout, which is derived from the tokens alone."""
    ids, prompt = one.token_ids, len(one.generation.prompt_token_ids)
    end = int(one.generation.finish_reason == "stop")  # the end of text is not part of the grammar
    whole = layout(ids[: len(ids) - end], tokens, decoded=True)
    assert one.positions[: len(whole)] == whole.positions
    table, segments = np.array(whole.visibility()), np.array(whole.branches)
    own = np.array(one.visibility)[np.array(one.segments[: len(whole)])][:, np.array(one.segments[: len(whole)])]
    assert np.array_equal(np.tril(own), np.tril(table[segments][:, segments]))
    before, last = [], {}
    for index, writer in enumerate(whole.writers):
        before.append(last.get(writer, -1))
        last[writer] = index
    sampled = [
        (before[index], source) for index, source in enumerate(one.sources[: len(whole) - prompt], prompt) if source >= 0
    ]
    assert all(expected == source for expected, source in sampled)


@pytest.mark.parametrize(
    ("family", "temperature", "top_p", "positions"),
    [
        ("llama", 1.0, 1.0, "engine"),
        ("qwen3", 0.7, 0.9, "engine"),
        ("qwen2", 1.0, 0.9, "released"),
        ("sliding", 0.7, 1.0, "engine"),
    ],
)
def test_the_trainer_finds_the_engines_log_probabilities(
    family: str, temperature: float, top_p: float, positions: Positions
) -> None:
    dialect = replace(BOTH, positions=positions)
    model, tokenizer, tokens = forking_model(family, dialect)
    policy = Policy(model, tokenizer, tokens, kv_memory=SLOTS * (512 if family == "qwen3" else 256))
    params = replace(PARAMS, temperature=temperature, top_p=top_p)
    asked = questions(3, dialect)
    with policy.decoding():
        first = rollouts_of(collect(policy, asked, group_size=3, draw=Draw(seed=1, step=0, version=0), params=params))
        # The same prompts again, whose beginnings are in the prefix cache.
        again = rollouts_of(collect(policy, asked, group_size=2, draw=Draw(seed=1, step=1, version=0), params=params))
    rollouts = first + again
    assert largest_difference(model, rollouts) <= TOLERANCE
    for one in rollouts:
        check_layout(one, tokens)
    usages = [one.generation.usage for one in rollouts]
    assert sum(one.num_sampled for one in rollouts) > 300
    assert any(usage.preemptions for usage in usages)
    assert any(usage.cached_tokens for usage in usages)
    assert any(one.generation.closed for one in rollouts)
    assert any(label for one in rollouts for label in one.generation.branches)
    assert any(support is not None for one in rollouts for support in one.supports)

    update(model, rollouts)
    changed = largest_difference(model, rollouts)
    assert changed > 100 * TOLERANCE
    draw = Draw(seed=1, step=2, version=1)
    after = rollouts_of(collect(policy, asked, group_size=2, draw=draw, params=params))
    assert largest_difference(model, after) <= TOLERANCE
    assert {one.version for one in after} == {1}


@pytest.mark.parametrize(
    ("name", "positions", "guard"),
    [
        ("multiverse-compact", "engine", True),
        ("npr", "engine", True),
        ("npr", "released", True),
        ("npr", "released", False),
        ("threadweaver", "released", True),
        ("threadweaver-conclusion", "engine", False),
    ],
)
def test_every_dialect_is_exact(name: str, positions: Positions, guard: bool) -> None:
    dialect = replace(DIALECTS[name], join="kv", positions=positions)
    model, tokenizer, tokens = forking_model("qwen3", dialect, seed=1, closing=8.0)
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    params = replace(PARAMS, guard=guard, top_p=0.98, max_tokens=60)
    draw = Draw(seed=2, step=0, version=0)
    rollouts = rollouts_of(collect(policy, questions(2, dialect), group_size=4, draw=draw, params=params))
    assert largest_difference(model, rollouts) <= TOLERANCE
    assert any(len(one.visibility) > 2 for one in rollouts)


def test_greedy_decoding_after_a_step_is_that_of_the_saved_model(tmp_path: Path) -> None:
    model, tokenizer, tokens = forking_model("qwen3")
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    rollouts = rollouts_of(collect(policy, questions(2), group_size=2, draw=Draw(seed=1, step=0, version=0), params=PARAMS))
    messages = [{"role": "user", "content": "Why?"}]
    greedy = SamplingParams(temperature=0, max_tokens=50)
    with policy.decoding() as llm:
        before = llm.chat(messages, greedy)[0]
    update(model, rollouts)
    with policy.decoding() as llm:
        after = llm.chat(messages, greedy)[0]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with LLM(tmp_path, dialect=tokens.dialect, kv_memory=1 << 20) as loaded:
        expected = loaded.chat(messages, greedy)[0]
    assert after.token_ids == expected.token_ids
    assert after.token_ids != before.token_ids


def test_the_answers_format_is_part_of_the_support() -> None:
    pytest.importorskip("llguidance")
    model, tokenizer, tokens = forking_model("qwen2")
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    params = replace(PARAMS, response_format={"type": "json_object"}, thinking_budget=30)
    draw = Draw(seed=5, step=0, version=0)
    rollouts = rollouts_of(collect(policy, questions(2), group_size=2, draw=draw, params=params))
    assert largest_difference(model, rollouts) <= TOLERANCE
    lists = [len(one.token_ids) for rollout in rollouts for one in rollout.supports if one is not None and one.allowed]
    assert max(lists) > 12
