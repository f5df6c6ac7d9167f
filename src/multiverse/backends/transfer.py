"""Small tensors between host and device, without waiting for work that is queued on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(numbers: Sequence[Any] | NDArray[Any], device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """Numbers (an array, or nested sequences) as a tensor on a device."""
    tensor = torch.tensor(numbers, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def download(tensor: Tensor, launch: Callable[[Tensor, Tensor], None] | None = None) -> list[int]:
    """Integers [N] as a list; waits until they have been computed.

    Args:
        launch: called with the tensor, and with the host tensor that will hold its values, after the copy has been queued
            and before waiting for it. What it launches on the device is not waited for.
    """
    if launch is None or tensor.device.type != "cuda":
        numbers: list[int] = tensor.tolist()
        if launch is not None:
            launch(tensor, tensor)
        return numbers
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    launch(tensor, host)
    copied.synchronize()
    downloaded: list[int] = host.tolist()
    return downloaded
