"""Lay out the scheduler's chunks as the batch of one forward.

Shape legend: N rows of the forward, R rows of a request, U tokens that a request has computed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from ..backends.batch import Batch, Family
from .request import Request
from .scheduler import Chunk
from .slots import SlotPool


@dataclass
class ScheduledBatch(Batch):
    """A batch, and the chunks that use its logits: a row per entry of `sampled`, then the rows of each entry of `scored`."""

    sampled: list[Chunk]  # build: chunks whose branch gets its next token from this forward
    scored: list[Chunk]  # build: chunks whose own tokens are scored


def build(chunks: list[Chunk], *, ranked: bool = False) -> ScheduledBatch:
    """The batch of these chunks. Chunks of one request are adjacent.

    Args:
        ranked: number the branches in document order, as deterministic backends need it.
    """
    tokens: list[int] = []
    sampled: list[Chunk] = []
    sampled_rows: list[int] = []
    scored: list[Chunk] = []
    scored_rows: list[int] = []
    families: list[Family] = []
    positions: list[NDArray[np.int64]] = []
    for _, own in groupby(chunks, key=lambda chunk: chunk.request.id):
        start = len(tokens)
        for chunk in own:
            if chunk.request.scoring:
                scored.append(chunk)
                scored_rows += range(len(tokens), len(tokens) + len(chunk.token_ids))
            tokens += chunk.token_ids
            if chunk.sample:
                sampled.append(chunk)
                sampled_rows.append(len(tokens) - 1)
        families.append(_family(chunk.request, start, len(tokens), ranked=ranked))
        positions.append(families[-1].positions[start - len(tokens) :] + chunk.request.queues.shift)
    return ScheduledBatch(
        token_N=torch.tensor(tokens, dtype=torch.long),
        position_N=torch.from_numpy(np.concatenate(positions)),
        slot_N=torch.from_numpy(np.concatenate([chunk.slots for chunk in chunks])),
        families=families,
        logits_indices=sampled_rows + scored_rows,
        sampled=sampled,
        scored=scored,
    )


def next_batch(batch: ScheduledBatch, pool: SlotPool) -> Batch | None:
    """The batch that follows if every branch continues with one token; its tokens are not known yet.

    `None` if this batch has more rows than sampled ones or is read in document order, or the pool has too few free slots.
    """
    count = len(batch.sampled)
    if not count or len(batch.token_N) != count or pool.free < count:
        return None
    if any(family.order is not None for family in batch.families):  # where new tokens stand in it is not known here
        return None
    # The scheduler gives every request one slot, then each a second, and so on.
    used: Counter[int] = Counter()
    turns = []
    for chunk in batch.sampled:
        turns.append(used[chunk.request.id])
        used[chunk.request.id] += 1
    slot_N = np.empty(count, dtype=np.int64)
    slot_N[np.argsort(turns, kind="stable")] = pool.peek(count)
    position_N = batch.position_N + 1
    families = []
    for family in batch.families:
        rows = family.rows
        families.append(
            family._replace(
                slots=np.concatenate([family.slots, slot_N[rows]]),
                positions=np.concatenate([family.positions, family.positions[-len(rows) :] + 1]),
                owners=np.concatenate([family.owners, family.owners[-len(rows) :]]),
            )
        )
    return Batch(torch.zeros_like(position_N), position_N, torch.from_numpy(slot_N), families, batch.logits_indices)


def _family(request: Request, start: int, end: int, *, ranked: bool) -> Family:
    """The rows from `start` to `end`, the newest of the request's computed tokens."""
    computed, every = request.computed, request.params.share_every
    shared_RU = None if every is None else _shared(request, end - start, every)
    tree = request.tree
    ranks = tree.ranks if ranked else None
    order = computed.in_order(tree.reading()) if ranked and tree.overlaps else None
    columns = (computed.slots, computed.positions, computed.owners)
    return Family(np.arange(start, end), *columns, tree.visible, shared_RU, ranks, order)


def _shared(request: Request, rows: int, every: int) -> NDArray[np.bool_]:
    """Tokens of sibling paths that the newest rows may read: those in earlier stretches of `every` positions."""
    owners, positions = request.computed.owners, request.computed.positions
    start = request.tree.parted_at[owners[-rows:]][:, owners]
    earlier = (positions[None, :] - start) // every < (positions[-rows:, None] - start) // every
    shared_RU: NDArray[np.bool_] = (start >= 0) & earlier
    return shared_RU
