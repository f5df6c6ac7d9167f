"""Who is read in the next forward. Torch-free.

A request is admitted when the pool can hold everything that it may ever write, so that nobody who runs has to be
dropped. Admitted requests fill one batch: prompts in chunks, forced heads and single tokens of all branches together.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from .request import Branch, Request, Run
from .slots import SlotPool


class Chunk(NamedTuple):
    """Tokens of one branch that are read in this forward.

    Attributes:
        slots: where their keys and values go.
        sample: whether the branch's next token is chosen after the last of them.
    """

    request: Request
    branch: Branch
    token_ids: list[int]
    position: int
    slots: list[int]
    sample: bool


class Scheduler:
    """Admits requests first come, first served, and shares the token budget of a forward among them.

    Attributes:
        max_batch_tokens: most tokens that one forward reads.
        max_requests: most requests that run at once.
    """

    def __init__(self, pool: SlotPool, *, max_batch_tokens: int, max_requests: int) -> None:
        self.pool = pool
        self.max_batch_tokens = max_batch_tokens
        self.max_requests = max_requests
        self.waiting: deque[Request] = deque()
        self.running: deque[Request] = deque()
        self._reserved = 0

    @property
    def busy(self) -> bool:
        """Whether any request waits or runs."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; the engine has checked that it can fit at all."""
        self.waiting.append(request)

    def schedule(self) -> list[Chunk]:
        """Admit what fits, then hand out the budget of one forward."""
        self._admit()
        budget = self.max_batch_tokens
        chunks: list[Chunk] = []
        for request in self.running:
            while request.ready and budget:
                chunk = self._read(request, budget)
                chunks.append(chunk)
                budget -= len(chunk.token_ids)
        if not budget:
            self.running.rotate(-1)  # whoever came last in a full forward comes earlier in the next
        return chunks

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_requests:
            if self._reserved + self.waiting[0].capacity > self.pool.size:
                return
            request = self.waiting.popleft()
            self._reserved += request.capacity
            self.running.append(request)

    def _read(self, request: Request, budget: int) -> Chunk:
        run = request.ready.popleft()
        if len(run.token_ids) > budget:
            rest = Run(run.branch, run.token_ids[budget:], run.position + budget, run.sample)
            request.ready.appendleft(rest)
            run = Run(run.branch, run.token_ids[:budget], run.position, sample=False)
        slots = self.pool.take(len(run.token_ids))
        request.mark_read(run.branch, slots, run.position)
        return Chunk(request, run.branch, run.token_ids, run.position, slots, run.sample)

    def retire(self, request: Request) -> None:
        """Take a finished or aborted request out, and its slots back."""
        if request in self.running:
            self.running.remove(request)
            self._reserved -= request.capacity
            self.pool.give_back(request.slots)
        else:
            self.waiting.remove(request)
