"""Rotary embeddings that depend on the length of the text, computed row by row.

transformers chooses the factors of longrope by the highest position in the forward, and a forward holds rows of many texts.
Here every row says which it is rotated with: the engine adds `LONG` to the positions of a text that has outgrown the short
factors.

Shape legend: N rows of the forward, D rotary size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.rope import LONG, short_positions

_BEYOND = 64
"""Positions appended to make a forward long: a multiple of what one instruction computes (see `invariant/modules.py`)."""


class RowwiseRotaryEmbedding(nn.Module):
    """A longrope embedding of transformers, which computes both ways; each row takes its own.

    Args:
        short: number of positions of the texts that are rotated with the short factors.
    """

    def __init__(self, rotary: nn.Module, short: int) -> None:
        super().__init__()
        self._rotary = (rotary,)  # not a child, so that nothing else replaces it
        self._short = short

    def forward(self, x: Tensor, position_ids: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1, N, D] for positions [1, N], some of them raised by `LONG`, in the dtype of `x`."""
        (rotary,) = self._rotary
        long_1N = position_ids >= LONG
        position_1N = position_ids - long_1N * LONG
        near = rotary(x, position_1N.clamp(max=self._short - 1), **options)
        beyond = position_1N.new_full((1, _BEYOND), self._short)
        far = rotary(x, torch.cat([position_1N, beyond], dim=1), **options)
        rows, which_1N1 = position_1N.shape[1], long_1N[:, :, None]
        cos, sin = (torch.where(which_1N1, b[:, :rows], a) for a, b in zip(near, far, strict=True))
        return cos, sin


def split_rotary(model: Any, name: str) -> int | None:
    """Replace a model's longrope embeddings, in place; returns `short_positions` of it.

    Raises:
        ModelError: as `short_positions`.
    """
    short = short_positions(model.config, name)
    if short is not None:
        for path, module in list(model.named_modules()):
            if _is_longrope(module):
                parent, _, child = path.rpartition(".")
                setattr(model.get_submodule(parent), child, RowwiseRotaryEmbedding(module, short))
    return short


def _is_longrope(module: nn.Module) -> bool:
    kind: Any = getattr(module, "rope_type", None)
    return "longrope" in (kind.values() if isinstance(kind, dict) else (kind,))
