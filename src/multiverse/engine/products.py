"""What a decoder layer on a GPU is computed with: products that take along what stands before and behind them, and rotation.

Shape legend: N rows of the forward, E numbers in an input row, F numbers in an output row, H query heads, K key/value heads, D
head size, S slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..attention.triton_decode import begins_early
from ..errors import ExtraError
from .fused import Turn

MOST = 16
"""Rows up to which our own kernels compute the products; beyond, cuBLAS."""
_LARGE = 1 << 14
"""Output numbers from which programs of few of them are enough for the whole device."""
_BLOCK = 1024
_LARGEST_NORM = 1 << 15


class Tile(NamedTuple):
    """How a kernel of products is cut: output and input numbers that a program takes at a time, warps, stages."""

    block_f: int
    block_e: int
    warps: int
    stages: int


# The fastest of a dozen on an H100, on the shapes of Qwen2.5 (docs/cuda.md).
_ONE, _ONE_LONG = Tile(8, 512, 4, 3), Tile(2, 2048, 8, 3)
_FEW, _FEW_LARGE = Tile(64, 128, 4, 4), Tile(16, 256, 2, 4)


def kernels() -> Any:
    """The Triton kernels.

    Raises:
        ExtraError: Triton is not installed.
    """
    try:
        from . import fused_kernels
    except ImportError:
        raise ExtraError("triton", "cuda") from None
    return fused_kernels


class TritonNorm(NamedTuple):
    """An RMSNorm."""

    weight_E: Tensor
    epsilon: float

    @classmethod
    def of(cls, module: Any) -> TritonNorm | None:
        """That of a module, if it looks like one; what it really computes is for a trial to show."""
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
        padded = power(size)
        early = begins_early(x_NE.numel() // size, x.device)
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


class TritonProduct:
    """A product with weights, and what stands before and behind it.

    Args:
        weight_FE: with a gate, its rows are those of the gate and then as many of what is gated.
        norm: of its input.
        gated: whether the result is ``silu(a) * b`` of the two halves.
    """

    def __init__(
        self, weight_FE: Tensor, bias_F: Tensor | None, norm: TritonNorm | None = None, *, gated: bool = False
    ) -> None:
        self.weight_FE, self.bias_F, self.norm, self.gated = weight_FE, bias_F, norm, gated
        self.out, self.size = weight_FE.shape[0] // (2 if gated else 1), weight_FE.shape[1]

    def __call__(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The result for all rows, `residual_NF` added, which may be written over."""
        rows = len(x_NE)
        if rows == 1:
            return self._one(x_NE, residual_NF)
        return self._few(x_NE, residual_NF) if rows <= MOST else self.many(x_NE, residual_NF)

    def many(self, x_NE: Tensor, residual_NF: Tensor | None = None) -> Tensor:
        """The same by torch's product."""
        x_NE = x_NE if self.norm is None else self.norm(x_NE)
        if residual_NF is not None and self.bias_F is None:
            return residual_NF.addmm_(x_NE, self.weight_FE.t())
        both = linear(x_NE, self.weight_FE, self.bias_F)
        out = self._gate(both) if self.gated else both
        return out if residual_NF is None else out.add_(residual_NF)

    def tile(self, rows: int) -> Tile:
        """How the kernel for so many rows is cut."""
        long = self.size > 2 * self.out
        if rows == 1:
            return _ONE_LONG if long else _ONE
        return _FEW_LARGE if long or len(self.weight_FE) >= _LARGE else _FEW

    def _one(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        tile, norm = self.tile(1), self.norm
        out_NF, early = x_NE.new_empty(1, self.out), begins_early(1, x_NE.device)
        kernels().product_of_one[self._programs(tile)](
            *(x_NE, self.weight_FE),
            self.weight_FE if self.bias_F is None else self.bias_F,  # what is not there is not read either
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

    def _few(self, x_NE: Tensor, residual_NF: Tensor | None) -> Tensor:
        x_NE = x_NE if self.norm is None else self.norm(x_NE)
        tile = self.tile(len(x_NE))
        out_NF = x_NE.new_empty(len(x_NE), self.out)
        kernels().product_of_few[self._programs(tile)](
            *(x_NE, self.weight_FE),
            self.weight_FE if self.bias_F is None else self.bias_F,
            self.weight_FE if residual_NF is None else residual_NF,
            *(out_NF, len(x_NE)),
            **self._constants(tile, residual_NF),
        )
        return out_NF

    def _programs(self, tile: Tile) -> tuple[int]:
        return (-(-len(self.weight_FE) // tile.block_f),)

    def _constants(self, tile: Tile, residual_NF: Tensor | None) -> dict[str, Any]:
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


class TritonKit:
    """The Triton kernels as a layer needs them (see `fused.py`).

    Raises:
        ExtraError: Triton is not installed.
    """

    trials: tuple[int, ...] = (1, 5, MOST + 1)

    def __init__(self) -> None:
        kernels()

    def norm(self, module: Any) -> TritonNorm | None:
        """As `Kit.norm`."""
        return TritonNorm.of(module)

    def product(
        self, weight_FE: Tensor, bias_F: Tensor | None, norm: TritonNorm | None = None, *, gated: bool = False
    ) -> TritonProduct:
        """As `Kit.product`."""
        return TritonProduct(weight_FE, bias_F, norm, gated=gated)

    def rotate_and_store(self, turn: Turn) -> None:
        """As `Kit.rotate_and_store`."""
        rows, heads, size = turn.query_NHD.shape
        kv_heads = turn.key_SKD.shape[1]
        early = begins_early(rows, turn.query_NHD.device)
        kernels().rotate_and_store[(rows, heads + 2 * kv_heads)](
            *(turn.qkv_NF, turn.cos_ND, turn.sin_ND),
            turn.qkv_NF if turn.query_norm is None else turn.query_norm.weight_E,
            turn.qkv_NF if turn.key_norm is None else turn.key_norm.weight_E,
            *(turn.slot_N, turn.query_NHD, turn.key_SKD, turn.value_SKD),
            1.0 if turn.query_norm is None else turn.query_norm.epsilon,
            HEADS=heads,
            KV_HEADS=kv_heads,
            SIZE=size,
            HALF=power(size // 2),
            NORMED=turn.query_norm is not None,
            EARLY=early,
            num_warps=1,
            enable_fp_fusion=True,
            launch_pdl=early,
        )


def power(size: int) -> int:
    """The power of two that holds this many."""
    return 1 << max(0, size - 1).bit_length()
