"""Small operators of a transformers model fused, in place: norms, gated activations, rotary positions.

Of the 36 kernels that a layer of Qwen2 takes a step, 26 are small ones between the matrix products and the attention; fused
they are 7. What a module computes is not guessed from its name alone: a replacement has to give what the original gives, to
rounding, or the original stays.

Shape legend: M rows, S numbers in a row, N rows of the forward, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExtraError

_BLOCK = 1024
_LARGEST_NORM = 1 << 15
_ROPE = "apply_rotary_pos_emb"


def _kernels() -> Any:
    try:
        from . import fused_kernels
    except ImportError:
        raise ExtraError("triton", "cuda") from None
    return fused_kernels


class FusedRMSNorm(nn.Module):
    """Drop-in for an RMSNorm in inference."""

    def __init__(self, weight: nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = weight, epsilon
        self._run = _kernels().rms_norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        x_MS = x.contiguous()
        out, size = torch.empty_like(x_MS), self.weight.numel()
        padded = _power(size)
        warps = min(16, max(1, padded // 512))
        self._run[(x_MS.numel() // size,)](
            x_MS, self.weight, out, self.epsilon, SIZE=size, PADDED=padded, num_warps=warps, enable_fp_fusion=True
        )
        return out


class FusedMLP(nn.Module):
    """Drop-in for ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, gate: nn.Module, up: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate, up, down
        self._run = _kernels().silu_times

    def forward(self, x: Tensor) -> Tensor:
        """Apply the whole block."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        between, count = torch.empty_like(gate), gate.numel()
        self._run[(-(-count // _BLOCK),)](gate, up, between, count, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=True)
        out: Tensor = self.down_proj(between)
        return out


def rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    """Rotary positions of `query` [1, H, N, D] and `key` [1, K, N, D]; `cos` and `sin` are [1, N, D].

    The results lie in memory row by row, as the attention wants them.
    """
    assert len(query) == 1, "the engine's rows travel as one sequence"
    run = _kernels().rotate
    cos_ND, sin_ND = cos[0].contiguous(), sin[0].contiguous()
    turned = []
    for x_HND in (query[0], key[0]):
        heads, rows, size = x_HND.shape
        x_HND = x_HND if x_HND.stride(2) == 1 else x_HND.contiguous()
        out_NHD = x_HND.new_empty(rows, heads, size)
        run[(rows, heads)](
            *(x_HND, cos_ND, sin_ND, out_NHD, x_HND.stride(1), x_HND.stride(0)),
            HEADS=heads,
            SIZE=size,
            HALF=_power(size // 2),
            num_warps=1,
            enable_fp_fusion=True,
        )
        turned.append(out_NHD.transpose(0, 1)[None])
    return turned[0], turned[1]


def fuse(model: nn.Module) -> int:
    """Replace what can be replaced; returns how many modules were changed.

    Raises:
        ExtraError: Triton is not installed.
    """
    changed = 0
    for replacement in (_fused_mlp, _fused_norm):
        for name, module in list(model.named_modules()):
            fused = replacement(module)
            if fused is not None:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, fused)
                changed += 1
    return changed + sum(_turn(module) for module in model.modules())


def _fused_norm(module: nn.Module) -> nn.Module | None:
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, nn.Parameter) or not isinstance(epsilon, float):
        return None
    if weight.dim() != 1 or weight.numel() > _LARGEST_NORM or not weight.is_contiguous():
        return None
    fused = FusedRMSNorm(weight, epsilon)
    return fused if _same(module, fused, weight.numel(), weight) else None


def _fused_mlp(module: nn.Module) -> nn.Module | None:
    parts = dict(module.named_children())
    if not {"gate_proj", "up_proj", "down_proj"} <= parts.keys() or len(parts) != 4:  # the fourth is the activation
        return None
    gate, up, down = (parts[name] for name in ("gate_proj", "up_proj", "down_proj"))
    if any(type(part) is not nn.Linear for part in (gate, up, down)):
        return None
    weight = gate.weight
    assert isinstance(weight, Tensor)
    fused = FusedMLP(gate, up, down)
    return fused if _same(module, fused, weight.shape[1], weight) else None


@torch.inference_mode()
def _same(module: Callable[[Tensor], Any], fused: Callable[[Tensor], Any], size: int, like: Tensor) -> bool:
    """Whether both give the same, to rounding, on rows from tiny to large."""
    generator = torch.Generator().manual_seed(0)
    x_MS = torch.randn(8, size, generator=generator) * torch.logspace(-4, 1, 8)[:, None]
    x_MS = x_MS.to(like.device, like.dtype)
    try:
        expected = module(x_MS)
    except (RuntimeError, TypeError, ValueError):
        return False
    return _near(fused(x_MS), expected)


def _near(found: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor) or found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    allowed = 1e-4 if expected.dtype == torch.float32 else 2**-6
    peak = expected.float().abs().amax(-1, keepdim=True)
    return bool(((found.float() - expected.float()).abs() <= allowed * peak).all())


def _turn(module: nn.Module) -> bool:
    """Let an attention's forward call `rotate`: this object's alone, by a copy of the function with one name bound anew."""
    forward = type(module).forward
    if not isinstance(forward, FunctionType) or _ROPE not in forward.__code__.co_names:
        return False
    original, size = forward.__globals__.get(_ROPE), getattr(module, "head_dim", None)
    if original is None or not isinstance(size, int) or not _turns_alike(original, size, next(module.parameters())):
        return False
    own = FunctionType(
        forward.__code__, {**forward.__globals__, _ROPE: rotate}, forward.__name__, forward.__defaults__, forward.__closure__
    )
    own.__kwdefaults__ = forward.__kwdefaults__
    module.forward = MethodType(own, module)
    return True


@torch.inference_mode()
def _turns_alike(original: Callable[..., Any], size: int, like: Tensor) -> bool:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(like.device, like.dtype)

    rows = normal(1, 5, 3, size).transpose(1, 2), normal(1, 5, 2, size).transpose(1, 2)
    cos, sin = normal(1, 5, size), normal(1, 5, size)
    try:
        expected = original(*rows, cos, sin)
    except (RuntimeError, TypeError, ValueError):
        return False
    return all(_near(found, other) for found, other in zip(rotate(*rows, cos, sin), expected, strict=True))


def _power(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()
