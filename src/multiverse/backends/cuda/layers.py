"""The Triton kernels as the kernel backend of fused layers (see `fused_layers.py`), for GPUs.

Shape legend: N rows of the forward, E inputs and F outputs of a linear layer, H query heads, K key/value heads, D head size, S
slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ...errors import require
from ..fused_layers import RotaryInput
from .attention import launches_early

MAX_KERNEL_ROWS = 16
"""Rows up to which the Triton kernels compute linear layers; beyond, cuBLAS."""
_LARGE = 1 << 14
"""Outputs from which programs of few outputs each are enough to fill the device."""
_BLOCK = 1024
_LARGEST_NORM = 1 << 15


class LinearTile(NamedTuple):
    """Tile of a linear kernel: outputs and inputs that a program takes at a time, warps, pipeline stages."""

    block_f: int
    block_e: int
    warps: int
    stages: int


# The fastest of a dozen on an H100, on the shapes of Qwen2.5 (docs/cuda.md).
_GEMV, _GEMV_LONG = LinearTile(8, 512, 4, 3), LinearTile(2, 2048, 8, 3)
_SMALL, _SMALL_LARGE = LinearTile(64, 128, 4, 4), LinearTile(16, 256, 2, 4)


def kernels() -> Any:
    """The module of the Triton kernels, imported when they are first used: Triton may not be installed."""
    from . import layer_kernels

    return layer_kernels


class TritonNorm(NamedTuple):
    """An RMSNorm."""

    weight_E: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> TritonNorm | None:
        """The norm of a module that looks like one; a trial has to show whether it computes the same."""
        weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor) or not isinstance(epsilon, float):
            return None
        if weight.dim() != 1 or weight.numel() > _LARGEST_NORM or not weight.is_contiguous():
            return None
        return cls(weight, epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        x_NE = x.contiguous()
        out, size = torch.empty_like(x_NE), self.weight_E.numel()
        padded = power_of_two(size)
        early = launches_early(x_NE.numel() // size, x.device)
        kernels().rms_norm[(x_NE.numel() // size,)](
            *(x_NE, self.weight_E, out, self.epsilon),
            SIZE=size,
            PADDED=padded,
            EARLY=early,
            num_warps=min(16, max(1, padded // 512)),
            enable_fp_fusion=True,
            launch_pdl=early,
        )
        return out


class TritonLinear:
    """A linear layer with the norm of its input, its bias, a gate and a residual.

    Args:
        weight_FE: with a gate, the rows of the gate followed by the rows of what is gated.
        norm: the norm of its input.
        gated: whether the output is ``silu(a) * b`` of the two halves.
        invariant: compute any number of rows by one kernel, 16 at a time: a row's result has the same bits in any batch.
    """

    def __init__(
        self,
        weight_FE: Tensor,
        bias_F: Tensor | None,
        norm: TritonNorm | None = None,
        *,
        gated: bool = False,
        invariant: bool = False,
    ) -> None:
        self.weight_FE, self.bias_F, self.norm, self.gated, self.invariant = weight_FE, bias_F, norm, gated, invariant
        self.out, self.size = weight_FE.shape[0] // (2 if gated else 1), weight_FE.shape[1]

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The output for all rows, plus `residual_NF`, which may be overwritten."""
        rows = len(x_NE)
        if self.invariant and rows:
            return self._small_gemm(x_NE, residual_NF)
        if rows == 1:
            return self._gemv(x_NE, residual_NF)
        return self._small_gemm(x_NE, residual_NF) if rows <= MAX_KERNEL_ROWS else self.gemm(x_NE, residual_NF)

    def gemm(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The same by torch, for many rows."""
        x_NE = x_NE if self.norm is None else self.norm(x_NE)
        if residual_NF is not None and self.bias_F is None:
            return residual_NF.addmm_(x_NE, self.weight_FE.t())
        both = linear(x_NE, self.weight_FE, self.bias_F)
        out = self._gate(both) if self.gated else both
        return out if residual_NF is None else out.add_(residual_NF)

    def tile(self, rows: int) -> LinearTile:
        """The tile of the kernel for so many rows."""
        long = self.size > 2 * self.out
        if rows == 1:
            return _GEMV_LONG if long else _GEMV
        return _SMALL_LARGE if long or len(self.weight_FE) >= _LARGE else _SMALL

    def _gemv(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        tile, norm = self.tile(1), self.norm
        out_NF, early = x_NE.new_empty(1, self.out), launches_early(1, x_NE.device)
        kernels().gemv[self._programs(tile)](
            *(x_NE, self.weight_FE),
            self.weight_FE if self.bias_F is None else self.bias_F,  # a placeholder: what does not exist is not read
            self.weight_FE if norm is None else norm.weight_E,
            self.weight_FE if residual_NF is None else residual_NF,
            out_NF,
            1.0 if norm is None else norm.epsilon,
            **self._constants(tile, residual_NF),
            NORMED=norm is not None,
            EARLY=early,
            launch_pdl=early,
        )
        return out_NF

    def _small_gemm(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        x_NE = x_NE if self.norm is None else self.norm(x_NE)
        tile = self.tile(MAX_KERNEL_ROWS)
        out_NF = x_NE.new_empty(len(x_NE), self.out)
        kernels().small_gemm[(*self._programs(tile), -(-len(x_NE) // MAX_KERNEL_ROWS))](
            *(x_NE, self.weight_FE),
            self.weight_FE if self.bias_F is None else self.bias_F,
            self.weight_FE if residual_NF is None else residual_NF,
            *(out_NF, len(x_NE)),
            **self._constants(tile, residual_NF),
        )
        return out_NF

    def _programs(self, tile: LinearTile) -> tuple[int]:
        return (-(-len(self.weight_FE) // tile.block_f),)

    def _constants(self, tile: LinearTile, residual_NF: Tensor | None) -> dict[str, Any]:
        return {
            "SIZE": self.size,
            "OUT": self.out,
            "BIASED": self.bias_F is not None,
            "GATED": self.gated,
            "ADDED": residual_NF is not None,
            "BLOCK_F": tile.block_f,
            "BLOCK_E": tile.block_e,
            "num_warps": tile.warps,
            "num_stages": tile.stages,
            "enable_fp_fusion": True,
        }

    def _gate(self, both_NF: Tensor) -> Tensor:
        out_NF = both_NF.new_empty(len(both_NF), self.out)
        kernels().gate[(len(both_NF), -(-self.out // _BLOCK))](
            *(both_NF, out_NF), OUT=self.out, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=True
        )
        return out_NF


class InvariantTritonLinear(nn.Module):
    """Drop-in for a linear layer in inference whose rows have the same bits in any batch."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self._run = TritonLinear(linear.weight, linear.bias, invariant=True)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., E]``."""
        y_NF = self._run(x.reshape(-1, x.shape[-1]).contiguous())
        return y_NF.view(*x.shape[:-1], y_NF.shape[1])


class TritonKernels:
    """The Triton kernels, as a `KernelBackend`.

    Args:
        invariant: as in `TritonLinear`.

    Raises:
        ExtraError: Triton is not installed.
    """

    trial_rows: tuple[int, ...] = (1, 5, MAX_KERNEL_ROWS + 1)

    def __init__(self, *, invariant: bool = False) -> None:
        require("triton", "cuda")
        self._invariant = invariant

    def norm(self, module: Any) -> TritonNorm | None:
        """As `KernelBackend.norm`."""
        return TritonNorm.of(module)

    def linear(
        self, weight_FE: Tensor, bias_F: Tensor | None, norm: TritonNorm | None = None, *, gated: bool = False
    ) -> TritonLinear:
        """As `KernelBackend.linear`."""
        return TritonLinear(weight_FE, bias_F, norm, gated=gated, invariant=self._invariant)

    def rotate_and_store(self, given: RotaryInput) -> None:
        """As `KernelBackend.rotate_and_store`."""
        rows, heads, size = given.query_NHD.shape
        kv_heads = given.key_SKD.shape[1]
        early = launches_early(rows, given.query_NHD.device)
        kernels().rotate_and_store[(rows, heads + 2 * kv_heads)](
            *(given.qkv_NF, given.cos_ND, given.sin_ND),
            given.qkv_NF if given.query_norm is None else given.query_norm.weight_E,
            given.qkv_NF if given.key_norm is None else given.key_norm.weight_E,
            *(given.slot_N, given.query_NHD, given.key_SKD, given.value_SKV),
            1.0 if given.query_norm is None else given.query_norm.epsilon,
            HEADS=heads,
            KV_HEADS=kv_heads,
            SIZE=size,
            HALF=power_of_two(size // 2),
            NORMED=given.query_norm is not None,
            EARLY=early,
            num_warps=1,
            enable_fp_fusion=True,
            launch_pdl=early,
        )


def power_of_two(size: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(0, size - 1).bit_length()
