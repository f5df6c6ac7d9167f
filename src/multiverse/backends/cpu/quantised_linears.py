"""Linear layers and embeddings of a model replaced, in place, by ones whose weights have 8 or 4 bits.

Few rows are multiplied as they are by the native kernels, which round them to 8 bits, block by block; more rows are multiplied
by weights that are turned into numbers for a moment, a few at a time. Without a compiler all rows are.

Shape legend: M rows, K inputs, N outputs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ...attention.joinable import is_stateful
from ...errors import ModelError
from ...models.quantised import quantisation
from ..plain import is_plain_linear
from .build import Product, quantised_kernels
from .packed_linears import with_padded_rows
from .quantised_weight import Bits, QuantisedWeight, quantised

BITS: dict[str, Bits] = {"int8": 8, "int4": 4}
FEW_ROWS = 128
"""Rows up to which the kernels multiply codes, with AVX-512 and VNNI the faster way up to here (docs/quantisation.md)."""
_CHUNK = 1 << 19
"""Numbers that weights are turned into at a time: they stay in a core's cache."""
_LEFT_ALONE = frozenset({"gate", "router"})
"""Names of layers that choose experts: small, and choices should stay as they are."""


class QuantisedLinear(nn.Module):
    """Drop-in for `nn.Linear` in inference on CPU.

    Attributes:
        invariant: whether a row's result has to have the same bits in any batch.
    """

    def __init__(self, weight: QuantisedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight, self.invariant = weight, False
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., K]``."""
        x_MK = x.reshape(-1, x.shape[-1])
        y_MN = multiply(x_MK, self.weight, self.bias, invariant=self.invariant)
        return y_MN.view(*x.shape[:-1], y_MN.shape[1])


class QuantisedEmbedding(nn.Module):
    """Drop-in for `nn.Embedding` in inference on CPU."""

    def __init__(self, weight: QuantisedWeight) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = weight.shape
        self.weight = weight

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of these tokens."""
        return self.weight.rows(ids).to(self.weight.dtype)


def multiply(
    x_MK: Tensor,
    weight: QuantisedWeight,
    bias: Tensor | None = None,
    residual_MN: Tensor | None = None,
    *,
    gated: bool = False,
    invariant: bool = False,
) -> Tensor:
    """``x w^T + bias``, or with a gate ``silu(a) * b`` of its two halves, plus the residual.

    Args:
        invariant: give a row the same bits whatever the other rows are. Needs the kernels.
    """
    library = quantised_kernels()
    if x_MK.dtype not in (torch.bfloat16, torch.float32):
        assert residual_MN is None
        wide = None if bias is None else bias.float()
        return multiply(x_MK.float(), weight, wide, gated=gated, invariant=invariant).to(x_MK.dtype)
    if library is not None and (invariant or 0 < len(x_MK) <= FEW_ROWS):
        return _by_codes(library, x_MK.contiguous(), weight, bias, residual_MN, gated=gated)
    y_MN = with_padded_rows(x_MK, lambda x_MK: _by_numbers(library, x_MK, weight, bias))
    if gated:
        first_MN, second_MN = y_MN.chunk(2, -1)
        y_MN = nn.functional.silu(first_MN).mul_(second_MN)
    return y_MN if residual_MN is None else y_MN.add_(residual_MN)


def _by_codes(
    library: ctypes.CDLL, x_MK: Tensor, weight: QuantisedWeight, bias: Tensor | None, residual_MN: Tensor | None, *, gated: bool
) -> Tensor:
    rows, outputs = len(x_MK), len(weight) // 2 if gated else len(weight)
    y_MN = x_MK.new_empty(rows, outputs)
    residual = None if residual_MN is None else residual_MN.contiguous()
    given = x_MK, bias, residual, y_MN, weight.codes_GBQ64, weight.scales_GS16, weight.mins_GS16
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in given]
    form = weight.bits, weight.block, outputs, int(gated), int(x_MK.dtype == torch.float32)
    if rows:
        library.multiverse_quantised(Product(*pointers, rows, x_MK.shape[1], len(weight), *form))
    return y_MN


def _by_numbers(library: ctypes.CDLL | None, x_MK: Tensor, weight: QuantisedWeight, bias: Tensor | None) -> Tensor:
    outputs, inputs = weight.shape
    y_MN, step = x_MK.new_empty(len(x_MK), outputs), max(16, _CHUNK // inputs // 16 * 16)
    for begin in range(0, outputs, step):
        end = min(begin + step, outputs)
        own = None if bias is None else bias[begin:end]
        y_MN[:, begin:end] = nn.functional.linear(x_MK, numbers(library, weight, begin, end, x_MK.dtype), own)
    return y_MN


def numbers(library: ctypes.CDLL | None, weight: QuantisedWeight, begin: int, end: int, dtype: torch.dtype) -> Tensor:
    """Some rows of a matrix in the numbers that the codes stand for, rounded to this type; `begin` is a multiple of 16."""
    if library is None or dtype not in (torch.bfloat16, torch.float32):
        return weight.rows(torch.arange(begin, end)).to(dtype)
    out_NK = torch.empty(end - begin, weight.shape[1], dtype=dtype)
    group = begin // 16
    given = weight.codes_GBQ64, weight.scales_GS16, weight.mins_GS16
    pointers = [None if tensor is None else tensor[group:].data_ptr() for tensor in given]
    form = weight.bits, weight.block, 0, 0, int(dtype == torch.float32)
    library.multiverse_dequantise(
        Product(None, None, None, out_NK.data_ptr(), *pointers, 0, weight.shape[1], len(out_NK), *form)
    )
    return out_NK


def check_quantisable(config: Any, name: str, quantize: str, device: torch.device, tensor_parallel: int) -> None:
    """Raise ModelError if a model cannot have quantised weights."""
    what, method = f"quantize={quantize!r}", quantisation(config)
    if device.type != "cpu":
        raise ModelError(f"{what} is for a CPU, and {name!r} would run on {device}: use device='cpu', or leave quantize out")
    if tensor_parallel > 1:
        raise ModelError(f"{what} does not go with tensor_parallel={tensor_parallel}: use tensor_parallel=1")
    if method is not None:
        raise ModelError(
            f"{what} does not go with {name!r}, whose weights are quantised already ({method}): leave quantize out"
        )
    if is_stateful(config):
        kind = config.model_type
        raise ModelError(
            f"{what} does not go with recurrent or linear-attention layers, as {name!r} has them ({kind}): leave it out"
        )


Quantise = Callable[[str, Tensor], QuantisedWeight | None]
"""The quantised form of the weight of the layer of this name; `None` leaves it as it is."""


def quantise_model(model: Any, bits: Bits) -> int:
    """Replace the linear layers of a CPU model by ones of so many bits; returns their number.

    The head has 8 bits always, and so has an embedding that shares its weights.

    Raises:
        ModelError: the model has no linear layers that can be replaced.
    """
    head = model.get_output_embeddings()
    heads = {id(head.weight)} if head is not None else set()
    replaced = replace_layers(model, lambda _, weight: quantised(weight, 8 if id(weight) in heads else bits))
    if not replaced:
        kind = model.config.model_type
        raise ModelError(f"no linear layer of this model (type {kind!r}) can be quantised: leave quantize out")
    return replaced


@torch.inference_mode()
def replace_layers(model: Any, quantise: Quantise) -> int:
    """Replace linear layers, and the embedding if it shares its weights with the head; returns their number.

    The weights that are replaced are dropped one by one. Shows a bar where transformers shows its own.
    """
    names = [name for name, module in model.named_modules() if is_plain_linear(module)]
    names = [name for name in names if name.rpartition(".")[2] not in _LEFT_ALONE]
    embedding, replaced = model.get_input_embeddings(), 0
    for name in logging.tqdm(names, desc="Quantising weights"):
        linear = model.get_submodule(name)
        weight = quantise(name, linear.weight)
        if weight is None:
            continue
        if type(embedding) is nn.Embedding and embedding.weight is linear.weight:
            _replace(
                model, next(own for own, module in model.named_modules() if module is embedding), QuantisedEmbedding(weight)
            )
        _replace(model, name, QuantisedLinear(weight, linear.bias))
        replaced += 1
    return replaced


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def quantised_parameters(model: nn.Module) -> int:
    """Number of weights in quantised layers, shared ones once."""
    weights = {id(module.weight): module.weight.shape for module in model.modules() if isinstance(module, QuantisedLinear)}
    return sum(rows * columns for rows, columns in weights.values())


def make_quantised_invariant(model: nn.Module) -> None:
    """Let quantised layers give a row the same bits in any batch.

    Raises:
        ModelError: they cannot, for lack of the kernels.
    """
    layers = [module for module in model.modules() if isinstance(module, QuantisedLinear)]
    if layers and quantised_kernels() is None:
        raise ModelError(
            "deterministic=True with quantised weights needs a C++ compiler (g++), which was not found: leave it off"
        )
    for layer in layers:
        layer.invariant = True
