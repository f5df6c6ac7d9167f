"""Memory bandwidth of this machine: the limit of any decoder that reads every weight once per token.

One buffer is read by several methods, on torch's threads; the fastest over the whole run counts. The buffer is as large as the
weights, so caches hold as much of one as of the other. Nothing is copied, because writes share the bus.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

STREAMS = 8


class Reader(NamedTuple):
    """A method of reading memory, and the bytes that it reads."""

    name: str
    read: Callable[[], object]
    size: int


class Memory:
    """A buffer, and methods of reading it.

    Args:
        size: bytes, about.
        width: input width of the matrix that one of the methods multiplies.
    """

    def __init__(self, size: int, width: int) -> None:
        rows = size // 2 // width // (4 * STREAMS) * (4 * STREAMS)
        # numpy asks for huge pages, so that reading is limited by the memory and not by page look-ups.
        floats = torch.from_numpy(np.empty(rows * width // 2, dtype=np.float32)).fill_(1)
        words = floats.view(torch.int64)
        matrix = floats.view(torch.bfloat16).view(rows, width)
        half, size = len(floats) // 2, floats.numel() * floats.element_size()
        self.readers = [
            Reader("sum of 64-bit words", words.sum, size),
            Reader("dot product of the two halves, fp32", lambda: torch.dot(floats[:half], floats[half:]), size),
            Reader(f"sum of {STREAMS} streams, fp32", lambda: floats.view(STREAMS, -1).sum(0), size),
            Reader("matrix times vector, bf16", lambda: matrix @ matrix[0], size),
        ]

    @torch.inference_mode()
    def measure(self) -> dict[str, float]:
        """Bytes per second of each method."""
        speeds = {}
        for reader in self.readers:
            start = time.perf_counter()
            reader.read()
            speeds[reader.name] = reader.size / (time.perf_counter() - start)
        return speeds
