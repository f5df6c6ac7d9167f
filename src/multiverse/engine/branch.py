"""A branch of a request, and spans of its tokens that are still to be computed. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..structure import Machine, RoleTracker
from .text import TextStream

Top = tuple[tuple[int, float], ...]
"""The likeliest tokens at one place, with their log-probabilities, likeliest first."""


class TokenScore(NamedTuple):
    """How likely a given token was, under the model's own distribution.

    Attributes:
        logprob: its log-probability.
        rank: its place among all tokens, the likeliest being 1.
        top: the likeliest tokens at its place, as many as were asked for.
    """

    logprob: float
    rank: int
    top: Top = ()


class Support(NamedTuple):
    """Which tokens could be drawn at one place: what grammar, limits and cuts left.

    Attributes:
        token_ids: some tokens, in ascending order.
        allowed: whether these alone could be drawn, or all but these.
    """

    token_ids: tuple[int, ...]
    allowed: bool


class Drawn(NamedTuple):
    """What is known of a sampled token, as far as its request asks for it.

    Attributes:
        logprob: its log-probability (`SamplingParams.logprobs_mode`).
        top: the likeliest tokens at its place.
        support: which tokens could be drawn; `None` also where all could.
    """

    logprob: float | None = None
    top: Top | None = None
    support: Support | None = None


NOT_DRAWN = Drawn()
"""Of tokens that the engine wrote itself."""


@dataclass(eq=False)
class Span:
    """Consecutive tokens of one branch whose keys and values are still to be computed; the first stands at `position`."""

    branch: Branch
    token_ids: list[int]
    position: int

    def cut(self, count: int) -> Span:
        """Take the first `count` tokens off."""
        first = Span(self.branch, self.token_ids[:count], self.position)
        self.token_ids, self.position = self.token_ids[count:], self.position + count
        return first


class SeenTokens:
    """The distinct tokens that a branch attends to, and how often each was generated: the penalties need them."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._ids: NDArray[np.int64] = np.empty(64, dtype=np.int64)
        self._counts: NDArray[np.int64] = np.zeros(64, dtype=np.int64)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The tokens, in the order in which they came; a view that stays valid, and does not grow."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each of `ids` was generated: 0 for those of the prompt alone. A view that changes with the next token."""
        return self._counts[: len(self._places)]

    def add(self, token: int, times: int = 1) -> None:
        """The branch attends to another token; `times` is how often it was generated."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token
        self._counts[place] += times

    def join(self, children: list[SeenTokens]) -> None:
        """The branch attends to its children from here on, which were copies of it when they began."""
        before = self.counts.copy()
        for child in children:
            own = child.counts.copy()
            own[: len(before)] -= before
            for token, times in zip(child.ids.tolist(), own.tolist(), strict=True):
                self.add(token, times)

    def copy(self) -> SeenTokens:
        """What a child attends to when it begins."""
        other = SeenTokens()
        other._places, other._ids, other._counts = self._places.copy(), self._ids.copy(), self._counts.copy()
        return other


@dataclass(eq=False)
class Branch:
    """One branch of a request: the trunk, or a path.

    Attributes:
        index: its number within the request; the trunk is 0.
        parent: the branch that forked it; `None` for the trunk.
        label: label path such as ``2.1``; empty for the trunk.
        path: (block, child) steps from the trunk, flattened; names the branch's random stream.
        machine: its grammar; `None` for a model without a dialect.
        steps: forwards until its newest token: the tokens on the chain that leads to it that the engine did not write itself.
        next_position: position of the next token. Not the number of tokens it can see: after a join that is larger.
        read_again: by how many positions it is beyond the end of `chain`, since it has read paths again.
        seed: what its random stream is derived from, with `path`.
        token_ids, positions, forced, drawn: per token generated on the branch itself, the prompt left out.
        prompt_ids: its tokens in the prompt.
        textless: indices into `token_ids` of parts of characters that were not completed.
        blocks: children of each block, with the number of own tokens that precede them in document order.
        reread: of each block that was joined by text or message, the tokens of its paths that this branch reads again.
        allowance: how many branches it may still fork, those of its children included.
        closing: the limit for which it is being closed; `None` if it is not.
        stream: its text as it grows; `None` unless the request is listened to or has stop strings.
        roles: classifies its tokens; `None` unless the request is listened to.
        seen: the tokens that it attends to; `None` unless there is a penalty.
        separator: whether it is no path but holds the separator behind one, which the layout ``released`` computes at the join.
            It has its parent's label, and the stream of the path behind which it stands.
        behind: the branch that holds the separator behind this path; `None` where that belongs to the path itself.
        first_piece: number of its stream's pieces that precede its own.
    """

    index: int
    parent: Branch | None
    label: str
    path: tuple[int, ...]
    machine: Machine | None
    next_position: int
    seed: tuple[int, ...]
    read_again: int = 0
    steps: int = 0
    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    textless: set[int] = field(default_factory=set)
    blocks: list[tuple[int, list[Branch]]] = field(default_factory=list)
    reread: list[list[int]] = field(default_factory=list)
    allowance: int = 0
    closing: str | None = None
    stream: TextStream | None = None
    roles: RoleTracker | None = None
    seen: SeenTokens | None = None
    separator: bool = False
    behind: Branch | None = None
    first_piece: int = 0

    @cached_property
    def rng(self) -> np.random.Generator:
        """Source of the branch's randomness, independent of the rest of the batch."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=self.path))

    @property
    def chain(self) -> int:
        """Its next position along the longest chain of generated tokens that leads here, as if nothing had been read again."""
        return self.next_position - self.read_again

    @property
    def waiting(self) -> bool:
        """Whether it has forked and waits for its children."""
        return self.machine is not None and self.machine.waiting

    @property
    def closed(self) -> bool:
        """Whether it has closed for good."""
        return self.machine is not None and self.machine.ended

    @property
    def open(self) -> bool:
        """Whether its next token is the model's to choose."""
        return not (self.separator or self.waiting or self.closed)

    @property
    def holder(self) -> Branch:
        """The branch that owns the newest token that the machine was fed: itself, or that of the separator behind it."""
        if self.behind is not None and self.machine is not None and self.machine.beyond:
            return self.behind
        return self

    def piece(self, number: int) -> str:
        """The text that its token with this number adds."""
        assert self.stream is not None
        return self.stream.pieces[self.first_piece + number]

    @property
    def children(self) -> list[Branch]:
        """Children of the newest block."""
        return self.blocks[-1][1]
