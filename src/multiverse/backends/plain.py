"""Linear layers whose weights are plain numbers, and not quantised by a library."""

from __future__ import annotations

from typing import TypeGuard

from torch import nn


def is_plain_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer of torch's own with a weight that kernels may read.

    Libraries replace the module (bitsandbytes) or put a tensor of their own type into it (torchao).
    """
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter
