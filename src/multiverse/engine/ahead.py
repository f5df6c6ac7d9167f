"""The next forward, begun before the tokens of this one are known to the host.

While few branches write, a GPU waits for the host between two forwards: the host has to see the tokens, check bounds and
lay out who reads what. Almost always the next forward is just what one would guess: the same branches, one token further. So
it is launched at once on that guess, and takes its tokens on the device. Then the host does everything as always, and if the
scheduler comes to the very same rows, the forward has run already. If not (a fork, a join, an end, somebody new), its result
is left alone, and nothing else has to be: it wrote to free slots only, and whoever gets those writes to them later.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..attention.cascade import Family
from .batch import Batch
from .model import ModelRunner
from .scheduler import Chunk
from .slots import Ints, SlotPool

MOST = 4
"""Branches up to which a guess pays: each may fork or end at any token, and a wrong guess costs nearly a whole forward."""


class _Guess(NamedTuple):
    """A forward that has been launched.

    Attributes:
        chunks: those of the forward before, in the order of its rows.
        slots: where the new rows' keys and values go.
        token_N: what the rows read, on the host by now.
    """

    chunks: list[Chunk]
    slots: Ints
    token_N: Tensor
    logits: Tensor


class Ahead:
    """Launches guessed forwards and gives out those that were right.

    Attributes:
        most: branches up to which a forward is guessed; 0 guesses none.
        right, wrong: how many there were of each.
    """

    def __init__(self, runner: ModelRunner, pool: SlotPool) -> None:
        self._runner, self._pool = runner, pool
        self._guess: _Guess | None = None
        self.most = MOST
        self.right = self.wrong = 0

    def begin(self, batch: Batch, token_B: Tensor, host_B: Tensor) -> None:
        """Launch the forward that follows `batch` if everybody goes on.

        Args:
            token_B: what was chosen, on the device.
            host_B: where the host will have the same before it asks for the next forward.
        """
        graphs, chunks = self._runner.graphs, batch.sampled
        if graphs is None or batch.buckets or not 1 <= len(chunks) <= self.most or len(batch.token_N) != len(chunks):
            return
        if self._pool.free < len(chunks):
            return
        slots = self._slots(chunks)
        guessed = self._next(batch, chunks, slots)
        logits = graphs.run(guessed, token_B.clamp(min=0))  # -1 where the model gave no numbers: that request is over
        if logits is not None:
            self._guess = _Guess(chunks, slots, host_B, logits)

    def take(self, chunks: list[Chunk]) -> tuple[Batch, Tensor] | None:
        """The forward of these chunks, if it is the one that was guessed: as a batch, and its logits."""
        guess, self._guess = self._guess, None
        if guess is None:
            return None
        if not self._same(guess, chunks):
            self.wrong += 1
            return None
        self.right += 1
        rows = torch.tensor([[chunk.token_ids[0], chunk.position] for chunk in chunks])
        batch = Batch(rows[:, 0], rows[:, 1], torch.from_numpy(guess.slots), [], chunks, [], list(range(len(chunks))))
        return batch, guess.logits

    @staticmethod
    def _same(guess: _Guess, chunks: list[Chunk]) -> bool:
        if len(chunks) != len(guess.chunks):
            return False
        for chunk, before, slot in zip(chunks, guess.chunks, guess.slots.tolist(), strict=True):
            if chunk.branch is not before.branch or not chunk.sample or len(chunk.token_ids) != 1:
                return False
            if chunk.position != before.position + 1 or chunk.slots[0] != slot:
                return False
        return bool([chunk.token_ids[0] for chunk in chunks] == guess.token_N.tolist())

    def _slots(self, chunks: list[Chunk]) -> Ints:
        """The slots that the rows will be given: the scheduler lets each family have one, then each a second, and so on."""
        seen: dict[int, int] = defaultdict(int)
        turns = []
        for chunk in chunks:
            turns.append(seen[chunk.request.id])
            seen[chunk.request.id] += 1
        slots = np.empty(len(chunks), dtype=np.int64)
        slots[np.argsort(turns, kind="stable")] = self._pool.peek(len(chunks))
        return slots

    def _next(self, batch: Batch, chunks: list[Chunk], slots: Ints) -> Batch:
        planner = self._runner.backend.planner
        assert planner is not None
        position_N = batch.position_N + 1
        families, start = [], 0
        while start < len(chunks):
            request, end = chunks[start].request, start + 1
            while end < len(chunks) and chunks[end].request is request:
                end += 1
            rows, reading = np.arange(start, end), request.reading
            owners = [chunk.branch.index for chunk in chunks[start:end]]
            families.append(
                Family(
                    rows,
                    np.concatenate([reading.slots, slots[rows]]),
                    np.concatenate([reading.positions, position_N[start:end].numpy()]),
                    np.concatenate([reading.owners, owners]),
                    request.visible,
                )
            )
            start = end
        plans = planner.plan(families, len(chunks))
        kept = list(range(len(chunks)))
        return Batch(torch.zeros_like(position_N), position_N, torch.from_numpy(slots), [], chunks, [], kept, plans)
