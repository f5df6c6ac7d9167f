"""The backend of models that cap their attention scores (Gemma 2): eager attention, since torch's own has no cap.

Shape legend: as in `torch.py`.
"""

from __future__ import annotations

import torch

from .buckets import BucketPlan
from .kv_pool import Call
from .torch import TorchBackend


class CappedBackend(TorchBackend):
    """Scores go through ``cap * tanh(score / cap)`` before the mask.

    Keys and values could be joined, but no model is trained for that here: packed attention has no cap. So paths are read
    again, in contexts that the model knows, unless another join is asked for.

    Args:
        softcap: the cap, the same in all layers.
    """

    rereads = True

    def __init__(self, device: torch.device, softcap: float) -> None:
        super().__init__(device)
        self.softcap = self._cap = softcap

    def attend_bucket(self, call: Call, plan: BucketPlan) -> None:
        """As `TorchBackend.attend_bucket`, with capped scores."""
        bucket, (_, heads, size) = plan.bucket, call.query_NHD.shape
        groups, rows = bucket.row_GR.shape
        kv_heads = call.key_SKD.shape[1]
        folds = heads // kv_heads
        query = call.query_NHD[bucket.row_GR].view(groups, rows, kv_heads, folds, size).permute(0, 2, 3, 1, 4)
        query = query.reshape(groups, kv_heads, folds * rows, size)
        key, value = plan.gather(call.key_SKD), plan.gather(call.value_SKV)
        scores = (query @ key.transpose(-1, -2)) * call.scale
        scores = self._cap * torch.tanh(scores / self._cap)
        mask = plan.mask(call.window, folds, query.dtype)
        scores = scores if mask is None else scores + mask
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        out = (weights @ value).view(groups, kv_heads, folds, rows, -1).permute(0, 3, 1, 2, 4).reshape(groups, rows, heads, -1)
        if bucket.real_GR is None:
            call.out_NHV[bucket.row_GR] = out
        else:
            call.out_NHV[bucket.row_GR[bucket.real_GR]] = out[bucket.real_GR]
