"""The bits of a GGUF file in place of a model's plain weights, which were converted from the same file.

Where a matrix of the file stands for exactly the weights of a layer, rounding aside, the layer takes its codes. llama.cpp keeps
rows of queries and keys of Llama in another order; it is found by trying. Layers of which the file has no such matrix keep
their plain weights.

Shape legend: N rows, K columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...models.gguf_blocks import Blocks, FileBlocks, in_order
from .quantised_linears import replace_layers
from .quantised_weight import QuantisedWeight, packed

_TRIED = 64
"""Rows that are compared."""
_ROUNDING = 2**-7
"""Most that a number may differ, in parts of the largest of its row: it was rounded to bfloat16."""


def take_file(model: Any, blocks: FileBlocks, device: torch.device) -> int:
    """Replace the linear layers of a model by ones with the file's codes, if it will run on a CPU; returns their number."""
    if not blocks or device.type != "cpu":
        return 0
    config = model.config.get_text_config()
    heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads

    def quantise(name: str, weight_NK: Tensor) -> QuantisedWeight | None:
        found = blocks(name)
        if found is None or found.codes.shape != weight_NK.shape:
            return None
        orders = [None, *(_order(len(weight_NK), count) for count in heads if len(weight_NK) % (2 * count) == 0)]
        return next((own for order in orders if (own := _fitting(found, order, weight_NK)) is not None), None)

    return replace_layers(model, quantise)


def _order(rows: int, heads: int) -> Any:
    """Where llama.cpp has the rows of so many heads: the two halves that are rotated together stand in turn."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _fitting(blocks: Blocks, order: Any, weight_NK: Tensor) -> QuantisedWeight | None:
    """The blocks with their rows in this order, if they stand for this weight."""
    tried = np.unique(np.linspace(0, len(weight_NK) - 1, _TRIED).astype(np.intp))
    expected_NK = weight_NK[torch.from_numpy(tried)].float()
    few = _packed(in_order(blocks, tried if order is None else order[tried]), weight_NK.dtype)
    limit_N1 = _ROUNDING * expected_NK.abs().amax(-1, keepdim=True)
    if not bool(((few.dequantised() - expected_NK).abs() <= limit_N1).all()):
        return None
    return _packed(blocks if order is None else in_order(blocks, order), weight_NK.dtype)


def _packed(blocks: Blocks, dtype: torch.dtype) -> QuantisedWeight:
    mins = None if blocks.mins is None else torch.from_numpy(blocks.mins)
    codes, scales = torch.from_numpy(blocks.codes), torch.from_numpy(blocks.scales)
    return packed(codes, scales, mins, bits=blocks.bits, dtype=dtype)
