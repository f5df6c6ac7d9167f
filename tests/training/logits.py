"""Logits of tokens with loss, from a plain forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from multiverse.attention.packed import Kind
from multiverse.training import IGNORED
from multiverse.training.batch import Batch, forward_inputs


def answer_logits(model: Any, batch: Batch, share_every: int | None = None, kind: Kind = "dense") -> tuple[Tensor, Tensor]:
    """Logits [B, N, V] at the columns where some row has loss, and their targets [B, N], `IGNORED` where a row has none."""
    targets_BL = batch["labels"][:, 1:]
    columns_N = (targets_BL != IGNORED).any(0).nonzero().squeeze(1)
    output = model(**forward_inputs(batch, share_every, kind), use_cache=False, logits_to_keep=columns_N)
    return output.logits.float(), targets_BL[:, columns_N]
