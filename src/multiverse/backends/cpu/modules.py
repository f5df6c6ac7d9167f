"""Modules of a transformers model replaced, in place, by ones that call the native kernels.

Weights are neither copied nor reordered: a kernel reads the module's own tensor, so a tied embedding stays tied and memory does
not grow. What a module computes is not guessed from its name alone: a replacement has to give the original's output, up to
rounding; otherwise the original stays.

Shape legend: M rows, K inputs, N outputs; leading dimensions are free.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn

from ..plain import is_plain_linear
from .packed_linears import with_padded_rows

# Forms of RMSNorm that the kernel supports: see `multiverse_rms_norm`.
_NORM_FORMS = (0, 1, 2)


class NativeLinear(nn.Module):
    """Drop-in for a bfloat16 `nn.Linear` in inference: few rows are computed by the kernel, many by torch.

    Args:
        invariant: compute many by the kernel, too, a few at a time: a row's result then has the same bits in any batch.
    """

    def __init__(self, linear: nn.Linear, library: ctypes.CDLL, *, invariant: bool = False) -> None:
        super().__init__()
        self._invariant = invariant
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._run = library.multiverse_linear
        self._rows: int = library.multiverse_rows()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., K]``."""
        rows = x.numel() // self.in_features
        if rows > self._rows and self._invariant:
            return _in_parts(x, self._rows, self.forward)
        if rows > self._rows or rows == 0:
            return with_padded_rows(x, lambda x_MK: nn.functional.linear(x_MK, self.weight, self.bias))
        x_MK = x.contiguous()
        out = x.new_empty(*x.shape[:-1], self.out_features)
        bias = None if self.bias is None else self.bias.data_ptr()
        self._run(x_MK.data_ptr(), self.weight.data_ptr(), bias, out.data_ptr(), rows, self.in_features, self.out_features)
        return out


class NativeRMSNorm(nn.Module):
    """Drop-in for a bfloat16 RMSNorm: one pass instead of half a dozen operators."""

    def __init__(self, weight: nn.Parameter, epsilon: float, form: int, library: ctypes.CDLL) -> None:
        super().__init__()
        self.weight, self.epsilon, self.form = weight, epsilon, form
        self._size = weight.numel()
        self._run = library.multiverse_rms_norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        x_MK = x.contiguous()
        out = torch.empty_like(x_MK)
        rows = x.numel() // self._size
        self._run(x_MK.data_ptr(), self.weight.data_ptr(), out.data_ptr(), rows, self._size, self.epsilon, self.form)
        return out


class NativeGatedMLP(nn.Module):
    """Drop-in for ``down(silu(gate(x)) * up(x))``: everything before `down` is one call.

    Args:
        invariant: as in `NativeLinear`.
    """

    def __init__(
        self, gate_NK: Tensor, up_NK: Tensor, down: nn.Module, library: ctypes.CDLL, *, invariant: bool = False
    ) -> None:
        super().__init__()
        self._invariant = invariant
        self.gate_NK, self.up_NK, self.down_proj = gate_NK, up_NK, down
        self._run = library.multiverse_gated
        self._rows: int = library.multiverse_rows()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the whole block to ``[..., K]``."""
        outputs, inputs = self.gate_NK.shape
        rows = x.numel() // inputs
        if rows > self._rows and self._invariant:
            return _in_parts(x, self._rows, self.forward)
        if rows > self._rows or rows == 0:
            return with_padded_rows(x, self._many_rows)
        x_MK = x.contiguous()
        between, scratch = x.new_empty(2, *x.shape[:-1], outputs)
        weights = self.gate_NK.data_ptr(), self.up_NK.data_ptr()
        self._run(x_MK.data_ptr(), *weights, between.data_ptr(), scratch.data_ptr(), rows, inputs, outputs)
        out: Tensor = self.down_proj(between)
        return out

    def _many_rows(self, x: Tensor) -> Tensor:
        gate = nn.functional.silu(nn.functional.linear(x, self.gate_NK))
        out: Tensor = self.down_proj(gate.mul_(nn.functional.linear(x, self.up_NK)))
        return out


def _in_parts(x: Tensor, rows: int, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a layer to ``[..., K]``, so many rows at a time."""
    y_MN = torch.cat([apply(part_MK) for part_MK in x.reshape(-1, x.shape[-1]).split(rows)])
    return y_MN.view(*x.shape[:-1], y_MN.shape[1])


def replace_modules(model: nn.Module, library: ctypes.CDLL, *, invariant: bool = False) -> int:
    """Replace the modules that the kernels support; returns the number of modules replaced.

    Args:
        invariant: as in `NativeLinear`.
    """
    replaced = 0
    # Linear layers last: the others are recognised by the linear layers in them.
    for replacement in (partial(_native_mlp, invariant=invariant), native_norm, partial(_native_linear, invariant=invariant)):
        for name, module in list(model.named_modules()):
            native = replacement(module, library)
            if native is not None:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, native)
                replaced += 1
    return replaced


def _fits(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and weight.is_contiguous()


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    return is_plain_linear(module) and _fits(module.weight)


def _native_linear(module: nn.Module, library: ctypes.CDLL, *, invariant: bool) -> NativeLinear | None:
    return NativeLinear(module, library, invariant=invariant) if _is_plain(module) else None


def _native_mlp(module: nn.Module, library: ctypes.CDLL, *, invariant: bool) -> NativeGatedMLP | None:
    """The replacement of a gated block, whether gate and up are two layers or one; `None` if it is anything else."""
    parts = dict(module.named_children())
    weights: dict[str, Tensor] = {}
    for name, part in parts.items():
        if _is_plain(part) and getattr(part, "bias", None) is None:
            weights[name] = part.weight
    if len(parts) != len(weights) + 1:  # one more: the activation
        return None
    if weights.keys() == {"gate_proj", "up_proj", "down_proj"}:
        gate_NK, up_NK = weights["gate_proj"], weights["up_proj"]
    elif weights.keys() == {"gate_up_proj", "down_proj"} and len(weights["gate_up_proj"]) % 2 == 0:
        gate_NK, up_NK = weights["gate_up_proj"].chunk(2)
    else:
        return None
    native = NativeGatedMLP(gate_NK, up_NK, parts["down_proj"], library, invariant=invariant)
    return native if _error(module, native, gate_NK.shape[1]) < math.inf else None


def native_norm(module: nn.Module, library: ctypes.CDLL) -> NativeRMSNorm | None:
    """The replacement of a norm, in the form that gives the same output; `None` if none does."""
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, nn.Parameter) or not isinstance(epsilon, float):
        return None
    if weight.dim() != 1 or not _fits(weight):
        return None
    candidates = [NativeRMSNorm(weight, epsilon, form, library) for form in _NORM_FORMS]
    errors = [_error(module, native, weight.numel()) for native in candidates]
    return candidates[errors.index(min(errors))] if min(errors) < math.inf else None


@torch.inference_mode()
def _error(module: nn.Module, native: nn.Module, size: int) -> float:
    """Mean difference between the two, relative to each row's largest number; infinite if it is more than rounding."""
    # Rows from tiny to large: tiny ones depend on a norm's epsilon, large ones on the activation.
    x_MK = torch.randn(8, size, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 2, 8)[:, None]
    try:
        expected_MN: Tensor = module(x_MK.bfloat16())
    except (RuntimeError, TypeError, ValueError):
        return math.inf
    found_MN: Tensor = native(x_MK.bfloat16())
    if found_MN.dtype != expected_MN.dtype or found_MN.shape != expected_MN.shape:
        return math.inf
    difference_MN = (found_MN.float() - expected_MN.float()).abs() / expected_MN.float().abs().amax(-1, keepdim=True)
    return float(difference_MN.mean()) if bool((difference_MN <= 2**-6).all()) else math.inf
