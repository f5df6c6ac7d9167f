"""Thousands of random operations on one small pool, every slot accounted for after each of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from multiverse import LLM, SamplingParams
from multiverse.engine import Branch, Request
from multiverse.structure import Role
from tests.engine.steering import PolicySampler

REASONS = {"stop", "length", "budget", "deadline", "abort", "error"}


class Wanderer:
    """A policy that wanders through the grammar at random, forks a lot, and ends sooner or later."""

    def __init__(self, llm: LLM, rng: random.Random) -> None:
        assert llm.engine.tokens is not None
        self.tokens, self.rng = llm.engine.tokens, rng
        self.end = int(llm.tokenizer.eos_token_id)
        self.text = self.tokens.encode("abc ")

    def __call__(self, request: Request, branch: Branch) -> int:
        only, banned, _ = request.limits.choices(branch)
        if only is not None:
            return self.rng.choice(only)
        assert branch.machine is not None
        legal = [self.tokens.ids[role] for role in branch.machine.legal_roles()]
        legal = [token for token in legal if token not in banned]
        if self.tokens.fork_tag in legal and self.rng.random() < 0.8:
            return self.tokens.fork_tag
        if branch.machine.complete and self.end not in banned and self.rng.random() < 0.2:
            return self.end
        if legal and self.rng.random() < (0.9 if legal == [self.tokens.ids[Role.THINK_OPEN]] else 0.5):
            return self.rng.choice(legal)
        return self.rng.choice([*self.text, *self.tokens.sep])


def random_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=0,
        max_tokens=rng.choice([20, 200, 400]),
        max_depth=rng.choice([0, 1, 3, 3]),
        max_width=rng.choice([1, 3, 8]),
        max_branches=rng.choice([2, 8, 64]),
        max_branch_tokens=rng.choice([20, 8192]),
        max_critical_path_tokens=rng.choice([None, None, 120]),
        thinking_budget=rng.choice([None, None, None, 40]),
        share_every=rng.choice([None, None, None, 1, 8]),
    )


@pytest.mark.parametrize("cached", [True, False], ids=["with a prefix cache", "without"])
@pytest.mark.parametrize("operations", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_operations(model_folders: dict[str, Path], operations: int, cached: bool) -> None:
    rng = random.Random(20261121 + cached)
    llm = LLM(model_folders["qwen2"], kv_memory=700 * 256, prefix_cache=cached)
    engine = llm.engine
    assert engine.slots.size < 1000
    wanderer = Wanderer(llm, rng)
    engine.sampler = PolicySampler(wanderer)
    submitted: list[Request] = []
    counts: dict[str, int] = {}
    for _ in range(operations):
        scheduler = engine.scheduler
        operation = rng.choices(["step", "submit", "abort", "preempt", "evict", "expire", "squeeze"], [84, 6, 1, 4, 2, 1, 2])[0]
        alive = [*scheduler.running, *scheduler.waiting]
        if operation == "step":
            engine.step()
        elif operation == "submit" and len(alive) < 40:
            prompt = wanderer.tokens.encode(rng.choice(["Q", "Question", "Question and more of it " * 3]))
            submitted.append(engine.submit(prompt, random_params(rng), priority=rng.choice([0, 0, 1])))
        elif operation == "abort" and alive:
            engine.abort(rng.choice(alive))
        elif operation == "preempt" and scheduler.running:
            scheduler.preempt(rng.choice(scheduler.running))
        elif operation == "evict":
            engine.cache.evict(rng.randrange(engine.cache.evictable + 1))
        elif operation == "expire" and alive:
            rng.choice(alive).started_at -= 1e6
        elif operation == "squeeze":
            scheduler.max_batch_tokens = rng.choice([3, 20, 2048])
            scheduler.max_batch_branches = rng.choice([1, 4, 256])
            scheduler.max_requests = rng.choice([1, 5, 256])
        counts[operation] = counts.get(operation, 0) + 1
        engine.check_integrity()
    while engine.busy:
        engine.step()
        engine.check_integrity()
    assert min(counts.values()) > 10
    assert engine.slots.owned == 0
    assert engine.slots.free + engine.slots.cached == engine.slots.size
    assert {request.finish_reason for request in submitted} <= REASONS
    assert {"stop", "length", "budget", "deadline", "abort"} <= {request.finish_reason for request in submitted}
    assert sum(len(branch.blocks) for request in submitted for branch in request.tree.branches) > operations // 40
    assert engine.scheduler.preemptions > operations // 100
    assert (engine.cache.hits > 0) == cached
    engine.cache.clear()
    assert engine.slots.free == engine.slots.size
