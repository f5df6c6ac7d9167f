"""Models that behave as badly as they can, beside good ones: everybody's request ends, and the good ones never notice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multiverse import LLM, SamplingParams
from multiverse.engine import Branch, Request
from multiverse.engine.sampler import Choice, Row, Sampler, own_distribution
from multiverse.engine.scripted import Script
from multiverse.structure import Role, TokenDialect
from tests.engine.steering import NESTED

GOOD = SamplingParams(temperature=0, max_tokens=600, logprobs=True)


def legal_ids(request: Request, branch: Branch, tokens: TokenDialect) -> dict[Role, int]:
    only, banned, _ = request.limits.choices(branch)
    assert branch.machine is not None
    ids = {role: tokens.ids[role] for role in branch.machine.legal_roles()}
    return {role: token for role, token in ids.items() if token not in banned and (only is None or token in only)}


def always_parallel(request: Request, branch: Branch, tokens: TokenDialect, _rng: random.Random) -> int:
    """Opens whatever can be opened, for ever."""
    only, *_ = request.limits.choices(branch)
    legal = legal_ids(request, branch, tokens)
    for role in (Role.THINK_OPEN, Role.BLOCK_OPEN, Role.GOAL_OPEN):
        if role in legal:
            return legal[role]
    assert branch.machine is not None
    if Role.GOAL_CLOSE in legal and branch.machine.outlines >= 2:
        return legal[Role.GOAL_CLOSE]
    if only is not None:
        return legal.get(Role.OUTLINE_OPEN, only[0])
    return legal.get(Role.OUTLINE_CLOSE, babble(branch, tokens))


def babble(branch: Branch, tokens: TokenDialect) -> int:
    """A letter, a line end, a letter, a line end."""
    letter = tokens.encode("x")[0]
    return tokens.sep[0] if branch.token_ids[-1] == letter else letter


def thousand_outlines(request: Request, branch: Branch, tokens: TokenDialect, _rng: random.Random) -> int:
    """Lists outlines without end."""
    only, *_ = request.limits.choices(branch)
    legal = legal_ids(request, branch, tokens)
    for role in (Role.THINK_OPEN, Role.BLOCK_OPEN, Role.GOAL_OPEN, Role.OUTLINE_OPEN, Role.OUTLINE_CLOSE):
        if role in legal and not (role is Role.BLOCK_OPEN and branch.label):
            return legal[role]
    if only is not None:
        return tokens.sep[0] if tokens.sep[0] in only else only[0]
    return babble(branch, tokens)


def never_closes(request: Request, branch: Branch, tokens: TokenDialect, rng: random.Random) -> int:
    """Forks once, and then every path talks on and on."""
    if branch.label:
        only, *_ = request.limits.choices(branch)
        return only[0] if only is not None else tokens.encode("x")[0]
    return always_parallel(request, branch, tokens, rng)


def tags_at_random(_request: Request, _branch: Branch, tokens: TokenDialect, rng: random.Random) -> int:
    """Any tag, anywhere: what guard=False lets through."""
    return rng.choice([*tokens.roles, *tokens.encode("ab\n")])


def ends_in_a_branch(request: Request, branch: Branch, tokens: TokenDialect, rng: random.Random) -> int:
    """Ends the text inside the second path, whatever the guard says."""
    if branch.label == "2" and len(branch.token_ids) > 8:
        return next(iter(request.model.stop_ids))
    return never_closes(request, branch, tokens, rng)


class BadSampler(Sampler):
    """Scripts for good requests; a policy, or broken logits, for bad ones."""

    def __init__(self, tokens: TokenDialect) -> None:
        self.tokens = tokens
        self.rng = random.Random(0)
        self.scripts: dict[int, Script] = {}
        self.bad: dict[int, object] = {}

    def sample(self, logits_BV: Tensor, rows: list[Row], *_: Any) -> Choice:
        logits_BV = logits_BV.clone()
        for row_V, (request, branch) in zip(logits_BV, rows, strict=True):
            if self.bad.get(request.id) == "nan" and len(branch.token_ids) > 5:
                row_V[:] = torch.nan
            if self.bad.get(request.id) == "infinite" and len(branch.token_ids) > 5:
                row_V[3] = torch.inf
        own = own_distribution(logits_BV, rows)
        tokens = super().sample(logits_BV, rows).tokens
        for index, (request, branch) in enumerate(rows):
            policy = self.bad.get(request.id)
            if request.id in self.scripts:
                tokens[index] = self.scripts[request.id].next(branch)
            elif callable(policy):
                tokens[index] = policy(request, branch, self.tokens, self.rng)
        return self.report(own, tokens)


BAD = {
    "always <Parallel>": (always_parallel, {"length"}),
    "a thousand outlines": (thousand_outlines, {"length"}),
    "never closes": (never_closes, {"length"}),
    "tags at random": (tags_at_random, {"malformed"}),
    "end of text in a branch": (ends_in_a_branch, {"malformed"}),
    "not-a-number": ("nan", {"error"}),
    "infinite": ("infinite", {"error"}),
}


@pytest.fixture
def bad_llm(model_folders: dict[str, Path]) -> Iterator[LLM]:
    llm = LLM(model_folders["llama"], kv_memory=4000 * 512)
    assert llm.engine.tokens is not None
    llm.engine.sampler = BadSampler(llm.engine.tokens)
    yield llm
    assert not llm.engine.busy
    assert llm.engine.slots.owned == 0
    llm.engine.check_integrity()


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("max_tokens", [80, 700])
def test_a_bad_model_ends_and_harms_nobody(bad_llm: LLM, kind: str, max_tokens: int) -> None:
    engine = bad_llm.engine
    sampler, tokens = engine.sampler, engine.tokens
    assert isinstance(sampler, BadSampler)
    assert tokens is not None
    end = int(bad_llm.tokenizer.eos_token_id)

    def good() -> Request:
        request = engine.submit(tokens.encode("Good"), GOOD)
        sampler.scripts[request.id] = Script(NESTED, tokens, end)
        return request

    alone = good()
    engine.run([alone])
    expected = engine.generation(alone)
    policy, reasons = BAD[kind]
    requests = []
    for index in range(6):
        requests.append(good())
        bad = engine.submit(tokens.encode(f"Bad {index}"), SamplingParams(temperature=0, max_tokens=max_tokens))
        sampler.bad[bad.id] = policy
        requests.append(bad)
    engine.run(requests)
    for request in requests:
        generation = engine.generation(request)
        if request.id in sampler.scripts:
            assert generation.token_ids == expected.token_ids
            assert generation.positions == expected.positions
            assert generation.tree == NESTED
            assert generation.logprobs is not None
            assert expected.logprobs is not None
            pairs = zip(generation.logprobs, expected.logprobs, strict=True)
            assert all(a == b or abs((a or 0) - (b or 0)) < 1e-4 for a, b in pairs)
        else:
            assert generation.finish_reason in reasons, generation.structure_error
            assert generation.usage.total_tokens <= max_tokens
            if generation.finish_reason == "length":
                assert generation.tree is not None, generation.structure_error
            else:
                assert generation.structure_error


def test_a_policy_is_what_it_says(bad_llm: LLM) -> None:
    # The bad models are as bad as their names: unguarded and alone, they go as far as their bounds.
    tokens = bad_llm.engine.tokens
    assert isinstance(bad_llm.engine.sampler, BadSampler)
    assert tokens is not None
    wide = bad_llm.engine.submit(tokens.encode("wide"), SamplingParams(max_tokens=3000, max_width=1000, max_branches=1000))
    deep = bad_llm.engine.submit(tokens.encode("deep"), SamplingParams(max_tokens=3000, max_depth=50, max_branches=1000))
    bad_llm.engine.sampler.bad = {wide.id: thousand_outlines, deep.id: always_parallel}
    bad_llm.engine.run([wide, deep])
    assert max(len(children) for _, children in wide.trunk.blocks) > 50
    assert max(branch.label.count(".") for branch in deep.tree.branches) >= 4
