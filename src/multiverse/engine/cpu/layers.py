"""What a decoder layer on a CPU is computed with: the native kernels as a kit (see `engine/fused.py`).

Shape legend: N rows of the forward, E numbers in an input row, F numbers in an output row.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from ..fused import Turn, fuse_layers
from ..packing import in_few_sizes
from .build import Rotate, kernels
from .modules import NativeRMSNorm, native_norm, replace_modules


class NativeProduct:
    """A product and what stands around it: few rows go through the kernels, many through torch.

    Raises:
        ValueError: the kernels do not know the type, or a gate with a bias.
    """

    def __init__(
        self, weight_FE: Tensor, bias_F: Tensor | None, norm: NativeRMSNorm | None, library: ctypes.CDLL, *, gated: bool
    ) -> None:
        if weight_FE.dtype != torch.bfloat16 or (gated and bias_F is not None):
            raise ValueError("the native kernels do not know this product")
        self.weight_FE, self.bias_F, self.norm, self.gated = weight_FE, bias_F, norm, gated
        self.out, self.size = weight_FE.shape[0] // (2 if gated else 1), weight_FE.shape[1]
        self._library = library
        self._rows: int = library.multiverse_rows()

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The result for all rows, `residual_NF` added."""
        x_NE = x_NE.contiguous() if self.norm is None else self.norm.forward(x_NE)
        rows = len(x_NE)
        if rows > self._rows or rows == 0:
            return self._many(x_NE, residual_NF)
        out_NF, weight = x_NE.new_empty(rows, self.out), self.weight_FE.data_ptr()
        if self.gated:
            room, up = torch.empty_like(out_NF), weight + self.out * self.size * self.weight_FE.element_size()
            self._library.multiverse_gated(
                x_NE.data_ptr(), weight, up, out_NF.data_ptr(), room.data_ptr(), rows, self.size, self.out
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
        out_NF = in_few_sizes(x_NE, lambda x_NE: linear(x_NE, self.weight_FE, self.bias_F))
        if self.gated:
            first_NF, second_NF = out_NF.chunk(2, -1)
            out_NF = silu(first_NF).mul_(second_NF)
        return out_NF if residual_NF is None else out_NF.add_(residual_NF)


class NativeKit:
    """The native kernels as a layer needs them."""

    trials: tuple[int, ...] = (1, 5)

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def norm(self, module: Any) -> NativeRMSNorm | None:
        """As `Kit.norm`."""
        return native_norm(module, self._library) if isinstance(module, nn.Module) else None

    def product(
        self, weight_FE: Tensor, bias_F: Tensor | None, norm: NativeRMSNorm | None = None, *, gated: bool = False
    ) -> NativeProduct:
        """As `Kit.product`."""
        return NativeProduct(weight_FE, bias_F, norm, self._library, gated=gated)

    def rotate_and_store(self, turn: Turn) -> None:
        """As `Kit.rotate_and_store`.

        Raises:
            ValueError: a head size, or a form of norm, that the kernel does not know.
        """
        rows, heads, size = turn.query_NHD.shape
        norms = [norm for norm in (turn.query_norm, turn.key_norm) if norm is not None]
        if size % 32 or any(norm.form for norm in norms) or turn.cos_ND.shape[-1] != size:
            raise ValueError("the native kernels do not know these heads")
        self._library.multiverse_rotate(
            Rotate(
                *(turn.qkv_NF.data_ptr(), turn.cos_ND.data_ptr(), turn.sin_ND.data_ptr()),
                *(norm.weight.data_ptr() for norm in norms or ()),
                *((None, None) if not norms else ()),
                *(turn.slot_N.data_ptr(), turn.query_NHD.data_ptr(), turn.key_SKD.data_ptr(), turn.value_SKD.data_ptr()),
                *(rows, heads, turn.key_SKD.shape[1], size),
                norms[0].epsilon if norms else 0.0,
            )
        )


def use_kernels(model: nn.Module) -> int:
    """Let a bfloat16 CPU model compute with the kernels; returns how many layers and modules changed (0 without them)."""
    if next(model.parameters()).dtype != torch.bfloat16:
        return 0
    library = kernels()
    if library is None:
        return 0
    return fuse_layers(model, NativeKit(library)) + replace_modules(model, library)
