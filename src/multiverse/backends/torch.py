"""The backend that runs wherever torch does: masked scaled-dot-product attention over padded groups.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values where it differs), S slots of
the pool, G groups in a bucket, R rows a group (padded), U slots a group (padded).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .base import Backend, ForwardContext
from .batch import Batch
from .buckets import BucketPlan, build_buckets
from .invariant.attention import CHUNK, TILE_ROWS, PaddedTiles, TilePlans, attend_padded
from .invariant.modules import make_invariant
from .kv_pool import Call

CPU = torch.device("cpu")


class TorchBackend(Backend):
    """Gathers each group's slots once, then one attention call over all rows of a bucket.

    A shared prefix is read once for all branches of a request. Query heads that share a key/value head are folded into
    rows, so keys and values are never repeated.

    Deterministic, it computes tiles of fixed size instead (`invariant/`).
    """

    split_rows = 0
    """As in `build_buckets`."""
    chunk, tile_rows = CHUNK, TILE_ROWS
    """As in `plan_tiles`, if deterministic."""

    def __init__(self, device: torch.device = CPU, *, deterministic: bool = False) -> None:
        super().__init__(device, deterministic=deterministic)

    def prepare(self, model: Any, name: str) -> None:
        """As `Backend.prepare`."""
        super().prepare(model, name)
        self.replace_modules(model)

    def replace_modules(self, model: Any) -> None:
        """Replace modules of a model by faster ones, or by deterministic ones, in place."""
        if self.deterministic:
            make_invariant(model)

    def plan(self, batch: Batch) -> ForwardContext:
        """All rows in tiles, if deterministic, or else in buckets."""
        if self.deterministic:
            plans = TilePlans(batch.families, len(batch.token_N), chunk=self.chunk, tile_rows=self.tile_rows)
            return ForwardContext(self.pool, self, self._send(batch.slot_N), [], plans=plans)
        buckets = [bucket.to(self.device) for bucket in build_buckets(batch.families, self.split_rows)]
        return ForwardContext(self.pool, self, self._send(batch.slot_N), buckets)

    def attend(self, query_NHD: Tensor, layer: int, context: ForwardContext, scale: float, window: int | None) -> Tensor:
        """As `Backend.attend`."""
        key_SKD, value_SKV = context.pool.key_SKD[layer], context.pool.value_SKV[layer]
        out_NHV = query_NHD.new_empty(*query_NHD.shape[:2], value_SKV.shape[2])
        call = Call(query_NHD.contiguous(), key_SKD, value_SKV, out_NHV, scale, window)
        if context.plans is None:
            self.attend_buckets(call, context)
        else:
            for tiles in context.plans.of(window):
                self.attend_tiles(call, tiles)
        return out_NHV

    def attend_tiles(self, call: Call, tiles: PaddedTiles) -> None:
        """Write the output of the rows of a plan."""
        attend_padded(call, tiles)

    def attend_buckets(self, call: Call, context: ForwardContext) -> None:
        """Write the output of the rows that are in buckets."""
        for plan in context.bucket_plans:
            self.attend_bucket(call, plan)

    def attend_bucket(self, call: Call, plan: BucketPlan) -> None:
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
        key, value = plan.gather(call.key_SKD), plan.gather(call.value_SKV)
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=call.scale)
        out = out.view(groups, kv_heads, folds, rows, -1).permute(0, 3, 1, 2, 4)
        if plan.in_order:
            call.out_NHV.view(groups, rows, kv_heads, folds, -1).copy_(out)
            return
        out = out.reshape(groups, rows, heads, -1)
        if bucket.real_GR is None:
            call.out_NHV[bucket.row_GR] = out
        else:
            call.out_NHV[bucket.row_GR[bucket.real_GR]] = out[bucket.real_GR]
