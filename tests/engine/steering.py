"""Samplers that choose the tokens of a test, requests without an engine, and generations of scripted documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import Branch, ModelInfo, Request
from multiverse.engine.sampler import Choice, Sampler, own_distribution
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Block, Document, Role, TokenDialect

GREEDY = SamplingParams(temperature=0, max_tokens=4000, max_branches=1000, logprobs=True)

Policy = Callable[[Request, Branch], int]


class PolicySampler(Sampler):
    """Samples, then replaces each token by the policy's."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def sample(self, logits_BV: Tensor, rows: list[tuple[Request, Branch]], *_: Any) -> Choice:
        own = own_distribution(logits_BV, rows)
        super().sample(logits_BV, rows)
        return self.report(own, [self.policy(request, branch) for request, branch in rows])


class LegalSampler(Sampler):
    """Samples from the model with all tokens masked that the grammar does not allow, and the logits of tags raised.

    Log-probabilities are the model's own, without mask.
    """

    def __init__(self, boost: float = 3.0) -> None:
        self.boost = boost

    def sample(self, logits_BV: Tensor, rows: list[tuple[Request, Branch]], *_: Any) -> Choice:
        own = own_distribution(logits_BV, rows)
        steered_BV = logits_BV.clone()
        for row_V, (request, branch) in zip(steered_BV, rows, strict=True):
            machine, tokens = branch.machine, request.model.tokens
            assert machine is not None
            assert tokens is not None
            legal = [tokens.ids[role] for role in machine.legal_roles()]
            kept_V = row_V[legal] + self.boost
            row_V[sorted(tokens.roles) if machine.expected().startswith("text") else slice(None)] = -torch.inf
            row_V[legal] = kept_V
        return self.report(own, super().sample(steered_BV, rows).tokens)


def always_fork(tokens: TokenDialect, width: int, end: int) -> Policy:
    """A policy: every branch opens one block of `width` outlines within its limits, and one word where text is allowed."""
    word, sep = tokens.encode("w")[0], tokens.sep[0]

    def choose(request: Request, branch: Branch) -> int:
        machine = branch.machine
        assert machine is not None
        only, banned, _ = request.limits.choices(branch)
        legal = {role: tokens.ids[role] for role in machine.legal_roles() if tokens.ids[role] not in banned}
        if only is not None:
            legal = {role: token for role, token in legal.items() if token in only}
        for role in (Role.BLOCK_OPEN, Role.GOAL_OPEN):
            if role in legal and (not branch.blocks or tokens.ids[role] != tokens.fork_tag):
                return legal[role]
        if Role.OUTLINE_OPEN in legal and machine.outlines < width:
            return legal[Role.OUTLINE_OPEN]
        if Role.GOAL_CLOSE in legal or Role.BLOCK_CLOSE in legal:
            return legal[Role.GOAL_CLOSE if Role.GOAL_CLOSE in legal else Role.BLOCK_CLOSE]
        if only is not None:
            return only[0]
        if Role.THINK_OPEN in legal and not branch.token_ids:
            return legal[Role.THINK_OPEN]
        if machine.complete:
            return end
        closing = [legal[role] for role in legal if tokens.ids[role] not in (tokens.fork_tag, tokens.outline_tag)]
        if word not in branch.token_ids[-2:]:
            return word
        return closing[0] if closing else sep

    return choose


_ids = count()


def bare_request(
    tokens: TokenDialect | None,
    prompt: Sequence[int] = (1,),
    params: SamplingParams = GREEDY,
    decode: Callable[[list[int]], str] = lambda ids: "?" * len(ids),
    *,
    listening: bool = False,
    priority: int = 0,
    leader: Request | None = None,
) -> Request:
    """A request without an engine."""
    info = ModelInfo(tokens, decode, 1 << 20)
    return Request(next(_ids), list(prompt), params, info, listening=listening, priority=priority, leader=leader)


def run_documents(
    llm: LLM, documents: Sequence[Document], prompt: str = "Q", params: SamplingParams | Sequence[SamplingParams] = GREEDY
) -> list[Generation]:
    """Generate each document behind the prompt, all in one batch."""
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    sampler = ScriptedSampler()
    engine.sampler = sampler
    each = [params] * len(documents) if isinstance(params, SamplingParams) else params
    requests = []
    for document, own in zip(documents, each, strict=True):
        request = engine.submit(tokens.encode(prompt), own)
        sampler.scripts[request.id] = Script(document, tokens, int(llm.tokenizer.eos_token_id))
        requests.append(request)
    engine.run(requests)
    return [engine.generation(request) for request in requests]


def two_paths(first: str = "one", second: str = "two, longer", conclusion: str = "so") -> Document:
    """A small document with one block of two paths."""
    return Document(("before", Block(("a", "b"), ((first,), (second,)), conclusion), "after"), "Answer: 4")


INNER = Block(("p", "q"), (("in p",), ("in q, too",)), "inner sum")
NESTED = Document(
    ("start", Block(("a", "b"), (("short",), ("b1", INNER, "b2")), "sum"), "between", Block(("c",), (("last",),), "end")),
    "Answer: é",
)
"""Two blocks in the trunk, the first of them with a block in its second path."""


def prompt_ids(llm: LLM, text: str) -> list[int]:
    """Token ids of a prompt."""
    ids: list[Any] = llm.tokenizer.encode(text)
    return ids
