"""The backend of models with recurrent or linear-attention layers: attention over slots, and a state per branch.

The state of such a layer cannot be joined, so these models join by text or by message: every branch reads a line of plain text.
Attention layers read slots, as in every other backend, so branches share the keys and values of what they have in common. The
other layers continue from the state behind the token before: that of the branch itself; of its parent, copied, where it forks;
of its parent's first path, where the parent goes on after a join by text. The state behind a token is kept by the token's slot,
and dropped when the slot is freed or the branch has gone on.

A forward of the engine becomes several of the model. In each, rows are branches that go on by equally many tokens, and none of
them sees another: what depends on tokens of the same forward comes in a later one.

Shape legend: N rows of the forward, B branches of one call of the model, T tokens of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from itertools import groupby
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attention.tree import within
from ..errors import ModelError, first_line
from .base import PROBE_SLOTS
from .batch import Batch, Family
from .kv_pool import KVPool
from .states import State, StateCache, tensors_of
from .torch import TorchBackend

_PROBE_TOKENS = 6
_LEAST_BYTES = 256
"""Bytes that a token counts for in a model that keeps none: only numbers of tokens are limited then."""


@dataclass(eq=False)
class _Segment:
    """Consecutive rows of one branch.

    Attributes:
        family: number of its request within the batch.
        rows: rows of the forward.
        own: slot of the branch's last token before them, under which its state is; `None` where it begins.
        before: slot of the token before them in their line of text; `None` at its very beginning.
        turn: number of forwards of the model that have to come first.
    """

    family: int
    rows: range
    own: int | None
    before: int | None
    turn: int


class StatefulBackend(TorchBackend):
    """Runs models whose layers keep a state, branch by branch; see the module.

    Attributes:
        joins_kv: `False`: paths are read again.
        reusable: `False`: what has been computed is of no use without the state behind it.
        state_bytes: bytes of the state of one branch, once allocated; they come on top of the KV memory.
        chunked: whether the model goes on from a state by several tokens at once; otherwise it does by one at a time.
    """

    joins_kv = False
    rereads = True
    reusable = False
    chunked = True
    state_bytes = 0

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._states: dict[int, State] = {}

    @cached_property
    def _cache_name(self) -> str:
        """What the model calls its cache."""
        return next(name for name in ("past_key_values", "cache_params") if name in signature(self.model.forward).parameters)

    def allocate(self, kv_memory: int | None) -> Self:
        """As `Backend.allocate`; the copy has states of its own."""
        backend = copy(super().allocate(kv_memory))
        backend._states = {}
        return backend

    def forget(self, slots: Iterable[int]) -> None:
        """Slots have been freed: drop the states behind their tokens."""
        for slot in slots if self._states else ():
            self._states.pop(slot, None)

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """As `Backend.run`."""
        segments = list(self._segments(batch))
        done = [np.arange(len(family.slots)) < len(family.slots) - len(family.rows) for family in batch.families]
        places = {row: place for place, row in enumerate(batch.logits_indices)}
        out_RV: Tensor | None = None

        def group(segment: _Segment) -> tuple[int, int, bool]:
            return segment.turn, len(segment.rows), segment.before is None

        for (_, length, begin), own in groupby(sorted(segments, key=group), key=group):
            together = list(own)
            logits_BTV, wanted = self._call(batch, together, length, done, places, begin=begin)
            for segment, logits_TV in zip(together, logits_BTV, strict=True):
                for number, at in enumerate(wanted):
                    if (place := places.get(segment.rows[at])) is not None:
                        out_RV = out_RV if out_RV is not None else logits_TV.new_empty(len(places), logits_TV.shape[-1])
                        out_RV[place] = logits_TV[number]
        if out_RV is None:
            vocabulary = int(self.model.config.get_text_config().vocab_size)
            return torch.empty(0, vocabulary, device=self.device)
        return out_RV

    def _segments(self, batch: Batch) -> Iterator[_Segment]:
        """The rows of a batch, cut wherever another branch goes on, in a safe order."""
        for number, family in enumerate(batch.families):
            base = len(family.slots) - len(family.rows)
            first = int(family.rows[0]) - base
            made: dict[int, _Segment] = {}  # by index of its last token
            start = base
            for end in range(base + 1, len(family.slots) + 1):
                if end < len(family.slots) and self._goes_on(family, start, end):
                    continue
                segment = _segment(family, number, start, end, first)
                at = _before(family, start)
                if at >= base:
                    segment.turn = made[at].turn + 1
                made[end - 1] = segment
                yield segment
                start = end

    def _goes_on(self, family: Family, start: int, end: int) -> bool:
        """Whether the token at `end` belongs to the segment that begins at `start`."""
        together = family.owners[end] == family.owners[end - 1] and family.positions[end] == family.positions[end - 1] + 1
        return bool(together) and (self.chunked or family.positions[start] == 0)

    def _call(
        self,
        batch: Batch,
        segments: list[_Segment],
        length: int,
        done: list[NDArray[np.bool_]],
        places: dict[int, int],
        *,
        begin: bool,
    ) -> tuple[Tensor, list[int]]:
        """Advance branches that do not see each other by `length` tokens; returns logits [B, W, V], and which W of the T."""
        rows = [row for segment in segments for row in segment.rows]
        row_N = torch.tensor(rows)
        families = list(_families(batch, segments, done))
        part = Batch(batch.token_N[row_N], batch.position_N[row_N], batch.slot_N[row_N], families, [])
        config = self.model.config.get_text_config()
        states = [] if begin else [self._states[segment.before] for segment in segments if segment.before is not None]
        cache = StateCache(config, states)
        wanted = sorted({at for segment in segments for at, row in enumerate(segment.rows) if row in places}) or [length - 1]
        context = self.plan(part)
        with within(context):
            output = self.model(
                input_ids=self._send(part.token_N).view(-1, length),
                position_ids=self._send(part.position_N).view(-1, length),
                use_cache=True,
                logits_to_keep=self._send(torch.tensor(wanted)),
                tree_context=context,
                **{self._cache_name: cache},
            )
        for segment, state in zip(segments, cache.split(len(segments)), strict=True):
            if segment.own is not None:
                self._states.pop(segment.own, None)
                if segment.before is not None:
                    self._states.pop(segment.before, None)  # a path whose parent has gone on from it
            self._states[int(batch.slot_N[segment.rows[-1]])] = state
        logits_BTV: Tensor = output.logits.float()
        return logits_BTV, wanted

    @torch.inference_mode()
    def _probe(self) -> int:
        """Run a short text at once, in two parts and token by token, to learn what the model needs and whether it is the same.

        Raises:
            ModelError: the model cannot be continued from its state.
        """
        kind = f"{self.name!r} (model type {self.model.config.model_type!r})"
        if not {"past_key_values", "cache_params"} & set(signature(self.model.forward).parameters):
            raise ModelError(f"{kind} takes no cache, so it cannot be run branch by branch: choose another model")
        try:
            whole, pool = self._trial((_PROBE_TOKENS,))
            parts, _ = self._trial((2, _PROBE_TOKENS - 2))
            single, _ = self._trial((1,) * _PROBE_TOKENS)
        except (AttributeError, TypeError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise ModelError(f"{kind} cannot be run branch by branch: {first_line(error)}; choose another model") from error
        exact = self.model.dtype == torch.float32  # elsewhere rounding adds up over the layers
        if not _close(whole, single, 1e-3 if exact else 0.25):
            raise ModelError(
                f"{kind} computes a token otherwise when it goes on from its cache: it keeps a state that transformers' cache "
                f"does not carry, so it cannot be forked; choose another model"
            )
        self.chunked = _close(whole, parts, 1e-3 if exact else 0.1)
        self.state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in whole[1:])
        return max(pool.bytes_per_slot, _LEAST_BYTES)

    def _trial(self, lengths: tuple[int, ...]) -> tuple[list[Tensor], KVPool]:
        """Logits and states behind a short text that is read in parts of these lengths; its keys and values."""
        backend = copy(self)
        backend.pool, backend._states, backend.chunked = KVPool(max(PROBE_SLOTS, _PROBE_TOKENS)), {}, True
        logits_RV, end = torch.empty(0), 0
        for length in lengths:
            start, end = end, end + length
            at = np.arange(end)
            family = Family(np.arange(length), at, at, np.zeros(end, dtype=np.int64), np.ones((1, 1), dtype=bool))
            place = torch.arange(start, end)
            logits_RV = backend.run(Batch(place % 3, place, place, [family], [length - 1]))
        return [logits_RV, *tensors_of(backend._states[end - 1])], backend.pool


def _before(family: Family, start: int) -> int:
    """Index of the token before this one in its line of text; -1 at the beginning of the line."""
    seen = family.visible[family.owners[start]][family.owners[:start]] & (
        family.positions[:start] == family.positions[start] - 1
    )
    found = np.flatnonzero(seen)
    assert len(found) or family.positions[start] == 0, "a token whose predecessor has not been computed"
    return int(found[-1]) if len(found) else -1


def _segment(family: Family, number: int, start: int, end: int, first: int) -> _Segment:
    """The segment of a family's tokens from `start` to `end`; token `i` is row `first + i` of the forward."""
    own = np.flatnonzero(family.owners[:start] == family.owners[start])
    before = _before(family, start)
    return _Segment(
        family=number,
        rows=range(first + start, first + end),
        own=int(family.slots[own[-1]]) if len(own) else None,
        before=int(family.slots[before]) if before >= 0 else None,
        turn=0,
    )


def _families(batch: Batch, segments: list[_Segment], done: list[NDArray[np.bool_]]) -> Iterator[Family]:
    """What the rows of these segments may read: what was computed before, and themselves. Marks them as computed."""
    at = 0
    for number, own in groupby(segments, key=lambda segment: segment.family):
        family = batch.families[number]
        first = int(family.rows[0]) - (len(family.slots) - len(family.rows))
        new = np.array([row - first for segment in own for row in segment.rows])
        order = np.concatenate([np.flatnonzero(done[number]), new])
        done[number][new] = True
        rows = np.arange(at, at + len(new))
        at += len(new)
        yield Family(rows, family.slots[order], family.positions[order], family.owners[order], family.visible)


def _close(one: list[Tensor], other: list[Tensor], tolerance: float) -> bool:
    """Whether two trials agree: no tensor differs by more than this share of its largest number."""
    pairs = ((first.float(), second.float()) for first, second in zip(one, other, strict=True))
    return all(bool((first - second).abs().max() <= tolerance * first.abs().max() + 1e-9) for first, second in pairs)
