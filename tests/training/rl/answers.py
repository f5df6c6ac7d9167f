"""Rollouts without a model: documents that are laid out as the engine decodes them, one token per word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multiverse.engine import Generation
from multiverse.engine.generation import Usage
from multiverse.structure import MULTIVERSE, Block, Document, encode, render
from multiverse.structure.shape import word_tokens
from multiverse.training.rl.rollout import Group, Question, Rollout

TOKENS = word_tokens()
ASKED = "Mia starts with 7, add 5, double. Tom starts with 12, take 4, add 9. What do they have together?"
QUESTION = Question("q", ({"role": "user", "content": ASKED},), "41", "worksheet", {"check": "exact"})

MIA = "Mia begins here: 7 plus 5 is 12, and double 12 that is 24."
TOM = "Tom has 12 at first: without 4 he has 8, then with 9 more 17."


def forked(*paths: str, before: str = "Let us look.", conclusion: str = "24+17=41.", answer: str = "41") -> Document:
    """One block with these paths."""
    block = Block(
        tuple(f"part {number}" for number in range(1, len(paths) + 1)),
        tuple((path,) if path else () for path in paths),
        conclusion,
    )
    return Document((before, block), f"Answer: {answer}")


def serial(*texts: str, answer: str = "41") -> Document:
    """The same in one line."""
    return Document((" ".join(("Let us look.", *texts, "24+17=41.")),), f"Answer: {answer}")


def rollout(document: Document, *, seed: int = 0, **changes: Any) -> Rollout:
    """A document as it would have been decoded; `changes` of the generation."""
    encoded = encode(document, TOKENS)
    layout = encoded.layout
    answer = (document.plain_answer or "").removeprefix("Answer:").strip()
    generation = Generation(
        text=render(document, MULTIVERSE),
        answer=answer,
        tree=document,
        finish_reason="stop",
        usage=Usage(0, len(layout), layout.critical_path(), layout.critical_path_steps(), 0.0),
        token_ids=tuple(encoded.token_ids),
        positions=layout.positions,
        branches=layout.labels,
        forced=layout.forced,
        logprobs=None,
        prompt_token_ids=(),
        content=answer,
    )
    size = len(layout)
    visibility = tuple(tuple(map(int, row)) for row in layout.visibility())
    return Rollout(
        replace(generation, **changes),
        layout.positions,
        layout.branches,
        visibility,
        sources=(-1,) * size,
        supports=(None,) * size,
        temperature=1.0,
        version=0,
        seed=seed,
    )


def said(answer: str, content: str | None = None, *, seed: int = 0, **changes: Any) -> Rollout:
    """A rollout without forks, with this answer."""
    return rollout(serial(answer=answer), seed=seed, answer=answer, content=answer if content is None else content, **changes)


def group(*rollouts: Rollout, question: Question = QUESTION) -> Group:
    """A group of rollouts."""
    return Group(question, rollouts)
