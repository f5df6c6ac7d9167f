"""Scheduler: chooses the tokens of each forward, admits and preempts requests. Torch-free.

A forward has a budget of tokens and of branches. Decoding requests come first, since a join waits for the last of its branches.
The rest of the budget is used for prefill, in chunks.

Requests are admitted by the slots they need soon, not by their maximum. When the pool runs short, the prefix cache evicts what
no running request uses; then the last request is preempted: its computed tokens are inserted into the cache, and those evicted
by the time it resumes are computed again in one structured prefill. The first request is never preempted, so some request
always makes progress, and every request eventually becomes the first.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .branch import Branch, Span
from .prefix_cache import Node, PrefixCache
from .queues import TokenQueues
from .request import Request
from .slots import SlotPool

_LOOKAHEAD = 32
"""A request is admitted if every branch can then generate this many tokens before the pool runs short."""
_SCORED_ROWS = 256
"""Most scored tokens of one forward: each needs a row of logits over the whole vocabulary."""
_SPARE = 64
"""When the pool runs short, 1/64 of its slots are evicted at once: finding the least recently used nodes takes a walk over the
whole cache tree, which would otherwise be repeated for every token once the cache is full."""


class Chunk(NamedTuple):
    """Tokens of one branch that are computed in this forward.

    Attributes:
        slots: slots of their keys and values.
        sample: whether the branch's next token is sampled after the last of them.
        first: index of the first token among the branch's own tokens, those of the prompt included.
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
    """Remaining budget and chunks of the forward being filled."""

    tokens: int
    branches: int
    scored: int = _SCORED_ROWS
    chunks: dict[int, list[Chunk]] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return self.tokens < 1 or self.branches < 1


class _Blocked(NamedTuple):
    """A waiting request that did not fit, with the result of its prefix cache lookup; valid until the cache changes.

    Attributes:
        known: number of its tokens that are cached.
        evictable: number of those slots that no running request has locked.
        version: version of the cache at the lookup.
    """

    request: Request
    known: int
    evictable: int
    version: int


def _rank(request: Request) -> tuple[int, int]:
    """Sort key: higher priority first, then first come, first served."""
    return -request.priority, request.id


class Scheduler:
    """Admits requests in order and divides each forward among them.

    Attributes:
        max_batch_tokens: most tokens of one forward.
        max_batch_branches: most branches that one forward samples for; the others follow in the next forwards.
        max_requests: most running requests.
        waiting, running: both in order, first to last.
        preemptions: number of preemptions.
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
        self._blocked: _Blocked | None = None

    @property
    def busy(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting or self.running)

    @property
    def available(self) -> int:
        """Number of slots that are free or can be evicted."""
        return self.pool.free + self.cache.evictable

    def add(self, request: Request) -> None:
        """Queue a request; the engine has checked that it fits into the pool alone."""
        insort(self.waiting, request, key=_rank)

    # -- one forward --------------------------------------------------------------------------------------------------

    def schedule(self) -> list[Chunk]:
        """Fill one forward; empty only if no request waits or runs."""
        for running in self.running:
            self._free_left_behind(running)
        self._preempt_lower_priority()
        while True:
            for outgrown in [request for request in self.running if request.queues.outgrown]:
                self._read_again(outgrown)
            self._preempt_for_decode()
            forward = _Forward(self.max_batch_tokens, self.max_batch_branches)
            self._decode(forward, TokenQueues.take_decode)
            self._decode(forward, TokenQueues.take_pending)
            self._prefill(forward, [request for request in self.running if request.queues.prefill])
            admitted = False
            while not forward.full and (request := self._admit()) is not None:
                self._prefill(forward, [request])
                admitted = True
            if forward.chunks or not self.busy:
                return [chunk for chunks in forward.chunks.values() for chunk in chunks]
            if not admitted:  # an admitted request may have only pending branches, which the next pass takes
                # Every request holds slots and none can continue. A request that runs alone always can, unless slots that it
                # has left behind are locked with those that it uses; when it is admitted again, they are not.
                assert len(self.running) > 1 or self._locks_too_much(self.running[0]), "a request alone has too few slots"
                self.preempt(self.running[-1])

    def _free_left_behind(self, request: Request) -> None:
        """Free the slots of paths that nobody sees any more, since their parent reads them again."""
        if request.left_behind:
            slots = request.computed.remove(request.left_behind)
            self.pool.give_back(slots[self.pool.owns(slots)])
            request.left_behind.clear()

    def _locks_too_much(self, request: Request) -> bool:
        """Whether a running request keeps slots of the prefix cache locked that it does not use."""
        assert request.node is not None
        used = np.count_nonzero(~self.pool.owns(request.computed.slots))
        return self.cache.length(request.node) > int(used)

    def _preempt_lower_priority(self) -> None:
        """Preempt requests of lower priority until the first waiting request fits."""
        first = self._next()
        while first is not None and self.running and self.running[-1].priority < first.priority:
            if len(self.running) < self.max_requests and self._wanted(first) <= self.available:
                return
            self.preempt(self.running[-1])

    def _preempt_for_decode(self) -> None:
        """Preempt the last request until the others can decode."""
        while len(self.running) > 1:
            wanted = sum(len(span.token_ids) for request in self._decoding() for span in request.queues.decode)
            if min(wanted, self.max_batch_tokens) <= self.available:
                return
            self.preempt(self.running[-1])

    def _decoding(self) -> list[Request]:
        """Running requests that have nothing to prefill."""
        return [request for request in self.running if not request.queues.prefill]

    def _decode(self, forward: _Forward, take: Callable[[TokenQueues, int], Span | None]) -> None:
        """Add one span of each request in turn, until none is left or the forward is full."""
        decoding = self._decoding()
        start = self._turn % max(1, len(decoding))
        order = decoding[start:] + decoding[:start]
        while order and not forward.full:
            going = []
            for request in order:
                budget = min(forward.tokens, self.available)
                if forward.full or not budget:
                    break
                if take is TokenQueues.take_pending and request.queues.going:
                    continue  # tokens of the parent did not fit
                span = take(request.queues, budget)
                if span is not None:
                    self._compute(forward, request, span, decode=True)
                    going.append(request)
            else:
                order = going
                continue
            self._turn += 1  # the next forward begins with another request
            return

    def _prefill(self, forward: _Forward, requests: Iterable[Request]) -> None:
        """Compute tokens of the prefill queues within the budget."""
        for request in requests:
            while request.queues.prefill and not forward.full:
                budget = min(forward.tokens, self.available)
                budget = min(budget, forward.scored) if request.scoring else budget
                if not budget:
                    break
                self._compute(forward, request, request.queues.take_prefill(budget), decode=False)
            if not request.queues.prefill:
                self._first_tokens(forward, request)

    def _first_tokens(self, forward: _Forward, request: Request) -> None:
        """Add the tokens to decode of a request whose prefill is complete, in the same forward."""
        while not forward.full and (budget := min(forward.tokens, self.available)):
            span = request.queues.take_decode(budget)
            if span is None:
                return
            self._compute(forward, request, span, decode=True)

    def _compute(self, forward: _Forward, request: Request, span: Span, *, decode: bool) -> None:
        """Add a span to the forward and allocate its slots."""
        count = len(span.token_ids)
        if count > self.pool.free:
            spare = min(self.pool.size // _SPARE, self.cache.evictable)
            self.cache.evict(max(count - self.pool.free, spare))
        slots = self.pool.take(count)
        branch = span.branch
        sample = decode and not request.queues.waits(branch) and branch.open
        first = int((request.computed.owners == branch.index).sum()) if request.scoring else 0
        request.computed.add(span, slots)
        forward.chunks.setdefault(request.id, []).append(
            Chunk(request, branch, span.token_ids, span.position, slots, sample, first)
        )
        forward.tokens -= count
        forward.branches -= sample
        forward.scored -= count if request.scoring else 0

    # -- admission, preemption, finish --------------------------------------------------------------------------------

    def _next(self) -> Request | None:
        """The first waiting request whose prompt no other request is computing."""
        return next((request for request in self.waiting if request.leader is None or not request.leader.computes_prompt), None)

    def _admit(self) -> Request | None:
        """Admit the first waiting request if it fits; its cached tokens are locked and skipped."""
        request = self._next()
        if request is None or len(self.running) >= self.max_requests:
            return None
        node = self._look_up(request)
        if node is None:
            return None
        known = self.cache.path(node)
        request.node = node
        if not request.prompt_computed:
            request.cached_tokens = len(known)
        request.queues.skip(request.computed, known)
        self.waiting.remove(request)
        insort(self.running, request, key=_rank)
        if request.admitted_at is None:
            request.admitted_at = time.monotonic()
        return request

    def _look_up(self, request: Request) -> Node | None:
        """The node of the prefix cache at the end of a request's cached tokens, locked; `None` if the request does not fit.

        A lookup without admission is not repeated until the cache has changed.
        """
        cache, blocked = self.cache, self._blocked
        if blocked is not None and blocked.request is request and blocked.version == cache.version and self.running:
            left = self.available - blocked.evictable + blocked.known
            # The request's own need is cheaper to compute, and often decides.
            if len(request.queues) > left or self._wanted(request) > left:
                return None
        self._blocked = None
        wanted = self._wanted(request) if self.running else 0
        keys = request.queues.keys
        node = cache.find(keys)
        known = cache.length(node)
        before = cache.evictable
        cache.lock(node)
        if self.running and wanted - known > self.available:
            evictable = before - cache.evictable
            cache.unlock(node)
            self._blocked = _Blocked(request, known, evictable, cache.version)
            return None
        cache.count(len(keys), known)
        return node

    def _wanted(self, request: Request) -> int:
        """Slots that a request and the running ones need soon, if none of its tokens are cached."""
        running = sum(_lookahead(other) + len(other.queues) for other in self.running)
        return running + len(request.queues) + _lookahead(request)

    def insert_prompt(self, request: Request) -> None:
        """The prompt has been computed: insert it into the prefix cache for other requests."""
        request.prompt_computed = True
        if request.node is None or not self.cache.enabled:
            return
        order = self._cacheable(request)[: request.tree.prompt_length - 1]
        slots = request.computed.slots
        before = slots[order].copy()
        node, kept = self.cache.insert(request.computed.keys(order, request.queues.shift), before)
        slots[order] = kept  # another request may have inserted them before
        doubles = before[before != kept]
        self.pool.give_back(doubles[self.pool.owns(doubles)])
        self.cache.lock(node)
        self.cache.unlock(request.node)
        request.node = node

    def preempt(self, request: Request) -> None:
        """Free a running request's slots and queue it again; its result does not change."""
        self._leave(request, keep=True)
        request.queues.preempt(request.computed)
        request.preemptions += 1
        self.preemptions += 1
        self.add(request)

    def _read_again(self, request: Request) -> None:
        """A request has outgrown the short factors of its rotary embedding: compute all of it again with the long ones."""
        self._leave(request, keep=True)
        request.queues.outgrow(request.computed)
        self.add(request)

    def finish(self, request: Request) -> None:
        """Remove a finished or aborted request; its tokens go to the prefix cache if it is `cached` and did not fail."""
        if request in self.running:
            self._leave(request, keep=request.cached and request.finish_reason != "error")
        else:
            self.waiting.remove(request)
        request.release()

    def _leave(self, request: Request, *, keep: bool) -> None:
        try:
            self._give_back(request, keep=keep)
        finally:
            self.running.remove(request)  # last: for other threads an empty list means that all slots are freed

    def _give_back(self, request: Request, *, keep: bool) -> None:
        node, slots = request.node, request.computed.slots
        assert node is not None
        request.node = None
        if keep:
            order = self._cacheable(request)
            # Branches that grew after a preemption, or were left behind, change the prefix of what the cache holds after them:
            # those entries stay where they are in the cache, and tokens from the first of them on are not inserted again.
            path = self.cache.path(node)[: len(order)]
            moved = ~self.pool.owns(slots[order])
            moved[: len(path)] &= np.logical_or.accumulate(slots[order][: len(path)] != path)
            order = order[: np.argmax(moved)] if moved.any() else order
            self.cache.insert(request.computed.keys(order, request.queues.shift), slots[order])
        self.pool.give_back(slots[self.pool.owns(slots)])
        self.cache.unlock(node)
        if not keep:
            self.cache.discard(node)

    @staticmethod
    def _cacheable(request: Request) -> NDArray[np.int64]:
        """Columns of the computed tokens that can be inserted into the prefix cache, each after all that it sees."""
        order = request.computed.in_order(request.tree.reading())
        if request.scoring and not request.tree.kv_join:  # paths that are scored on their own, which the trunk does not see
            order = order[request.tree.visible[request.trunk.index][request.computed.owners[order]]]
        if request.params.share_every is not None:
            paths = np.flatnonzero(request.computed.owners[order] != request.trunk.index)
            order = order[: paths[0]] if len(paths) else order
        return order

    def check_integrity(self) -> None:
        """Check that every slot is free, cached or owned by one request, and that cached slots in use are locked.

        Raises:
            AssertionError: an invariant does not hold.
        """
        cached = self.cache.check_integrity([request.node for request in self.running if request.node is not None])
        owned = [np.empty(0, np.int64)]
        for request in self.running:
            slots = request.computed.slots
            own = self.pool.owns(slots)
            owned.append(slots[own])
            assert request.node is not None, f"request {request.id} runs without a node in the cache"
            unlocked = slots[~own][~np.isin(slots[~own], self.cache.path(request.node))]
            assert not len(unlocked), f"request {request.id} uses cached slots that it has not locked"
        for request in self.waiting:
            assert request.node is None, f"request {request.id} waits and holds a node in the cache"
            assert not request.computed.count, f"request {request.id} waits and holds slots"
        self.pool.check_integrity(np.concatenate(owned), cached)


def _lookahead(request: Request) -> int:
    """Number of tokens for which a request needs slots soon."""
    if request.scoring:
        return 0
    return min(request.params.max_tokens - request.num_generated, _LOOKAHEAD * request.tree.num_open)
