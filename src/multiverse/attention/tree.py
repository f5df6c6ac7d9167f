"""The engine's attention: keys and values live in a pool of token-granular slots, and each row reads its branch's slots.

transformers runs the model; only attention is ours. `register()` makes the function known under `TREE_ATTENTION`; the engine
passes a `TreeContext` through the model call, which arrives here unchanged. All rows of a forward, prompts and single
decode tokens of many requests alike, travel as one sequence ``[1, N]``; the context says which row may read which slot.

A backend is anything with `attend`; `SdpaBackend` is the first and runs wherever torch does. What it reads comes in one of two
forms: buckets of padded groups with a mask, or, for a backend that has a planner, plans (see `cascade.py`).

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values where it differs), S slots of
the pool, G groups in a bucket, R rows a group (padded), U slots a group (padded).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..errors import ModelError
from .cascade import Planner
from .work import Work

TREE_ATTENTION = "multiverse_tree"


class KVPool:
    """Keys and values of every layer, one slot a token.

    The memory of a layer is reserved at its first write, when the shapes are known: heads and head sizes are whatever the
    model's own attention hands over, so no table of architectures is needed here.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.key_SKD: dict[int, Tensor] = {}
        self.value_SKV: dict[int, Tensor] = {}

    def layer(self, number: int, key_KD: tuple[int, ...], value_KV: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, of which each slot has these shapes, and the type and device of `like`."""
        if number not in self.key_SKD:
            self.key_SKD[number] = like.new_empty(self.slots, *key_KD)
            self.value_SKV[number] = like.new_empty(self.slots, *value_KV)
        return self.key_SKD[number], self.value_SKV[number]

    def write(self, layer: int, slot_N: Tensor, key_NKD: Tensor, value_NKV: Tensor) -> None:
        """Store keys and values of the rows in their slots."""
        key_SKD, value_SKV = self.layer(layer, key_NKD.shape[1:], value_NKV.shape[1:], key_NKD)
        key_SKD.index_copy_(0, slot_N, key_NKD)
        value_SKV.index_copy_(0, slot_N, value_NKV)

    @property
    def bytes_per_slot(self) -> int:
        """Bytes that one token takes over all layers seen so far."""
        pools = [*self.key_SKD.values(), *self.value_SKV.values()]
        return sum(pool[0].numel() * pool.element_size() for pool in pools)


class Bucket(NamedTuple):
    """Groups of similar size whose attention is one call. A group is the rows of one request and the slots they read.

    Attributes:
        row_GR: row of the forward; padding rows repeat the group's first.
        slot_GU: slot of the pool; padding repeats the group's first slot and is masked.
        visible_GRU: whether the row may read the slot, or `None` when every row reads every slot and nothing is padded.
        real_GR: which rows are not padding, or `None` when all are real.
        row_position_GR, slot_position_GU: positions, for layers with a sliding window.
    """

    row_GR: Tensor
    slot_GU: Tensor
    visible_GRU: Tensor | None
    real_GR: Tensor | None
    row_position_GR: Tensor
    slot_position_GU: Tensor

    def to(self, device: torch.device) -> Bucket:
        """The same on a device."""
        tensors: list[Any] = [None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self]
        return Bucket(*tensors)


class Backend(Protocol):
    """One way of computing the attention of a forward.

    Attributes:
        planner: what lays out the work of rows that are to come as plans; `None` if all are to come in buckets.
    """

    planner: Planner | None

    def arrange(self, buckets: list[Bucket]) -> list[Bucket]:
        """The same groups in the buckets that suit it; asked once a forward."""
        ...

    def attend(self, query_NHD: Tensor, layer: int, context: TreeContext, scale: float, window: int | None) -> Tensor:
        """Attention output [N, H, V] of all rows, each over the slots that it may read.

        Args:
            window: a row reads a slot only if it is less than `window` positions back; `None` for full attention.
        """
        ...


@dataclass
class TreeContext:
    """What attention has to know of one forward. Filled by the engine's batch, read by every layer.

    Attributes:
        works: the rows that came as plans, for each window that layers have; the others are in `buckets`.
    """

    pool: KVPool
    backend: Backend
    slot_N: Tensor
    buckets: list[Bucket]
    works: Mapping[int | None, Work] = field(default_factory=dict)
    layers: set[int] = field(default_factory=set)
    """Layers that came by, so that a model whose layers bypass this attention is found out."""

    @cached_property
    def plans(self) -> list[Plan]:
        """One plan for each bucket that the backend makes of these."""
        return [Plan(bucket, len(self.slot_N)) for bucket in self.backend.arrange(self.buckets)]


class Call(NamedTuple):
    """One layer's attention, as every bucket needs it: the rows, the pools to read, and where the output goes."""

    query_NHD: Tensor
    key_SKD: Tensor
    value_SKV: Tensor
    out_NHV: Tensor
    scale: float
    window: int | None


class SdpaBackend:
    """Gather each group's slots once, then one masked scaled-dot-product attention over all its rows ("union").

    A family's shared prefix is read once for all its branches. Query heads that share a key/value head are folded
    into rows, so keys and values are never repeated.
    """

    planner: Planner | None = None

    def arrange(self, buckets: list[Bucket]) -> list[Bucket]:
        """As they are."""
        return buckets

    def attend(self, query_NHD: Tensor, layer: int, context: TreeContext, scale: float, window: int | None) -> Tensor:
        """As `Backend.attend`, of rows that are in buckets."""
        key_SKD, value_SKV = context.pool.key_SKD[layer], context.pool.value_SKV[layer]
        out_NHV = query_NHD.new_empty(*query_NHD.shape[:2], value_SKV.shape[2])
        self.attend_buckets(Call(query_NHD.contiguous(), key_SKD, value_SKV, out_NHV, scale, window), context)
        return out_NHV

    def attend_buckets(self, call: Call, context: TreeContext) -> None:
        """Write the output of the rows that are in buckets."""
        for plan in context.plans:
            self.attend_bucket(call, plan)

    def attend_bucket(self, call: Call, plan: Plan) -> None:
        """Write the output of one bucket's rows."""
        bucket, (_, heads, size) = plan.bucket, call.query_NHD.shape
        groups, rows = bucket.row_GR.shape
        kv_heads = call.key_SKD.shape[1]
        folds = heads // kv_heads
        # [G, R, K, fold, D] -> [G, K, fold * R, D]
        query = call.query_NHD if plan.in_order else call.query_NHD[bucket.row_GR]
        query = query.view(groups, rows, kv_heads, folds, size).permute(0, 2, 3, 1, 4)
        query = query.reshape(groups, kv_heads, folds * rows, size)
        mask = plan.mask(call.window, folds, query.dtype)
        out = torch.nn.functional.scaled_dot_product_attention(
            query, plan.gather(call.key_SKD), plan.gather(call.value_SKV), attn_mask=mask, scale=call.scale
        )
        out = out.view(groups, kv_heads, folds, rows, -1).permute(0, 3, 1, 2, 4)
        if plan.in_order:
            call.out_NHV.view(groups, rows, kv_heads, folds, -1).copy_(out)
            return
        out = out.reshape(groups, rows, heads, -1)
        if bucket.real_GR is None:
            call.out_NHV[bucket.row_GR] = out
        else:
            call.out_NHV[bucket.row_GR[bucket.real_GR]] = out[bucket.real_GR]


class Plan:
    """What is the same for a bucket in every layer, worked out once a forward.

    Attributes:
        bucket: whose plan it is.
        in_order: the bucket holds the forward's rows just as they come, so none has to be picked or put back.
        run: first of the slots where they are consecutive, so that a slice takes the place of a gather.
    """

    def __init__(self, bucket: Bucket, rows: int) -> None:
        self.bucket = bucket
        self.in_order = False
        self.run: int | None = None
        self._visible: dict[int | None, Tensor | None] = {}
        self._masks: dict[int | None, Tensor | None] = {}
        if bucket.row_GR.device.type == "cpu":  # elsewhere, to ask is to wait for the device
            self.in_order = bucket.row_GR.numel() == rows and bool((bucket.row_GR.flatten() == torch.arange(rows)).all())
            if len(bucket.slot_GU) == 1:
                first, count = int(bucket.slot_GU[0, 0]), bucket.slot_GU.shape[1]
                if bool((bucket.slot_GU[0] == torch.arange(first, first + count)).all()):
                    self.run = first

    def gather(self, pool_SKD: Tensor) -> Tensor:
        """The groups' slots of a pool: [G, K, U, D]."""
        groups, width = self.bucket.slot_GU.shape
        if self.run is not None:
            return pool_SKD[None, self.run : self.run + width].transpose(1, 2)
        gathered = pool_SKD.index_select(0, self.bucket.slot_GU.flatten())
        return gathered.view(groups, width, *pool_SKD.shape[1:]).transpose(1, 2)

    def visible(self, window: int | None) -> Tensor | None:
        """Which slot each row may read [G, R, U]; `None` when every row reads every slot."""
        if window not in self._visible:
            bucket = self.bucket
            visible_GRU = bucket.visible_GRU
            if window is not None:
                near_GRU = bucket.row_position_GR[:, :, None] - bucket.slot_position_GU[:, None, :] < window
                visible_GRU = near_GRU if visible_GRU is None else near_GRU & visible_GRU
            self._visible[window] = None if visible_GRU is None else visible_GRU.contiguous()
        return self._visible[window]

    def mask(self, window: int | None, folds: int, dtype: torch.dtype) -> Tensor | None:
        """The same as something to add to the scores [G, 1, fold * R, U]."""
        if window not in self._masks:
            mask, visible_GRU = None, self.visible(window)
            if visible_GRU is not None:
                groups, rows, width = visible_GRU.shape
                mask = torch.zeros(visible_GRU.shape, dtype=dtype, device=visible_GRU.device)
                mask = mask.masked_fill_(~visible_GRU, -torch.inf)[:, None, None]
                mask = mask.expand(groups, 1, folds, rows, width).reshape(groups, 1, folds * rows, width)
            self._masks[window] = mask
        return self._masks[window]


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  (always None: who may see whom is in the context)
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001  (inference only)
    *,
    tree_context: TreeContext | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer: `query` [1, H, N, D], `key` and `value` [1, K, N, D], RoPE applied.

    Raises:
        ModelError: the model was called without a context, or asks for something that this attention does not compute.
    """
    if tree_context is None:
        raise ModelError(
            "tree attention runs inside the engine only: load the model through multiverse.LLM, or with another attention"
        )
    for name in ("softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise ModelError(
                f"{type(module).__name__} uses {name!r}, which tree attention cannot compute: choose a model without it"
            )
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    tree_context.layers.add(layer)
    query_NHD, key_NKD, value_NKV = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    tree_context.pool.write(layer, tree_context.slot_N, key_NKD, value_NKV)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return tree_context.backend.attend(query_NHD, layer, tree_context, scale, sliding_window)[None], None


def register() -> str:
    """Make the attention known to transformers; returns its name."""
    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    return TREE_ATTENTION
