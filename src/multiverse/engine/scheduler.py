"""Who is read in the next forward, who has to wait, and who gives way. Torch-free.

A forward has room for so many tokens and so many branches. Running families go first: a join waits for the last of its
branches, so what has begun comes before what has not. What is left goes to prompts, in chunks.

Requests are admitted on what they need now, not on what they may come to need. When the pool runs short, the prefix cache gives
up what nobody reads; then the request that came last is preempted: what it has read is left to the cache, and what the
cache has lost by the time it goes on is read again in one structured prefill. The first in line is never preempted, so
somebody always gets on, and everybody becomes first in time.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .branch import Branch, Run
from .cache import PrefixCache, make_keys
from .request import Request
from .slots import SlotPool

# A request is admitted if everybody can then write so many tokens a branch before the pool runs short.
_LOOKAHEAD = 32
_SCORED_ROWS = 256
"""Most tokens a forward that are scored: each needs a row of logits over the whole vocabulary."""
_SPARE = 64
"""When the pool runs short, one slot in so many is freed at once: to find what was used least recently, the cache's whole tree
is gone through, and once it is full, that would be for every token of every row."""


class Chunk(NamedTuple):
    """Tokens of one branch that are read in this forward.

    Attributes:
        slots: where their keys and values go.
        sample: whether the branch's next token is chosen after the last of them.
        first: number of the first among the branch's own tokens, those of the prompt included.
    """

    request: Request
    branch: Branch
    token_ids: list[int]
    position: int
    slots: NDArray[np.int64]
    sample: bool
    first: int


@dataclass
class _Forward:
    """The forward that is being filled."""

    tokens: int
    branches: int
    scored: int = _SCORED_ROWS
    chunks: dict[int, list[Chunk]] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return self.tokens < 1 or self.branches < 1


def _line(request: Request) -> tuple[int, int]:
    """Place in the line: higher priority first, then who came first."""
    return -request.priority, request.id


class Scheduler:
    """Admits requests in turn and shares each forward among them.

    Attributes:
        max_batch_tokens: most tokens that one forward reads.
        max_batch_branches: most branches that one forward advances; the others of a wide block follow in waves.
        max_requests: most requests that run at once.
        waiting, running: both in line, first to last.
        preemptions: how often a request had to give way.
    """

    def __init__(
        self,
        pool: SlotPool,
        cache: PrefixCache | None = None,
        *,
        max_batch_tokens: int,
        max_requests: int,
        max_batch_branches: int = 256,
    ) -> None:
        self.pool = pool
        self.cache = cache if cache is not None else PrefixCache(pool)
        self.max_batch_tokens = max_batch_tokens
        self.max_batch_branches = max_batch_branches
        self.max_requests = max_requests
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.preemptions = 0
        self._turn = 0

    @property
    def busy(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; the engine has checked that it can fit at all."""
        insort(self.waiting, request, key=_line)

    # -- one forward --------------------------------------------------------------------------------------------------

    def schedule(self) -> list[Chunk]:
        """Fill one forward; empty only if nobody waits or runs."""
        self._give_way()
        while True:
            self._make_room()
            forward = _Forward(self.max_batch_tokens, self.max_batch_branches)
            self._advance(forward, Request.next_run)
            self._advance(forward, Request.next_head)
            self._prefill(forward, list(self.running))
            admitted = False
            while not forward.full and (request := self._admit()) is not None:
                self._prefill(forward, [request])
                admitted = True
            if forward.chunks or not self.busy:
                return [chunk for chunks in forward.chunks.values() for chunk in chunks]
            if not admitted:  # who was let in may have nothing to read but heads, whose turn has been
                # Everybody holds something and nobody can go on. Alone, a request always can.
                assert len(self.running) > 1, "a request that runs alone has no room"
                self.preempt(self.running[-1])

    def _give_way(self) -> None:
        """Requests of lower priority make room for the first in line."""
        first = self._next()
        while first is not None and self.running and self.running[-1].priority < first.priority:
            if len(self.running) < self.max_requests and self._wanted(first) <= self.pool.free + self.cache.evictable:
                return
            self.preempt(self.running[-1])

    def _make_room(self) -> None:
        """See to it that running families can go on: whoever came last gives way."""
        while len(self.running) > 1:
            wanted = sum(len(run.token_ids) for request in self._live() for run in request.ready)
            if min(wanted, self.max_batch_tokens) <= self.pool.free + self.cache.evictable:
                return
            self.preempt(self.running[-1])

    def _live(self) -> list[Request]:
        """Running requests that have no backlog."""
        return [request for request in self.running if not request.backlog]

    def _advance(self, forward: _Forward, take: Callable[[Request, int], Run | None]) -> None:
        """One run of each family after the other, until nothing is left or the forward is full."""
        live = self._live()
        start = self._turn % max(1, len(live))
        line = live[start:] + live[:start]
        while line and not forward.full:
            going = []
            for request in line:
                room = min(forward.tokens, self.pool.free + self.cache.evictable)
                if forward.full or not room:
                    break
                if take is Request.next_head and request.ready:
                    continue  # what its parent wrote last has not found room
                run = take(request, room)
                if run is not None:
                    self._read(forward, request, run, live=True)
                    going.append(request)
            else:
                line = going
                continue
            self._turn += 1  # the forward is full: the next one begins with somebody else
            return

    def _prefill(self, forward: _Forward, requests: Iterable[Request]) -> None:
        """Read backlogs, as far as there is room."""
        for request in requests:
            while request.backlog and not forward.full:
                room = min(forward.tokens, self.pool.free + self.cache.evictable)
                room = min(room, forward.scored) if request.scoring else room
                if not room:
                    break
                self._read(forward, request, request.next_backlog(room), live=False)
            if not request.backlog:
                self._first_tokens(forward, request)

    def _first_tokens(self, forward: _Forward, request: Request) -> None:
        """A backlog has just come to its end: what follows it fits into the same forward."""
        while not forward.full and (room := min(forward.tokens, self.pool.free + self.cache.evictable)):
            run = request.next_run(room)
            if run is None:
                return
            self._read(forward, request, run, live=True)

    def _read(self, forward: _Forward, request: Request, run: Run, *, live: bool) -> None:
        count = len(run.token_ids)
        if count > self.pool.free:
            spare = min(self.pool.size // _SPARE, self.cache.evictable)
            self.cache.evict(max(count - self.pool.free, spare))
        slots = self.pool.take(count)
        branch = run.branch
        sample = live and branch.tail is None and branch.open
        first = int((request.reading.owners == branch.index).sum()) if request.scoring else 0
        request.reading.add(run, slots)
        forward.chunks.setdefault(request.id, []).append(
            Chunk(request, branch, run.token_ids, run.position, slots, sample, first)
        )
        forward.tokens -= count
        forward.branches -= sample
        forward.scored -= count if request.scoring else 0

    # -- coming and going ---------------------------------------------------------------------------------------------

    def _next(self) -> Request | None:
        """Who is first in line, those left out whose prompt another one is reading."""
        return next((request for request in self.waiting if request.leader is None or not request.leader.reads_prompt), None)

    def _admit(self) -> Request | None:
        """Let the first in line in, if there is room for it."""
        request = self._next()
        if request is None or not self._fits(request):
            return None
        self.waiting.remove(request)
        insort(self.running, request, key=_line)
        if request.admitted_at is None:
            request.admitted_at = time.monotonic()
        return request

    def _wanted(self, request: Request) -> int:
        """Slots that a request and those that run will want soon, if the cache knows nothing of it."""
        running = sum(_lookahead(other) + _left(other) for other in self.running)
        return running + _left(request) + _lookahead(request)

    def _fits(self, request: Request) -> bool:
        """Whether a request can be let in now; if so, what the prefix cache knows of it is already locked and read."""
        if len(self.running) >= self.max_requests:
            return False
        front = _front(request)
        node = self.cache.find(front)
        known = self.cache.path(node)
        self.cache.lock(node)
        if self.running and self._wanted(request) - len(known) > self.pool.free + self.cache.evictable:
            self.cache.unlock(node)
            return False
        request.node = node
        if not request.prompt_read:
            request.cached_tokens = len(known)
        request.skip(known)
        return True

    def publish(self, request: Request) -> None:
        """The prompt has been read: let others use it from now on."""
        request.prompt_read = True
        if request.node is None or not self.cache.enabled:
            return
        order = request.storable()[: len(request.prompt) - 1]
        slots = request.reading.slots
        before = slots[order].copy()
        node, kept = self.cache.insert(request.reading.keys(order), before)
        slots[order] = kept  # another request may have been first
        doubles = before[before != kept]
        self.pool.give_back(doubles[self.pool.owns(doubles)])
        self.cache.lock(node)
        self.cache.unlock(request.node)
        request.node = node

    def preempt(self, request: Request) -> None:
        """Take a running request's slots away; it waits to be let in again, and goes on as if nothing had happened."""
        self._leave(request, keep=True)
        request.drop()
        request.preemptions += 1
        self.preemptions += 1
        self.add(request)

    def retire(self, request: Request) -> None:
        """Take a finished or aborted request out; what it has read is left to the prefix cache, unless it is of no use."""
        if request in self.running:
            self._leave(request, keep=request.finish_reason != "error")
        else:
            self.waiting.remove(request)
        request.let_go()

    def _leave(self, request: Request, *, keep: bool) -> None:
        try:
            self._give_back(request, keep=keep)
        finally:
            self.running.remove(request)  # last: to other threads, that nothing runs says that everything is back

    def _give_back(self, request: Request, *, keep: bool) -> None:
        node, slots = request.node, request.reading.slots
        assert node is not None
        request.node = None
        if keep:
            order = request.storable()
            # Restored branches have grown in the middle of the document, and what the cache has from before then follows
            # something else than it did: it keeps its place there, and what comes behind it here cannot be kept.
            owned = self.pool.owns(slots[order])
            breaks = np.flatnonzero(owned[:-1] & ~owned[1:])
            order = order[: breaks[0] + 1] if len(breaks) else order
            self.cache.insert(request.reading.keys(order), slots[order])
        self.pool.give_back(slots[self.pool.owns(slots)])
        self.cache.unlock(node)
        if not keep:
            self.cache.discard(node)

    def check_integrity(self) -> None:
        """Prove that every slot is free, cached or owned by one request, and that whoever reads a cached slot has locked it.

        Raises:
            AssertionError: it is not so.
        """
        cached = self.cache.check_integrity([request.node for request in self.running if request.node is not None])
        owned: list[int] = []
        for request in self.running:
            slots = request.reading.slots
            own = self.pool.owns(slots)
            owned += slots[own].tolist()
            assert request.node is not None, f"request {request.id} runs without a place in the cache"
            locked = set(self.cache.path(request.node).tolist())
            assert locked >= set(slots[~own].tolist()), f"request {request.id} reads cached slots that it has not locked"
        for request in self.waiting:
            assert request.node is None, f"request {request.id} waits and holds a place in the cache"
            assert not request.reading.count, f"request {request.id} waits and holds slots"
        self.pool.check_integrity(owned, cached)


def _front(request: Request) -> NDArray[np.int64]:
    """Keys of what a backlog begins with, as far as it stands in document order; nothing if its logits are wanted."""
    tokens: list[int] = []
    positions: list[int] = []
    if not request.scoring:
        for run in request.backlog:
            if len(tokens) >= request.matchable:
                break
            tokens += run.token_ids
            positions += range(run.position, run.position + len(run.token_ids))
    front = slice(0, request.matchable)
    return make_keys(np.array(tokens[front], dtype=np.int64), np.array(positions[front], dtype=np.int64))


def _left(request: Request) -> int:
    """Tokens that a request has still to read."""
    return sum(len(run.token_ids) for queue in (request.backlog, request.ready, request.heads) for run in queue)


def _lookahead(request: Request) -> int:
    """Tokens that a request will write soon."""
    if request.scoring:
        return 0
    return min(request.params.max_tokens - request.written, _LOOKAHEAD * len(request.open_branches))
