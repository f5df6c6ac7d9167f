"""Requests and their branches: what was written, what the model has still to read, who may see whom. Torch-free."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, StructureError
from ..structure import Fork, Machine, Replay, TokenDialect, visibility
from .events import BranchEndEvent, Event, ForkEvent, JoinEvent, TokenEvent
from .params import SamplingParams
from .text import TextStream


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
        token_ids, positions, forced, logprobs: per token written by the branch itself, the prompt left out.
        unread: tokens written but not yet queued for the model to read.
        blocks: children of each block, with the number of own tokens that precede them in document order.
        rng: source of the branch's randomness.
        allowance: how many branches it may still fork, those of its children included.
        stream: its text as it grows; `None` unless somebody listens.
    """

    index: int
    parent: Branch | None
    label: str
    path: tuple[int, ...]
    machine: Machine | None
    next_position: int
    rng: np.random.Generator
    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    blocks: list[tuple[int, list[Branch]]] = field(default_factory=list)
    stream: TextStream | None = None
    allowance: int = 0

    @property
    def waiting(self) -> bool:
        """Whether it has forked and waits for its children."""
        return self.machine is not None and self.machine.waiting

    @property
    def ended(self) -> bool:
        """Whether it has closed for good."""
        return self.machine is not None and self.machine.ended

    @property
    def children(self) -> list[Branch]:
        """Children of the newest block."""
        return self.blocks[-1][1]


class Run(NamedTuple):
    """Consecutive tokens of one branch that the model has still to read.

    Attributes:
        position: position of the first token.
        sample: whether the branch's next token is to be chosen once these are read.
    """

    branch: Branch
    token_ids: list[int]
    position: int
    sample: bool


class Request:
    """A prompt on its way to a generation: a family of branches that share one set of slots.

    The tokens that the model has read are kept in the order in which they were read (`slots`, `owners`, `read_positions`). A
    branch sees a token if it was read earlier and its owner does not lie in another path of one block (`visible`). So a
    fork copies no list and a join appends to none: both only say who sees whom.

    Attributes:
        ready: what is to be read next, in an order that is safe: a parent's tokens before its children's, the children's
            before those of the parent that resumes behind them.
        events: what has happened since the engine last looked; kept only when `listening`.
        finish_reason: `None` while it runs; then ``stop``, ``length``, ``malformed`` or ``abort``.
    """

    def __init__(
        self,
        request_id: int,
        prompt: list[int],
        params: SamplingParams,
        tokens: TokenDialect | None,
        *,
        decode: Callable[[list[int]], str],
        max_positions: int,
        listening: bool = False,
    ) -> None:
        self.id = request_id
        self.max_positions = max_positions
        self.prompt = prompt
        self.params = params
        self.tokens = tokens
        self.decode = decode
        self.listening = listening
        self.seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(6), "little")
        self.written = 0
        self.finish_reason: str | None = None
        self.structure_error: str | None = None
        self.stopped: tuple[Branch, int] | None = None
        self.ended_by: Branch | None = None
        self.started_at = time.perf_counter()
        self.finished_at = 0.0
        self.events: list[Event] = []
        self.ready: deque[Run] = deque()
        self.branches: list[Branch] = []
        self.visible: NDArray[np.bool_] = np.ones((0, 0), dtype=bool)
        self.read = 0
        self._slots = np.zeros(64, dtype=np.int64)
        self._owners = np.zeros(64, dtype=np.int64)
        self._positions = np.zeros(64, dtype=np.int64)
        self._take_prompt()
        self.trunk.allowance = params.max_branches
        self.prompt_positions = self.trunk.next_position
        self.prompt_thinking = self.trunk.machine is not None and self.trunk.machine.thinking

    @property
    def trunk(self) -> Branch:
        """The branch that the request began with."""
        return self.branches[0]

    @property
    def capacity(self) -> int:
        """The most slots that the request can come to need."""
        return len(self.prompt) + self.params.max_tokens

    @property
    def slots(self) -> NDArray[np.int64]:
        """Slots in the order read."""
        return self._slots[: self.read]

    @property
    def owners(self) -> NDArray[np.int64]:
        """Branch index of each slot."""
        return self._owners[: self.read]

    @property
    def read_positions(self) -> NDArray[np.int64]:
        """Position of each slot's token."""
        return self._positions[: self.read]

    def _take_prompt(self) -> None:
        """Lay out the prompt, which may hold finished blocks (earlier turns of a chat), and queue it."""
        if self.tokens is None:
            trunk = self._add_branch(None, "", (), None)
            trunk.next_position = len(self.prompt)
            self.ready.append(Run(trunk, self.prompt, 0, sample=True))
            return
        replay = Replay(self.tokens)
        try:
            for token in self.prompt:
                replay.feed(token)
        except StructureError as error:
            raise RequestError(f"the prompt breaks the grammar of its own tags: {error}") from None
        if replay.trunk.forced or not replay.at_trunk:
            raise RequestError("the prompt ends inside a parallel block: close the block, or end the prompt before it begins")
        for branch in replay.table:
            parent = self.branches[branch.parent] if branch.parent >= 0 else None
            machine = None if parent is not None else replay.trunk
            self._add_branch(parent, branch.label, (), machine)
        self.visible = np.array(visibility(replay.table))
        starts = [0, *(i for i in range(1, len(self.prompt)) if replay.branches[i] != replay.branches[i - 1]), len(self.prompt)]
        for start, end in pairwise(starts):
            owner = self.branches[replay.branches[start]]
            self.ready.append(Run(owner, self.prompt[start:end], replay.positions[start], sample=end == len(self.prompt)))
        self.trunk.next_position = replay.positions[-1] + 1

    def _add_branch(self, parent: Branch | None, label: str, path: tuple[int, ...], machine: Machine | None) -> Branch:
        branch = Branch(
            index=len(self.branches),
            parent=parent,
            label=label,
            path=path,
            machine=machine,
            next_position=parent.next_position if parent is not None else 0,
            rng=np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=path)),
            stream=TextStream(self.decode) if self.listening or self.params.stop else None,
        )
        self.branches.append(branch)
        grown = np.ones((len(self.branches), len(self.branches)), dtype=bool)
        grown[:-1, :-1] = self.visible
        if parent is not None:
            # A child sees whom its parent sees; `_fork` hides siblings from each other.
            grown[-1, :-1] = grown[:-1, -1] = self.visible[parent.index]
        self.visible = grown
        return branch

    def mark_read(self, branch: Branch, slots: list[int], position: int) -> None:
        """Note that the model reads the branch's next tokens into these slots, the first at `position`."""
        end = self.read + len(slots)
        if end > len(self._slots):
            room = np.zeros(max(end, 2 * len(self._slots)) - len(self._slots), dtype=np.int64)
            self._slots = np.concatenate([self._slots, room])
            self._owners = np.concatenate([self._owners, room])
            self._positions = np.concatenate([self._positions, room])
        self._slots[self.read : end] = slots
        self._owners[self.read : end] = branch.index
        self._positions[self.read : end] = np.arange(position, position + len(slots))
        self.read = end

    def advance(self, branch: Branch, token: int, logprob: float | None) -> None:
        """Take the token that was chosen for a branch; fork, end or join where the grammar says so.

        Raises:
            StructureError: the token cannot stand there. It is written all the same, so that it can be looked at.
        """
        self._write(branch, token, logprob=logprob)
        event = branch.machine.feed(token) if branch.machine is not None else None
        self._write_forced(branch)
        self._queue(branch)
        if self.finish_reason is not None:
            return
        if isinstance(event, Fork):
            self._fork(branch, event.labels)
        elif branch.ended:
            self._end(branch)

    def end_of_text(self, branch: Branch, token: int, logprob: float | None) -> None:
        """Take an end-of-text token: the request is over, in good form only if the grammar allows it here."""
        stream, branch.stream = branch.stream, None  # it is no part of the text
        self._write(branch, token, logprob=logprob)
        branch.stream = stream
        self.ended_by = branch
        if self.listening:
            self.events.append(TokenEvent(branch.label, token, "", branch.positions[-1], forced=False, logprob=logprob))
        machine = branch.machine
        if machine is None or machine.complete:
            self.finish_reason = "stop"
        else:
            self.fail(StructureError(f"found the end of text in {machine.state.value}", expected=machine.expected()))

    def fail(self, error: StructureError) -> None:
        """The model broke the grammar: the request is over."""
        self.finish_reason, self.structure_error = "malformed", str(error)

    def _write(self, branch: Branch, token: int, *, forced: bool = False, logprob: float | None = None) -> None:
        branch.token_ids.append(token)
        branch.positions.append(branch.next_position)
        branch.forced.append(forced)
        branch.logprobs.append(logprob)
        branch.unread.append(token)
        branch.next_position += 1
        self.written += 1
        if self.written == self.params.max_tokens or branch.next_position >= self.max_positions:
            self.finish_reason = "length"
        if branch.stream is not None:
            text = branch.stream.push(token)
            if self.listening:
                self.events.append(TokenEvent(branch.label, token, text, branch.positions[-1], forced, logprob))
            self._look_for_stop(branch)

    def _look_for_stop(self, branch: Branch) -> None:
        assert branch.stream is not None
        found = [at for at in map(branch.stream.text.find, self.params.stop_strings) if at >= 0]
        if found:
            self.finish_reason, self.stopped = "stop", (branch, min(found))

    def _write_forced(self, branch: Branch) -> None:
        """Write what the grammar prescribes next."""
        while branch.machine is not None and branch.machine.forced and self.finish_reason is None:
            token = branch.machine.forced[0]
            self._write(branch, token, forced=True)
            branch.machine.feed(token)

    def _queue(self, branch: Branch) -> None:
        first = branch.next_position - len(branch.unread)
        self.ready.append(Run(branch, branch.unread, first, sample=not (branch.waiting or branch.ended)))
        branch.unread = []

    def _fork(self, parent: Branch, labels: tuple[str, ...]) -> None:
        assert self.tokens is not None
        self._emit(ForkEvent(parent.label, labels))
        number = len(parent.blocks)
        children: list[Branch] = []
        parent.blocks.append((len(parent.token_ids), children))
        # What is left is shared out among the children, and what they leave comes back at the join: branches that fork in
        # the same step need not ask each other.
        share, parent.allowance = divmod(parent.allowance - len(labels), len(labels))
        for index, label in enumerate(labels):
            child = self._add_branch(parent, label, (*parent.path, number, index), Machine(self.tokens, label))
            for sibling in children:
                self.visible[child.index, sibling.index] = self.visible[sibling.index, child.index] = False
            child.allowance = share
            children.append(child)
            self._write_forced(child)
            self._queue(child)

    def _end(self, branch: Branch) -> None:
        """A path has closed; if it was the last of its block, the parent goes on."""
        self._emit(BranchEndEvent(branch.label))
        parent = branch.parent
        assert parent is not None
        assert parent.machine is not None
        if not all(child.ended for child in parent.children):
            return
        self._emit(JoinEvent(parent.label, tuple(child.label for child in parent.children)))
        parent.next_position = max(child.next_position for child in parent.children)
        parent.allowance += sum(child.allowance for child in parent.children)
        parent.machine.resume()
        self._write_forced(parent)
        self._queue(parent)

    def _emit(self, event: Event) -> None:
        if self.listening:
            self.events.append(event)

    def banned(self, branch: Branch) -> tuple[int, ...]:
        """Tags that the request's bounds on depth and branches forbid a branch to write next."""
        machine = branch.machine
        if machine is None or self.tokens is None:
            return ()
        banned = []
        if machine.depth >= self.params.max_depth or branch.allowance < 1:
            banned.append(self.tokens.fork_tag)
        if machine.outlines and machine.outlines >= branch.allowance:
            banned.append(self.tokens.outline_tag)
        return tuple(banned)

    def seen_tokens(self, branch: Branch) -> set[int]:
        """Tokens that a branch can see, the prompt included (for the repetition penalty)."""
        seen = set(self.prompt)
        for other in self.branches:
            if self.visible[branch.index, other.index]:
                seen.update(other.token_ids)
        return seen
