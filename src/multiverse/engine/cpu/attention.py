"""Tree attention by the native kernel: few rows over slots wherever they lie, without gathering them first."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ...attention.tree import Bucket, Call, Plan, SdpaBackend
from .build import Attend

# Rows of a group up to which the kernel is used: so many were timed, and faster. Prompts are gathered for matrix products.
FEW_ROWS = 16


class NativeBackend(SdpaBackend):
    """Leaves groups of many rows, and types and sizes that the kernel does not know, to torch.

    Which of the two computes a group goes by the group alone, and buckets are split to that end: what a request
    gets must not depend on its neighbours.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._run = library.multiverse_attend

    def arrange(self, buckets: list[Bucket]) -> list[Bucket]:
        """Groups of few rows apart from the others."""
        arranged: list[Bucket] = []
        for bucket in buckets:
            if bucket.real_GR is None or bucket.row_GR.shape[1] <= FEW_ROWS:
                arranged.append(bucket)
                continue
            rows_G = bucket.real_GR.sum(1)
            few_G = rows_G <= FEW_ROWS
            if few_G.any():
                arranged.append(_part(bucket, few_G, int(rows_G[few_G].max())))
            if not few_G.all():
                arranged.append(_part(bucket, ~few_G, bucket.row_GR.shape[1]))
        return arranged

    def attend_bucket(self, call: Call, plan: Plan) -> None:
        """Write the output of one bucket's rows."""
        bucket, (_, heads, size) = plan.bucket, call.query_NHD.shape
        groups, rows = bucket.row_GR.shape
        kv_heads, value_size = call.value_SKV.shape[1:]
        known = call.query_NHD.dtype == call.key_SKD.dtype == torch.bfloat16 and size % 32 == 0 and value_size % 16 == 0
        if rows > FEW_ROWS or not known:
            super().attend_bucket(call, plan)
            return
        visible_GRU = plan.visible(call.window)
        self._run(
            Attend(
                call.query_NHD.data_ptr(),
                call.key_SKD.data_ptr(),
                call.value_SKV.data_ptr(),
                call.out_NHV.data_ptr(),
                bucket.row_GR.data_ptr(),
                bucket.slot_GU.data_ptr(),
                None if visible_GRU is None else visible_GRU.data_ptr(),
                *(heads, kv_heads, size, value_size, groups, rows, bucket.slot_GU.shape[1]),
                call.scale,
            )
        )


def _part(bucket: Bucket, chosen_G: Tensor, rows: int) -> Bucket:
    """Some of a bucket's groups, and of each its first rows."""
    return Bucket(
        row_GR=bucket.row_GR[chosen_G, :rows].contiguous(),
        slot_GU=bucket.slot_GU[chosen_G],
        visible_GRU=None if bucket.visible_GRU is None else bucket.visible_GRU[chosen_G, :rows],
        real_GR=None if bucket.real_GR is None else bucket.real_GR[chosen_G, :rows],
        row_position_GR=bucket.row_position_GR[chosen_G, :rows],
        slot_position_GU=bucket.slot_position_GU[chosen_G],
    )
