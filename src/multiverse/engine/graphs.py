"""Small forwards over buffers that stay where they are, so that a GPU can replay them as one captured graph.

A decode step of a few rows is hundreds of small kernels, and launching them one by one takes longer than running them. A CUDA
graph launches all of them at once, but every replay reads and writes the memory of the capture. So there is a *frame* for
each of a few numbers of rows: token, position and slot of each row, which rows' logits are wanted, and the plan of the
attention, each in memory of its own. A forward takes the smallest frame that holds it, fills the buffers, and replays. Rows
that are left over read nothing and write to a scratch slot, which belongs to nobody.

What is captured and how it is replayed comes from outside (`Recorder`): nothing here needs a GPU.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..attention.tree import KVPool, TreeContext
from ..attention.triton_decode import TritonBackend
from ..attention.work import Buffers, Capacity, SlotList
from .batch import Batch

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of the frames: a forward computes at most half as many again as it needs."""
_ENTRIES = 16
"""Pieces that a row may read, on average, before its plan is too large for a frame: that takes blocks that nest deep."""

Step = Callable[[], Tensor]
Recorder = Callable[[Step], tuple[Callable[[], object], Tensor]]
"""Captures a step: gives what replays it, and the tensor that a replay writes its result to."""
Forward = Callable[[Tensor, Tensor, Tensor, TreeContext], Tensor]
"""Token, position, kept rows and context to logits, as `LoadedModel.forward`."""

_log = logging.getLogger(__name__)


class _Frame(NamedTuple):
    """Buffers for so many rows, and what computes them.

    Attributes:
        host, device: token, position and slot of each row, and the rows whose logits are wanted [4, rows].
        plans: buffers of the attention's plan for each window.
        logits: what `replay` writes [rows, V].
    """

    host: Tensor
    device: Tensor
    plans: dict[int | None, Buffers]
    replay: Callable[[], object]
    logits: Tensor


class Graphs:
    """Runs batches through frames, where they fit one.

    Args:
        forward: the model.
        backend: its attention, which has seen a forward already.
        pool: with one slot more than are ever handed out, the last one, for scratch.
        record: how a frame's step is captured.
    """

    def __init__(self, forward: Forward, backend: TritonBackend, pool: KVPool, device: torch.device, record: Recorder) -> None:
        self._forward, self._backend, self._pool, self._device, self._record = forward, backend, pool, device, record
        self._frames: dict[int, _Frame] = {}
        self._slots: dict[int | None, SlotList] = {}
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self.replays = 0

    def run(self, batch: Batch, token_N: Tensor | None = None) -> Tensor | None:
        """Logits of the batch's kept rows, which the next call overwrites; `None` if no frame holds it.

        Args:
            token_N: the rows' tokens where they are on the device already; then those of the batch do not matter.
        """
        rows = rows_of_frame(batch)
        if rows is None or any(not self._capacity(rows).holds(plan) for plan in batch.plans.values()):
            return None
        frame = self._frames.get(rows)
        if frame is None:
            if token_N is not None:
                return None
            frame = self._frames[rows] = self._new(rows, batch)
        else:
            self._fill(frame.host, frame.device, frame.plans, batch)
            if token_N is not None:
                frame.device[0, : len(token_N)].copy_(token_N)
            frame.replay()
            self.replays += 1
        return frame.logits[: len(batch.kept_rows)]

    def _capacity(self, rows: int) -> Capacity:
        tiling, entries = self._backend.tiling, _ENTRIES * rows
        # Requests that share a cached prefix list its slots each for itself, so there may be more than the pool has.
        items = tiling.items + entries
        # Where no piece can have more rows than a narrow item, the kernel of the wide ones is not even launched.
        wide = items if rows > tiling.narrow else 0
        return Capacity(rows, 2 * self._pool.slots, entries, items, wide, tiling.wide * tiling.items + entries)

    def _new(self, rows: int, batch: Batch) -> _Frame:
        host = torch.zeros(4, rows, dtype=torch.long, pin_memory=self._device.type == "cuda")
        device = host.to(self._device, copy=True)
        capacity = self._capacity(rows)
        for window in batch.plans:  # as long as the pool, so all frames share one: only one of them runs at a time
            if window not in self._slots:
                self._slots[window] = SlotList.of(capacity.slots, self._device)
        plans = {window: Buffers(capacity, self._device, self._slots[window]) for window in batch.plans}
        self._fill(host, device, plans, batch)
        token_N, position_N, slot_N, keep_N = device
        context = TreeContext(
            self._pool, self._backend, slot_N, [], {window: buffers.work for window, buffers in plans.items()}
        )
        _log.info("recording the forward of %d rows", rows)
        # Recording runs the step itself, maybe several times: it writes the same keys and values each time.
        replay, logits = self._record(lambda: self._forward(token_N, position_N, keep_N, context))
        replay()
        return _Frame(host, device, plans, replay, logits)

    def _fill(self, host: Tensor, device: Tensor, plans: dict[int | None, Buffers], batch: Batch) -> None:
        if self._copied is not None:
            self._copied.synchronize()  # what was written here before has to have left
        count, kept = len(batch.token_N), len(batch.kept_rows)
        numbers = host.numpy()
        numbers[0, :count], numbers[0, count:] = batch.token_N.numpy(), 0
        numbers[1, :count], numbers[1, count:] = batch.position_N.numpy(), 0
        numbers[2, :count], numbers[2, count:] = batch.slot_N.numpy(), self._pool.slots - 1
        numbers[3, :kept], numbers[3, kept:] = batch.kept_rows, 0
        device.copy_(host, non_blocking=True)
        for window, plan in batch.plans.items():
            plans[window].fill(plan)
        if self._copied is not None:
            self._copied.record()


def rows_of_frame(batch: Batch) -> int | None:
    """Rows of the frame that a batch goes into; `None` if it has too many, or attention that is not planned."""
    count = len(batch.token_N)
    if batch.buckets or not batch.plans or count > ROWS[-1]:
        return None
    return ROWS[bisect_left(ROWS, count)]


def cuda_recorder(device: torch.device) -> Recorder:
    """Captures steps as CUDA graphs that share their working memory: only one of them runs at a time."""
    pool = torch.cuda.graph_pool_handle()

    def record(step: Step) -> tuple[Callable[[], object], Tensor]:
        # Before a capture everything has to have been compiled and set up, which must not happen on the stream of others.
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(2):
                step()
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            logits = step()
        return graph.replay, logits

    return record
