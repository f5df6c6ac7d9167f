"""A branch of a request, and the runs of tokens that the model has still to read of it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..structure import Machine, RoleTracker
from .text import TextStream

Top = tuple[tuple[int, float], ...]
"""The likeliest tokens at one place, with their log-probabilities, likeliest first."""


@dataclass(eq=False)
class Run:
    """Consecutive tokens of one branch that the model has still to read; the first stands at `position`."""

    branch: Branch
    token_ids: list[int]
    position: int

    def cut(self, count: int) -> Run:
        """Take the first `count` tokens off."""
        first = Run(self.branch, self.token_ids[:count], self.position)
        self.token_ids, self.position = self.token_ids[count:], self.position + count
        return first


@dataclass(eq=False)
class Branch:
    """One line of thought of a request: the trunk, or a path.

    Attributes:
        index: its number within the request; the trunk is 0.
        parent: the branch that forked it; `None` for the trunk.
        label: label path such as ``2.1``; empty for the trunk.
        path: (block, child) steps from the trunk, flattened; names the branch's random stream.
        machine: its grammar; `None` for a model without a dialect.
        next_position: position of the next token. Not the number of tokens it can see: after a join that is larger.
        seed: what its random stream comes from, with `path`.
        token_ids, positions, forced, logprobs, tops: per token written by the branch itself, the prompt left out.
        prompt_ids: its tokens in the prompt.
        tail: its newest run, as long as that waits to be read.
        blocks: children of each block, with the number of own tokens that precede them in document order.
        allowance: how many branches it may still fork, those of its children included.
        closing: why it is being closed before its time; `None` if it is not.
        stream: its text as it grows; `None` unless somebody listens or there are stop strings.
        roles: classifies its tokens; `None` unless somebody listens.
    """

    index: int
    parent: Branch | None
    label: str
    path: tuple[int, ...]
    machine: Machine | None
    next_position: int
    seed: tuple[int, ...]
    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    tops: list[Top | None] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    tail: Run | None = None
    blocks: list[tuple[int, list[Branch]]] = field(default_factory=list)
    allowance: int = 0
    closing: str | None = None
    stream: TextStream | None = None
    roles: RoleTracker | None = None

    @cached_property
    def rng(self) -> np.random.Generator:
        """Source of the branch's randomness, its own whoever else is in the batch."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=self.path))

    @property
    def waiting(self) -> bool:
        """Whether it has forked and waits for its children."""
        return self.machine is not None and self.machine.waiting

    @property
    def ended(self) -> bool:
        """Whether it has closed for good."""
        return self.machine is not None and self.machine.ended

    @property
    def open(self) -> bool:
        """Whether it goes on by itself: its next token is the model's to choose."""
        return not (self.waiting or self.ended)

    @property
    def children(self) -> list[Branch]:
        """Children of the newest block."""
        return self.blocks[-1][1]
