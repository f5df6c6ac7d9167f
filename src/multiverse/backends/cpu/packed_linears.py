"""Linear layers packed for the CPU: weights reordered once for oneDNN, which then streams them faster than a plain matmul.

For linear layers that the native kernels do not support: float32 models, and machines without a compiler or without AVX-512 for
bfloat16. The two operators are private to torch, so they are tried once and not used where they fail. The original weights
are dropped, except where an embedding shares them, or where they are trained and packed again after each update.

oneDNN compiles a kernel for every number of rows and caches a thousand of them, and the number of rows changes with nearly
every forward. So rows are padded to one of a few numbers.

Shape legend: M rows, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..plain import is_plain_linear


class PackedLinear(nn.Module):
    """Drop-in for `nn.Linear` in inference on CPU.

    Args:
        keep: keep the weights, too, for `refresh`.
    """

    def __init__(self, linear: nn.Linear, *, keep: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = None if linear.bias is None else linear.bias.detach()
        self._kept = linear.weight.detach() if keep else None
        self.packed = _pack(linear.weight)

    def refresh(self) -> None:
        """The weights have been changed in place: pack them again."""
        assert self._kept is not None
        self.packed = _pack(self._kept)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``[..., in_features]``."""
        return with_padded_rows(x, self._apply_packed)

    def _apply_packed(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out


def _pack(weight_NK: Tensor) -> Tensor:
    # The second argument is the number of rows to tune for; decoding has few.
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_NK.detach().contiguous(), 8)
    return packed


def padded_rows(rows: int) -> int:
    """The next of a few numbers of rows: all up to 8, then four per doubling (10, 12, 14, 16, 20, ...)."""
    step = 1 << max(0, (rows - 1).bit_length() - 3)
    return -(-rows // step) * step


def with_padded_rows(x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a layer whose rows do not depend on each other to ``[..., K]``, padded with rows of zeros to `padded_rows`.

    A kernel that oneDNN compiles for a number of rows takes half a megabyte and some milliseconds, many times longer than
    running it, and evicted kernels of other sizes fragment the heap.
    """
    rows = x.shape[:-1].numel()
    size = padded_rows(rows)
    if size == rows:
        return apply(x)
    x_MK = x.new_zeros(size, x.shape[-1])
    x_MK[:rows] = x.reshape(rows, -1)
    y_MN = apply(x_MK)
    return y_MN[:rows].view(*x.shape[:-1], y_MN.shape[1])


def packing_works(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operators and they give the right answer for this type."""
    if not (torch.backends.mkldnn.is_available() and dtype in (torch.float32, torch.bfloat16)):
        return False
    linear = nn.Linear(16, 24).to(dtype)
    x = torch.linspace(-1, 1, 32, dtype=torch.float32).reshape(2, 16).to(dtype)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(linear)(x), linear(x), rtol=2e-2, atol=2e-2)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


def pack_linears(model: nn.Module, *, keep: bool = False) -> int:
    """Replace every plain `nn.Linear` of a CPU model; returns the number of layers replaced (0 where packing does not work).

    Args:
        keep: as in `PackedLinear`.
    """
    linears = [(name, module) for name, module in model.named_modules() if is_plain_linear(module)]
    dtypes = {module.weight.dtype for _, module in linears}
    if not linears or not all(packing_works(dtype) for dtype in dtypes):
        return 0
    for name, linear in linears:
        parent = model.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], PackedLinear(linear, keep=keep))
    return len(linears)
