"""Choose the backend of a device."""

from __future__ import annotations

import gc
import logging
import os
from typing import Any

import torch

from ..attention.joinable import is_stateful, softcap
from ..errors import ModelError, first_line
from .base import Backend
from .capped import CappedBackend
from .cpu.backend import CpuBackend
from .cuda.backend import CudaBackend
from .stateful import StatefulBackend
from .torch import TorchBackend

_log = logging.getLogger(__name__)


def find_device(name: str) -> torch.device:
    """The device of this name; ``auto`` is CUDA where there is a GPU, else the CPU.

    Raises:
        ModelError: torch does not know it, or there is no CUDA.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"device={name!r} is not known to torch: use 'auto', 'cpu', or 'cuda'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device={name!r} needs CUDA, which torch does not find here: use 'cpu'")
    return device


def on_gpu(name: str) -> bool:
    """Whether the device of this name is a GPU, without initialising CUDA in this process."""
    return name.startswith("cuda") or (name == "auto" and torch.cuda.is_available())


def release() -> None:
    """Give memory that nothing refers to any more back to the system, or to the GPU."""
    gc.collect()  # the parts of a model refer to each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def select_for(
    config: Any, device: torch.device, dtype: torch.dtype, *, packed_linears: bool = True, deterministic: bool = False
) -> Backend:
    """The backend of a model: `select`, unless its layers need one that runs anywhere, through torch.

    Args:
        config: of the model.

    Raises:
        ModelError: the model cannot be `deterministic`.
    """
    cap, stateful = softcap(config), is_stateful(config)
    if cap is None and not stateful:
        return select(device, dtype, packed_linears=packed_linears, deterministic=deterministic)
    if deterministic:
        what = "recurrent or linear-attention layers" if stateful else "capped attention scores"
        raise ModelError(f"deterministic=True does not go with {what} (model type {config.model_type!r}): leave it off")
    if stateful and cap is not None:
        raise ModelError(f"model type {config.model_type!r} has recurrent layers and caps attention scores: choose another")
    return StatefulBackend(device) if cap is None else CappedBackend(device, cap)


def select(device: torch.device, dtype: torch.dtype, *, packed_linears: bool = True, deterministic: bool = False) -> Backend:
    """The fastest backend that works for this device and dtype.

    ``MULTIVERSE_NATIVE=0`` in the environment does without native and Triton kernels.

    Args:
        packed_linears: let it replace layers by fused ones and linear layers by packed ones; results agree to rounding.
        deterministic: compute every row in one order, whatever else is in the batch.
    """
    native = os.environ.get("MULTIVERSE_NATIVE", "1") != "0"
    if device.type == "cpu":
        return CpuBackend(device, packed_linears=packed_linears, deterministic=deterministic)
    if device.type == "cuda" and native:
        try:
            return CudaBackend.create(device, dtype, packed_linears=packed_linears, deterministic=deterministic)
        except Exception as error:  # no Triton, no compiler, or an unknown GPU: torch's attention always works
            _log.warning("attention goes through torch, which is slower: %s: %s", type(error).__name__, first_line(error))
    return TorchBackend(device, deterministic=deterministic)
