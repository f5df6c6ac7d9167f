"""The native kernels as the kernel backend of fused layers (see `fused_layers.py`), for CPUs.

Shape legend: N rows of the forward, E inputs and F outputs of a linear layer.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ..fused_layers import RotaryInput, fuse_layers
from .build import Rotate
from .modules import NativeRMSNorm, native_norm, replace_modules
from .packed_linears import with_padded_rows
from .quantised_linears import multiply
from .quantised_weight import QuantisedWeight


class NativeFusedLinear:
    """A linear layer with norm, bias, gate and residual: few rows are computed by the kernels, many by torch.

    Args:
        invariant: compute many rows by the kernels, too, a few at a time: a row's result then has the same bits in any batch.

    Raises:
        ValueError: the kernels do not support the dtype, or a gate with a bias.
    """

    def __init__(
        self,
        weight_FE: Tensor,
        bias_F: Tensor | None,
        norm: NativeRMSNorm | None,
        library: ctypes.CDLL,
        *,
        gated: bool,
        invariant: bool = False,
    ) -> None:
        if weight_FE.dtype != torch.bfloat16 or (gated and bias_F is not None):
            raise ValueError("the native kernels do not support this linear layer")
        self.weight_FE, self.bias_F, self.norm, self.gated = weight_FE, bias_F, norm, gated
        self.out, self.size = weight_FE.shape[0] // (2 if gated else 1), weight_FE.shape[1]
        self._library, self._invariant = library, invariant
        self._rows: int = library.multiverse_rows()

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The output for all rows, plus `residual_NF`."""
        x_NE = x_NE.contiguous() if self.norm is None else self.norm.forward(x_NE)
        rows = len(x_NE)
        if 0 < rows <= self._rows:
            return self._few(x_NE, residual_NF)
        if not self._invariant or rows == 0:
            return self._many(x_NE, residual_NF)
        xs = x_NE.split(self._rows)
        residuals = [None] * len(xs) if residual_NF is None else residual_NF.split(self._rows)
        return torch.cat([self._few(x, residual) for x, residual in zip(xs, residuals, strict=True)])

    def _few(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        rows = len(x_NE)
        out_NF, weight = x_NE.new_empty(rows, self.out), self.weight_FE.data_ptr()
        if self.gated:
            scratch, up = torch.empty_like(out_NF), weight + self.out * self.size * self.weight_FE.element_size()
            self._library.multiverse_gated(
                x_NE.data_ptr(), weight, up, out_NF.data_ptr(), scratch.data_ptr(), rows, self.size, self.out
            )
            return out_NF
        bias = None if self.bias_F is None else self.bias_F.data_ptr()
        sizes = rows, self.size, self.out
        if residual_NF is None:
            self._library.multiverse_linear(x_NE.data_ptr(), weight, bias, out_NF.data_ptr(), *sizes)
        else:
            residual_NF = residual_NF.contiguous()
            added = residual_NF.data_ptr(), out_NF.data_ptr()
            self._library.multiverse_linear_add(x_NE.data_ptr(), weight, bias, *added, *sizes)
        return out_NF

    def _many(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        out_NF = with_padded_rows(x_NE, lambda x_NE: linear(x_NE, self.weight_FE, self.bias_F))
        if self.gated:
            first_NF, second_NF = out_NF.chunk(2, -1)
            out_NF = silu(first_NF).mul_(second_NF)
        return out_NF if residual_NF is None else out_NF.add_(residual_NF)


class QuantisedFusedLinear:
    """A linear layer of quantised weights with norm, bias, gate and residual.

    Args:
        invariant: as in `NativeFusedLinear`.

    Raises:
        ValueError: the gate has halves that are not whole groups of rows.
    """

    def __init__(
        self,
        weight_FE: QuantisedWeight,
        bias_F: Tensor | None,
        norm: NativeRMSNorm | None,
        *,
        gated: bool,
        invariant: bool = False,
    ) -> None:
        if gated and len(weight_FE) % 32:
            raise ValueError("the kernels do not support this gate")
        self.weight_FE, self.bias_F, self.norm, self._gated, self._invariant = weight_FE, bias_F, norm, gated, invariant

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The output for all rows, plus `residual_NF`."""
        x_NE = x_NE.contiguous() if self.norm is None else self.norm.forward(x_NE)
        return multiply(x_NE, self.weight_FE, self.bias_F, residual_NF, gated=self._gated, invariant=self._invariant)


class NativeKernels:
    """The native kernels, as a `KernelBackend`."""

    trial_rows: tuple[int, ...] = (1, 5)

    def __init__(self, library: ctypes.CDLL, *, invariant: bool = False) -> None:
        self._library, self._invariant = library, invariant

    def norm(self, module: Any) -> NativeRMSNorm | None:
        """As `KernelBackend.norm`."""
        return native_norm(module, self._library) if isinstance(module, nn.Module) else None

    def linear(
        self,
        weight_FE: Tensor | QuantisedWeight,
        bias_F: Tensor | None,
        norm: NativeRMSNorm | None = None,
        *,
        gated: bool = False,
    ) -> NativeFusedLinear | QuantisedFusedLinear:
        """As `KernelBackend.linear`."""
        if isinstance(weight_FE, QuantisedWeight):
            return QuantisedFusedLinear(weight_FE, bias_F, norm, gated=gated, invariant=self._invariant)
        return NativeFusedLinear(weight_FE, bias_F, norm, self._library, gated=gated, invariant=self._invariant)

    def rotate_and_store(self, given: RotaryInput) -> None:
        """As `KernelBackend.rotate_and_store`.

        Raises:
            ValueError: the kernel does not support the head size or the form of norm.
        """
        rows, heads, size = given.query_NHD.shape
        norms = [norm for norm in (given.query_norm, given.key_norm) if norm is not None]
        if size % 32 or any(norm.form for norm in norms) or given.cos_ND.shape[-1] != size:
            raise ValueError("the native kernels do not support these heads")
        self._library.multiverse_rotate(
            Rotate(
                *(given.qkv_NF.data_ptr(), given.cos_ND.data_ptr(), given.sin_ND.data_ptr()),
                *(norm.weight.data_ptr() for norm in norms or ()),
                *((None, None) if not norms else ()),
                *(given.slot_N.data_ptr(), given.query_NHD.data_ptr(), given.key_SKD.data_ptr(), given.value_SKV.data_ptr()),
                *(rows, heads, given.key_SKD.shape[1], size),
                norms[0].epsilon if norms else 0.0,
            )
        )


def use_kernels(model: nn.Module, library: ctypes.CDLL, *, invariant: bool = False) -> int:
    """Let a bfloat16 CPU model compute with the kernels; returns the number of layers and modules replaced.

    Args:
        invariant: as in `NativeFusedLinear`.
    """
    kernels = NativeKernels(library, invariant=invariant)
    return fuse_layers(model, kernels) + replace_modules(model, library, invariant=invariant)
