"""The engine's attention: keys and values live in a pool of token-granular slots, and each row reads its branch's slots.

transformers runs the model; only attention is ours. `register()` makes the function known under `TREE_ATTENTION`; the engine
passes a `TreeContext` through the model call, which arrives here unchanged. All rows of a forward, prompts and single
decode tokens of many requests alike, travel as one sequence ``[1, N]``; the context says which row may read which slot.

A backend is anything with `attend`; `SdpaBackend` is the first and runs wherever torch does.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values where it differs), S slots of
the pool, G groups in a bucket, R rows a group (padded), U slots a group (padded).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..errors import ModelError

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

    def write(self, layer: int, slot_N: Tensor, key_NKD: Tensor, value_NKV: Tensor) -> None:
        """Store keys and values of the rows in their slots."""
        if layer not in self.key_SKD:
            self.key_SKD[layer] = key_NKD.new_empty(self.slots, *key_NKD.shape[1:])
            self.value_SKV[layer] = value_NKV.new_empty(self.slots, *value_NKV.shape[1:])
        self.key_SKD[layer].index_copy_(0, slot_N, key_NKD)
        self.value_SKV[layer].index_copy_(0, slot_N, value_NKV)

    @property
    def bytes_per_slot(self) -> int:
        """Bytes that one token takes over all layers seen so far."""
        pools = [*self.key_SKD.values(), *self.value_SKV.values()]
        return sum(pool[0].numel() * pool.element_size() for pool in pools)


class Bucket(NamedTuple):
    """Groups of similar size whose attention is one call. A group is the rows of one request and the slots they read.

    Attributes:
        row_GR: row of the forward; padding rows repeat the group's first.
        slot_GU: slot of the pool; padding slots repeat slot 0 and are masked.
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


class Backend(Protocol):
    """One way of computing the attention of a forward."""

    def attend(self, query_NHD: Tensor, layer: int, context: TreeContext, scale: float, window: int | None) -> Tensor:
        """Attention output [N, H, V] of all rows, each over the slots that it may read.

        Args:
            window: a row reads a slot only if it is less than `window` positions back; `None` for full attention.
        """
        ...


@dataclass
class TreeContext:
    """What attention has to know of one forward. Filled by the engine's batch, read by every layer."""

    pool: KVPool
    backend: Backend
    slot_N: Tensor
    buckets: list[Bucket]
    layers: set[int] = field(default_factory=set)
    """Layers that came by, so that a model whose layers bypass this attention is found out."""


class SdpaBackend:
    """Gather each group's slots once, then one masked scaled-dot-product attention over all its rows ("union").

    A family's shared prefix is read once for all its branches. Query heads that share a key/value head are folded
    into rows, so keys and values are never repeated.
    """

    def attend(self, query_NHD: Tensor, layer: int, context: TreeContext, scale: float, window: int | None) -> Tensor:
        key_SKD, value_SKV = context.pool.key_SKD[layer], context.pool.value_SKV[layer]
        heads, kv_heads = query_NHD.shape[1], key_SKD.shape[1]
        out_NHV = query_NHD.new_empty(query_NHD.shape[0], heads, value_SKV.shape[2])
        for bucket in context.buckets:
            groups, rows = bucket.row_GR.shape
            folds = heads // kv_heads
            # [G, R, K, fold, D] -> [G, K, fold * R, D]
            query = query_NHD[bucket.row_GR].view(groups, rows, kv_heads, folds, -1)
            query = query.permute(0, 2, 3, 1, 4).reshape(groups, kv_heads, folds * rows, -1)
            key = key_SKD.index_select(0, bucket.slot_GU.flatten()).view(groups, -1, *key_SKD.shape[1:]).transpose(1, 2)
            value = value_SKV.index_select(0, bucket.slot_GU.flatten()).view(groups, -1, *value_SKV.shape[1:]).transpose(1, 2)
            mask = _windowed(bucket, window)
            if mask is not None:
                mask = mask[:, None, None].expand(groups, 1, folds, rows, -1).reshape(groups, 1, folds * rows, -1)
            out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
            out = out.view(groups, kv_heads, folds, rows, -1).permute(0, 3, 1, 2, 4).reshape(groups, rows, heads, -1)
            if bucket.real_GR is None:
                out_NHV[bucket.row_GR] = out
            else:
                out_NHV[bucket.row_GR[bucket.real_GR]] = out[bucket.real_GR]
        return out_NHV


def _windowed(bucket: Bucket, window: int | None) -> Tensor | None:
    if window is None:
        return bucket.visible_GRU
    near_GRU = bucket.row_position_GR[:, :, None] - bucket.slot_position_GU[:, None, :] < window
    return near_GRU if bucket.visible_GRU is None else near_GRU & bucket.visible_GRU


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
