"""A transformers model's modules replaced, in place, by ones whose result for a row has the same bits in every batch.

Torch's kernels compute most elements of a tensor by vector instructions and the last few, of each thread's share, one by one;
for exponentials, sines and their like the two differ in the last bit. So these are called on pieces that one thread computes
and that leave nothing over.

Shape legend: N rows of the forward, D rotary size; leading dimensions are free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2CLS

from ..plain import is_plain_linear
from .linears import MakeLinear, invariant_linear

_PIECE = 1 << 15
"""Elements that torch computes in one thread."""
_WHOLE = 64
"""A multiple of the elements that an instruction, unrolled, takes: of 512 bits, two at a time, in 16-bit types."""

_entries = [entry[0] if isinstance(entry, tuple) else entry for entry in ACT2CLS.values()]
_ACTIVATIONS = tuple({entry for entry in _entries if isinstance(entry, type)})


def elementwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function applied to every element, whose result does not depend on the element's place or on the tensor's size."""
    count = x.numel()
    if x.device.type != "cpu":  # every element is computed alike
        return function(x)
    if count <= _PIECE and count % _WHOLE == 0:
        return function(x.contiguous())
    flat = x.new_zeros(-(-count // _WHOLE) * _WHOLE)
    flat[:count] = x.reshape(-1)
    return torch.cat([function(piece) for piece in flat.split(_PIECE)])[:count].view(x.shape)


class InvariantActivation(nn.Module):
    """An activation of an MLP."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return elementwise(self.activation, x)


class InvariantRotary(nn.Module):
    """Rotary embeddings: the cosines and sines of a model's positions.

    They depend on no other position of the forward: longrope is computed row by row (see `rotary.py`), and texts end where
    dynamic embeddings would begin to change.
    """

    def __init__(self, rotary: Any) -> None:
        super().__init__()
        self.rotary = rotary

    def forward(self, x: Tensor, position_ids: Tensor, **options: Any) -> Any:
        """Cosines and sines [1, N, D] for positions [1, N], in the dtype of `x`."""
        if x.device.type != "cpu":
            return self.rotary(x, position_ids, **options)
        rows = position_ids.shape[1]
        cos, sin = self.rotary(x, position_ids[:, :1], **options)
        size = cos.shape[-1]
        if rows * size <= _PIECE and rows * size % _WHOLE == 0:
            return self.rotary(x, position_ids, **options)
        padded = position_ids.new_zeros(1, -(-rows // _WHOLE) * _WHOLE)
        padded[:, :rows] = position_ids
        pieces = [self.rotary(x, part, **options) for part in padded.split(max(1, _PIECE // size // _WHOLE) * _WHOLE, dim=1)]
        cos, sin = (torch.cat(parts, dim=1)[:, :rows] for parts in zip(*pieces, strict=True))
        return cos, sin


def make_invariant(model: nn.Module, make_linear: MakeLinear = invariant_linear) -> None:
    """Replace the modules whose results may depend on the batch.

    Args:
        make_linear: the replacement of a linear layer.
    """
    replaced: dict[int, nn.Module] = {}  # a module may have several names
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if not path:
            continue
        if id(module) not in replaced:
            if type(module) in _ACTIVATIONS:
                replaced[id(module)] = InvariantActivation(module)
            elif type(module).__name__.endswith("RotaryEmbedding"):
                replaced[id(module)] = InvariantRotary(module)
            elif is_plain_linear(module):
                replaced[id(module)] = make_linear(module)
            else:
                continue
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, replaced[id(module)])
