"""Requests: what was written on each branch, what the model has still to read, who may see whom. Torch-free."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError, StructureError
from ..structure import Event as MachineEvent
from ..structure import Exit, Fork, Machine, Replay, RoleTracker, TokenDialect, TokenRole, partings, visibility
from .branch import Branch, Run, Top
from .cache import Node
from .events import BranchEndEvent, Counts, Event, ForkEvent, JoinEvent, TokenEvent
from .params import SamplingParams
from .reading import Reading
from .text import TextStream

_END_OF_TEXT = TokenRole("structure")


class Traits(NamedTuple):
    """What a request has to know of the model.

    Attributes:
        tokens: the dialect bound to its tokenizer; `None` for a plain autoregressive model.
        decode: token ids to text.
        max_positions: longest chain of positions that the model was made for.
        stop_ids: tokens that end a text.
    """

    tokens: TokenDialect | None
    decode: Callable[[list[int]], str]
    max_positions: int
    stop_ids: frozenset[int] = frozenset()


class Request:
    """A prompt on its way to a generation: a family of branches that share one set of slots.

    What the model has read is kept in the order in which it was read (`reading`). A branch sees a token if it was read earlier
    and its owner does not lie in another path of one block (`visible`). So a fork copies no list and a join appends to none:
    both only say who sees whom.

    Attributes:
        backlog: what is known already and only has to be read: the prompt, or after a preemption everything that was
            dropped. It is read before anything else.
        matchable: how many tokens at the front of the backlog stand in document order, as the prefix cache has them.
        ready: the newest tokens of branches that go on, in an order that is safe: a parent's before its children's, the
            children's before those of the parent that resumes behind them.
        heads: the same for branches that have not begun; they come after what is ready, in waves if there is no room for all.
        node: where in the prefix cache the part of its slots ends that it does not own; `None` while it does not run.
        events: what has happened since the engine last looked; kept only when `listening`.
        finish_reason: `None` while it runs; then ``stop``; ``length``, ``budget`` or ``deadline`` if a bound was met;
            ``malformed`` or ``error`` if the model broke the grammar or gave no numbers; or ``abort``.
        closing: the bound for which it is being wound up, as `finish_reason` will name it.
        closing_branches: whether branches were closed for a bound of their own.
        conclude_by: once it is being wound up, the trunk's number of tokens at which its conclusion has to end.
        room: how much a branch may open in the next step and still be closed in time (see `bounds`).
        max_written, end_position: where writing ends for good: number of tokens, position.
        furthest: highest generated position + 1.
        priority: higher goes first.
        leader: a request with the same prompt that reads it for both.
        prompt_read: whether the model has read the prompt, so that others can use it.
    """

    def __init__(
        self,
        request_id: int,
        prompt: list[int],
        params: SamplingParams,
        traits: Traits,
        *,
        listening: bool = False,
        scoring: bool = False,
        sample: int = 0,
    ) -> None:
        self.id = request_id
        self.prompt = prompt
        self.params = params
        self.tokens, self.decode = traits.tokens, traits.decode
        self.max_positions, self.stop_ids = traits.max_positions, traits.stop_ids
        self.listening, self.scoring = listening, scoring
        self.prompt_read = False
        seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(6), "little")
        self.seed = (seed, sample) if sample else (seed,)
        self.priority = 0
        self.leader: Request | None = None
        self.started_at = time.monotonic()
        self.admitted_at: float | None = None  # when it was first admitted to the batch
        self.finished_at = 0.0
        self.finish_reason: str | None = None
        self.closing: str | None = None
        self.closing_branches = False
        self.conclude_by: int | None = None
        self.error: str | None = None
        self.stopped: tuple[Branch, int] | None = None
        self.ended_by: Branch | None = None
        self.closed: list[tuple[str, str]] = []
        self.written = self.forks = self.cached_tokens = self.preemptions = 0
        self.events: list[Event] = []
        self.branches: list[Branch] = []
        self.visible: NDArray[np.bool_] = np.ones((0, 0), dtype=bool)
        self.parted_at: NDArray[np.int64] = np.full((0, 0), -1, dtype=np.int64)
        self.reading = Reading()
        self.node: Node | None = None
        self.backlog: deque[Run] = deque()
        self.matchable = 0
        self.ready: deque[Run] = deque()
        self.heads: deque[Run] = deque()
        self.scores: dict[tuple[int, int], float] = {}
        self._take_prompt()
        self.trunk.allowance = params.max_branches
        self.prompt_positions = self.furthest = self.trunk.next_position
        self.prompt_thinking = self.trunk.machine is not None and self.trunk.machine.thinking
        self.max_written = params.max_tokens
        critical = params.max_critical_path_tokens
        self.end_position = self.max_positions
        if critical is not None:
            self.end_position = min(self.end_position, self.prompt_positions + critical)
        self.room = Exit(self.max_written, self.end_position)

    @property
    def trunk(self) -> Branch:
        """The branch that the request began with."""
        return self.branches[0]

    @property
    def reads_prompt(self) -> bool:
        """Whether the prompt is still to be read."""
        return self.finish_reason is None and not self.prompt_read

    @property
    def capacity(self) -> int:
        """The most slots that the request can come to need."""
        return len(self.prompt) + (0 if self.scoring else self.params.max_tokens)

    @property
    def open_branches(self) -> list[Branch]:
        """Branches that go on by themselves."""
        written = [self.trunk, *self.branches[self._prompt_branches :]]
        return [branch for branch in written if branch.open]

    # -- the prompt ---------------------------------------------------------------------------------------------------

    def _take_prompt(self) -> None:
        """Lay out the prompt, which may hold finished blocks (earlier turns of a chat), and queue it."""
        if self.tokens is None:
            runs = [Run(self._add_branch(None, "", (), None), list(self.prompt), 0)]
            self.trunk.next_position = len(self.prompt)
        else:
            runs = self._lay_out(self.tokens)
        self._prompt_branches = len(self.branches)
        self.segments: list[tuple[Branch, int, int]] = []
        for run in runs:
            start = len(run.branch.prompt_ids)
            run.branch.prompt_ids += run.token_ids
            self.segments.append((run.branch, start, start + len(run.token_ids)))
        self._set_backlog(runs, len(self.prompt))
        if not self.scoring:
            # The last token is read by itself: what follows it is the model's to choose.
            last = self.backlog.pop()
            if len(last.token_ids) > 1:
                self.backlog.append(last.cut(len(last.token_ids) - 1))
            self.trunk.tail = last
            self.ready.append(last)
            self.matchable = min(self.matchable, len(self.prompt) - 1)

    def _lay_out(self, tokens: TokenDialect) -> list[Run]:
        replay = Replay(tokens)
        try:
            for token in self.prompt:
                replay.feed(token)
        except StructureError as error:
            raise RequestError(f"the prompt breaks the grammar of its own tags: {error}") from None
        if not self.scoring and (replay.trunk.forced or not replay.at_trunk):
            raise RequestError("the prompt ends inside a parallel block: close the block, or end the prompt before it begins")
        replay.trunk.begin_turn()
        for branch in replay.table:
            parent = self.branches[branch.parent] if branch.parent >= 0 else None
            self._add_branch(parent, branch.label, (), None if parent is not None else replay.trunk)
        self.visible = np.array(visibility(replay.table))
        self.parted_at = np.array(partings(replay.table, replay.layout().starts))
        owners = replay.branches
        starts = [0, *(i for i in range(1, len(owners)) if owners[i] != owners[i - 1]), len(owners)]
        self.trunk.next_position = replay.positions[-1] + 1
        return [
            Run(self.branches[owners[start]], self.prompt[start:end], replay.positions[start])
            for start, end in pairwise(starts)
        ]

    def _add_branch(self, parent: Branch | None, label: str, path: tuple[int, ...], machine: Machine | None) -> Branch:
        branch = Branch(
            index=len(self.branches),
            parent=parent,
            label=label,
            path=path,
            machine=machine,
            next_position=parent.next_position if parent is not None else 0,
            seed=self.seed,
            stream=TextStream(self.decode, self.params.stop_strings) if self.listening or self.params.stop else None,
            roles=RoleTracker(machine) if self.listening else None,
        )
        self.branches.append(branch)
        size = len(self.branches)
        visible, parted_at = np.ones((size, size), dtype=bool), np.full((size, size), -1, dtype=np.int64)
        visible[:-1, :-1], parted_at[:-1, :-1] = self.visible, self.parted_at
        if parent is not None:
            # A child sees whom its parent sees; `_fork` parts siblings from each other.
            visible[-1, :-1] = visible[:-1, -1] = self.visible[parent.index]
            parted_at[-1, :-1] = parted_at[:-1, -1] = self.parted_at[parent.index]
        self.visible, self.parted_at = visible, parted_at
        return branch

    def let_go(self) -> None:
        """It is over: drop what was still to be read, and who forked whom.

        Runs and branches, parents and children refer to each other, and in such circles a finished request would stay in memory
        until Python's collector comes round to it, which beside a large model is seldom.
        """
        for queue in (self.backlog, self.ready, self.heads):
            queue.clear()
        for branch in self.branches:
            branch.tail = branch.parent = None

    # -- reading ------------------------------------------------------------------------------------------------------

    def _set_backlog(self, runs: list[Run], matchable: int) -> None:
        """Queue what is known already, ahead of everything else; the first `matchable` tokens are in document order."""
        self.matchable = matchable
        if self.params.share_every is not None:
            # Paths depend on each other, so document order would not do: lower positions never depend on higher ones. Up to
            # the first path the two orders are the same, and only so far can others use what was read.
            linear = next((number for number, run in enumerate(runs) if run.branch is not self.trunk), len(runs))
            self.matchable = min(matchable, sum(len(run.token_ids) for run in runs[:linear]))
            tokens = [(run.position + at, run.branch, token) for run in runs for at, token in enumerate(run.token_ids)]
            tokens.sort(key=lambda entry: entry[0])
            runs = []
            for position, branch, token in tokens:
                if runs and runs[-1].branch is branch:
                    runs[-1].token_ids.append(token)
                else:
                    runs.append(Run(branch, [token], position))
        self.backlog = deque(runs)

    def skip(self, slots: NDArray[np.int64]) -> None:
        """The prefix cache has the first tokens of the backlog, in these slots."""
        at = 0
        while at < len(slots):
            run = self.backlog[0] if len(self.backlog[0].token_ids) <= len(slots) - at else self.backlog[0].cut(len(slots) - at)
            if run is self.backlog[0]:
                self.backlog.popleft()
            self.reading.add(run, slots[at : at + len(run.token_ids)])
            at += len(run.token_ids)
        self.matchable -= at

    def drop(self) -> None:
        """Forget that anything was read; it goes back to the backlog, to be read again."""
        order = self.reading.document_order(self.document())
        lost = self.reading.runs(order, self.branches)
        self._set_backlog([*lost, *self.backlog], len(order) + self.matchable)
        self.reading.clear()

    def document(self) -> Iterator[tuple[Branch, int, int]]:
        """The document so far as stretches of branches: first and last own token, those of the prompt included."""
        yield from self.segments
        yield from _stretches(self.trunk)

    def storable(self) -> NDArray[np.int64]:
        """Columns of `reading` that the prefix cache can keep, in document order."""
        order = self.reading.document_order(self.document())
        if self.params.share_every is not None:
            paths = np.flatnonzero(self.reading.owners[order] != self.trunk.index)
            order = order[: paths[0]] if len(paths) else order
        return order

    def next_run(self, budget: int) -> Run | None:
        """Take the next tokens of branches that go on, at most `budget`; `None` if there are none to be read now."""
        if self.params.share_every is not None:
            return self._next_in_step(budget)
        return self._take(self.ready, budget) if self.ready else None

    def next_head(self, budget: int) -> Run | None:
        """Take the first tokens of a branch that has not begun."""
        return self._take(self.heads, budget) if self.heads else None

    def next_backlog(self, budget: int) -> Run:
        """Take tokens off the backlog."""
        run = self._take(self.backlog, budget)
        self.matchable = max(0, self.matchable - len(run.token_ids))
        return run

    def _take(self, queue: deque[Run], budget: int) -> Run:
        run = queue[0]
        if len(run.token_ids) > budget:
            return run.cut(budget)
        if run.branch.tail is run:
            run.branch.tail = None
        return queue.popleft()

    def _next_in_step(self, budget: int) -> Run | None:
        """With `share_every`: the lowest tokens whose siblings are far enough."""
        for run in sorted(self.ready, key=lambda run: run.position):
            limit = self._limit(run.branch)
            count = min(budget, limit - run.position, len(run.token_ids))
            if count > 0:
                if count < len(run.token_ids):
                    return run.cut(count)
                self.ready.remove(run)
                run.branch.tail = None if run.branch.tail is run else run.branch.tail
                return run
        return None

    def _limit(self, branch: Branch) -> int:
        """First position that a branch may not read yet, since it depends on tokens of siblings that have not been read."""
        every = self.params.share_every
        assert every is not None
        frontier = {run.branch.index: run.position for run in reversed(self.ready)}
        limit = self.max_positions + 1
        for other in self.branches:
            start = int(self.parted_at[branch.index, other.index])
            if start < 0:
                continue
            position = frontier.get(other.index, other.next_position if other.open and other.machine is not None else None)
            if position is not None:
                limit = min(limit, start + ((position - start) // every + 1) * every)
        return limit

    # -- writing ------------------------------------------------------------------------------------------------------

    def advance(self, branch: Branch, token: int, logprob: float | None, top: Top | None = None) -> None:
        """Take the token that was chosen for a branch; fork, end or join where the grammar says so.

        Raises:
            StructureError: the token cannot stand there. It is written all the same, so that it can be looked at.
        """
        try:
            event = branch.machine.feed(token) if branch.machine is not None else None
        except StructureError:
            self._write(branch, token, logprob=logprob, top=top, legal=False)
            raise
        self._write(branch, token, logprob=logprob, top=top)
        self._follow(branch, event)

    def force(self, branch: Branch, token_ids: tuple[int, ...]) -> None:
        """Write tokens that close something, though the grammar leaves a choice; go on as after any other token."""
        assert branch.machine is not None
        event: MachineEvent | None = None
        for token in token_ids:
            if self.finish_reason is None:
                event = branch.machine.feed(token)
                self._write(branch, token, forced=True)
        self._follow(branch, event)

    def _follow(self, branch: Branch, event: MachineEvent | None) -> None:
        self._write_forced(branch)
        if self.finish_reason is not None:
            return
        if isinstance(event, Fork):
            self._fork(branch, event.labels)
        elif branch.ended:
            self._end(branch)

    def end_of_text(self, branch: Branch, token: int, logprob: float | None, top: Top | None = None) -> None:
        """Take an end-of-text token: the request is over, in good form only if the grammar allows it here."""
        self._append(branch, token, logprob=logprob, top=top)
        self.ended_by = branch
        if branch.stream is not None:
            branch.stream.push_end()
            self._emit_token(branch, "", _END_OF_TEXT, end=True)
        machine = branch.machine
        if machine is None or machine.complete:
            self.finish_reason = self.closing if self.closing is not None else "stop"
        else:
            self.fail("malformed", f"found the end of text in {machine.state.value}, expected {machine.expected()}")

    def fail(self, reason: str, error: str) -> None:
        """The request is over, through no fault of its user."""
        self.finish_reason, self.error = reason, error

    def _write(
        self,
        branch: Branch,
        token: int,
        *,
        forced: bool = False,
        logprob: float | None = None,
        top: Top | None = None,
        legal: bool = True,
    ) -> None:
        """Append a token that the branch's machine has been fed (`legal`) or has refused."""
        self._append(branch, token, forced=forced, logprob=logprob, top=top)
        if branch.stream is None:
            return
        text = branch.stream.push(token)
        if branch.stream.stop_at is not None:
            self.finish_reason, self.stopped = "stop", (branch, branch.stream.stop_at)
        if branch.roles is not None:
            end = token in self.stop_ids
            role = _END_OF_TEXT if end else branch.roles.classify(token, text, forced=forced, legal=legal)
            self._emit_token(branch, text, role, end=end)

    def _append(
        self, branch: Branch, token: int, *, forced: bool = False, logprob: float | None = None, top: Top | None = None
    ) -> None:
        if branch.tail is None:
            branch.tail = Run(branch, [], branch.next_position)
            begins = not branch.token_ids and branch.label and branch.closing is None and self.params.share_every is None
            (self.heads if begins else self.ready).append(branch.tail)
        branch.tail.token_ids.append(token)
        branch.token_ids.append(token)
        branch.positions.append(branch.next_position)
        branch.forced.append(forced)
        branch.logprobs.append(logprob)
        branch.tops.append(top)
        branch.next_position += 1
        self.written += 1
        self.furthest = max(self.furthest, branch.next_position)
        if branch.next_position >= self.end_position:
            self.finish_reason = self.closing or ("length" if self.end_position == self.max_positions else "budget")
        if self.written >= self.max_written:
            self.finish_reason = self.closing or "length"

    def counts(self, branch: Branch) -> Counts:
        """Tokens generated so far, with those of this branch."""
        return Counts(self.written, self.furthest - self.prompt_positions, len(branch.token_ids))

    def _emit_token(self, branch: Branch, text: str, role: TokenRole, *, end: bool) -> None:
        if not self.listening:
            return
        assert branch.stream is not None
        self.events.append(
            TokenEvent(
                branch.label,
                branch.token_ids[-1],
                text,
                branch.positions[-1],
                branch.forced[-1],
                branch.logprobs[-1],
                branch.tops[-1],
                *role,
                end_of_text=end,
                held=branch.stream.held,
                excess=branch.stream.excess,
                counts=self.counts(branch),
            )
        )

    def _write_forced(self, branch: Branch) -> None:
        """Write what the grammar prescribes next."""
        while branch.machine is not None and branch.machine.forced and self.finish_reason is None:
            token = branch.machine.forced[0]
            branch.machine.feed(token)
            self._write(branch, token, forced=True)

    def _fork(self, parent: Branch, labels: tuple[str, ...]) -> None:
        assert self.tokens is not None
        self._emit(ForkEvent(parent.label, labels, self.counts(parent)))
        self.forks += 1
        number = len(parent.blocks)
        children: list[Branch] = []
        parent.blocks.append((len(parent.token_ids), children))
        parent.tail = None  # what the parent writes after the join comes behind its children
        # What is left is shared out among the children, and what they leave comes back at the join: branches that fork in
        # the same step need not ask each other.
        share, parent.allowance = divmod(max(0, parent.allowance - len(labels)), len(labels))
        for index, label in enumerate(labels):
            child = self._add_branch(parent, label, (*parent.path, number, index), Machine(self.tokens, label))
            for sibling in children:
                self.visible[child.index, sibling.index] = self.visible[sibling.index, child.index] = False
                self.parted_at[child.index, sibling.index] = self.parted_at[sibling.index, child.index] = parent.next_position
            child.allowance, child.closing = share, parent.closing
            children.append(child)
            self._write_forced(child)

    def _end(self, branch: Branch) -> None:
        """A path has closed; if it was the last of its block, the parent goes on."""
        reason = branch.closing if branch.closing is not None else "stop"
        self._emit(BranchEndEvent(branch.label, reason, self.counts(branch)))
        if branch.closing is not None:
            self.closed.append((branch.label, branch.closing))
        if branch.tail is not None and branch.tail in self.heads:  # closed before it began
            self.heads.remove(branch.tail)
            self.ready.append(branch.tail)
        parent = branch.parent
        assert parent is not None
        assert parent.machine is not None
        if not all(child.ended for child in parent.children):
            return
        self._emit(JoinEvent(parent.label, tuple(child.label for child in parent.children), self.counts(parent)))
        parent.next_position = max(child.next_position for child in parent.children)
        parent.allowance += sum(child.allowance for child in parent.children)
        parent.machine.resume()
        self._write_forced(parent)

    def _emit(self, event: Event) -> None:
        if self.listening:
            self.events.append(event)

    def seen_tokens(self, branch: Branch) -> set[int]:
        """Tokens that a branch can see, the prompt included (for the repetition penalty)."""
        seen = set(self.prompt)
        for other in self.branches:
            if self.visible[branch.index, other.index]:
                seen.update(other.token_ids)
        return seen


def _stretches(branch: Branch) -> Iterator[tuple[Branch, int, int]]:
    """What was written on a branch and in its blocks, in document order."""
    offset, start = len(branch.prompt_ids), 0
    for end, children in [*branch.blocks, (len(branch.token_ids), [])]:
        yield branch, offset + start, offset + end
        for child in children:
            yield from _stretches(child)
        start = end
