"""How fast this machine reads memory: the bound on any decoder that has to read every weight once a token.

Several ways of reading one buffer, all on torch's threads; the best of them, over the whole run, is taken. The buffer is as
large as the weights, so that whatever a cache can keep of the one it can keep of the other. Only reading counts: copying
would share the bus with the writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

STREAMS = 8


class Reader(NamedTuple):
    """One way of reading: what it is called, what it does, and how many bytes that reads."""

    name: str
    read: Callable[[], object]
    size: int


class Memory:
    """The buffer and the ways of reading it."""

    def __init__(self, size: int, width: int) -> None:
        """Take a buffer of about `size` bytes; `width` is the input width of the matrix that it is for the last way."""
        rows = size // 2 // width // (4 * STREAMS) * (4 * STREAMS)
        # numpy asks for huge pages: reading is to be bound by the memory, not by looking up where it is.
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
        """Bytes per second of each way, read once."""
        speeds = {}
        for reader in self.readers:
            start = time.perf_counter()
            reader.read()
            speeds[reader.name] = reader.size / (time.perf_counter() - start)
        return speeds
