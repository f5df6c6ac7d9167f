"""One forward's worth of work as tensors: the rows, where they are written, and which slots each may read.

Shape legend: N rows, G groups in a bucket, R rows a group (padded), U slots a group (padded).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attention.cascade import Family, Plan, Planner
from ..attention.tree import Bucket
from .request import Request
from .scheduler import Chunk

# Groups share a bucket while padding wastes at most this share of row-slot pairs.
_MAX_PADDING = 0.5


@dataclass
class Batch:
    """What the model runner needs, filled by `build`, all of it on the host.

    Attributes:
        token_N, position_N: the rows, as the model sees them.
        slot_N: where each row's keys and values are written.
        buckets: who reads what, for the attention.
        plans: the same of rows that are in no bucket, for each window of the model's layers.
        sampled: the chunks whose branch gets its next token from this forward.
        scored: the chunks whose own tokens are scored.
        kept_rows: rows whose logits are wanted: the last of each entry of `sampled`, then all of each entry of `scored`.
    """

    token_N: Tensor
    position_N: Tensor
    slot_N: Tensor
    buckets: list[Bucket]
    sampled: list[Chunk]
    scored: list[Chunk]
    kept_rows: list[int]
    plans: dict[int | None, Plan] = field(default_factory=dict)


class _Group:
    """Rows of one request, the newest of its reads: their indices in the forward, and what they may read."""

    def __init__(self, request: Request, start: int, end: int) -> None:
        self.request = request
        self.rows = np.arange(start, end)

    @property
    def slots(self) -> NDArray[np.int64]:
        return self.request.reading.slots

    @property
    def slot_positions(self) -> NDArray[np.int64]:
        return self.request.reading.positions

    @property
    def row_positions(self) -> NDArray[np.int64]:
        return self.slot_positions[-len(self.rows) :]

    @cached_property
    def visible(self) -> NDArray[np.bool_] | None:
        """Each row sees what was read before it, siblings' tokens excepted; `None` where it sees everything."""
        request, rows = self.request, len(self.rows)
        if rows == 1 and request.visible.all():
            return None
        reading = request.reading
        owners, order = reading.owners, np.arange(reading.count)
        visible: NDArray[np.bool_] = order[None, :] <= order[-rows:, None]
        visible &= request.visible[owners[-rows:]][:, owners]
        if request.params.share_every is not None:
            visible |= _shared(request, rows, request.params.share_every)
        return visible

    @property
    def area(self) -> int:
        return len(self.rows) * len(self.slots)

    @property
    def family(self) -> Family:
        reading = self.request.reading
        return Family(self.rows, reading.slots, reading.positions, reading.owners, self.request.visible)


def build(chunks: list[Chunk], planner: Planner | None = None) -> Batch:
    """Lay the chunks out as one sequence of rows, grouped by request.

    Args:
        planner: what plans the work of the attention, except for requests with `share_every`, whose mask is not that of a
            plan; `None` puts everything into buckets.
    """
    tokens: list[int] = []
    sampled: list[Chunk] = []
    last_row: list[int] = []
    scored: list[Chunk] = []
    scored_rows: list[int] = []
    groups: list[_Group] = []
    start = 0
    for index, chunk in enumerate(chunks):
        if chunk.request.scoring:
            scored.append(chunk)
            scored_rows += range(len(tokens), len(tokens) + len(chunk.token_ids))
        tokens += chunk.token_ids
        if chunk.sample:
            sampled.append(chunk)
            last_row.append(len(tokens) - 1)
        if index + 1 == len(chunks) or chunks[index + 1].request is not chunk.request:
            groups.append(_Group(chunk.request, start, len(tokens)))
            start = len(tokens)
    planned: list[_Group] = []
    others: list[_Group] = []
    for group in groups:
        (others if planner is None or group.request.params.share_every is not None else planned).append(group)
    return Batch(
        token_N=torch.tensor(tokens, dtype=torch.long),
        position_N=torch.from_numpy(np.concatenate([group.row_positions for group in groups])),
        slot_N=torch.from_numpy(np.concatenate([chunk.slots for chunk in chunks])),
        buckets=_buckets(others) if others else [],
        sampled=sampled,
        scored=scored,
        kept_rows=last_row + scored_rows,
        plans=planner.plan([group.family for group in planned], len(tokens)) if planner is not None and planned else {},
    )


def _shared(request: Request, rows: int, every: int) -> NDArray[np.bool_]:
    """Which tokens of sibling paths the newest rows see: those in earlier stretches of `every` positions."""
    owners, positions = request.reading.owners, request.reading.positions
    start = request.parted_at[owners[-rows:]][:, owners]
    ahead = (positions[None, :] - start) // every < (positions[-rows:, None] - start) // every
    return (start >= 0) & ahead


def _buckets(groups: list[_Group]) -> list[Bucket]:
    """Put groups of similar size together, so that one attention call serves many requests with little padding."""
    buckets: list[Bucket] = []
    pile: list[_Group] = []
    area = 0
    for group in sorted(groups, key=lambda g: (len(g.rows), len(g.slots))):
        grown = [*pile, group]
        padded = len(grown) * max(len(g.rows) for g in grown) * max(len(g.slots) for g in grown)
        if pile and padded * (1 - _MAX_PADDING) > area + group.area:
            buckets.append(_bucket(pile))
            grown, area = [group], 0
        pile = grown
        area += group.area
    buckets.append(_bucket(pile))
    return buckets


def _bucket(groups: list[_Group]) -> Bucket:
    size, rows, slots = len(groups), max(len(g.rows) for g in groups), max(len(g.slots) for g in groups)
    padded = any(len(g.rows) < rows or len(g.slots) < slots for g in groups)
    masked = padded or any(g.visible is not None for g in groups)
    row_GR = np.zeros((size, rows), dtype=np.int64)
    slot_GU = np.empty((size, slots), dtype=np.int64)
    row_position_GR = np.zeros((size, rows), dtype=np.int64)
    slot_position_GU = np.zeros((size, slots), dtype=np.int64)
    visible_GRU = np.zeros((size, rows, slots), dtype=bool)
    real_GR = np.zeros((size, rows), dtype=bool)
    for index, group in enumerate(groups):
        r, u = len(group.rows), len(group.slots)
        row_GR[index] = group.rows[0]
        row_GR[index, :r] = group.rows
        # Padding slots are masked, but what is masked is still multiplied by zero: they have to be the request's own, or
        # one request whose numbers are broken would spoil the others.
        slot_GU[index] = group.slots[0]
        slot_GU[index, :u] = group.slots
        # A padding row repeats the first row in every way, so that its softmax is not over nothing.
        row_position_GR[index] = group.row_positions[0]
        row_position_GR[index, :r] = group.row_positions
        slot_position_GU[index, :u] = group.slot_positions
        visible_GRU[index, :r, :u] = True if group.visible is None else group.visible
        visible_GRU[index, r:] = visible_GRU[index, 0]
        real_GR[index, :r] = True
    return Bucket(
        row_GR=torch.from_numpy(row_GR),
        slot_GU=torch.from_numpy(slot_GU),
        visible_GRU=torch.from_numpy(visible_GRU) if masked else None,
        real_GR=None if real_GR.all() else torch.from_numpy(real_GR),
        row_position_GR=torch.from_numpy(row_position_GR),
        slot_position_GU=torch.from_numpy(slot_position_GU),
    )
