"""Small forwards as CUDA graphs over fixed buffers.

A decode step of a few rows is hundreds of small kernels, and launching them one by one takes longer than running them. A CUDA
graph launches all of them at once, but every replay reads and writes the memory of the capture. So for each of a few sizes
there are buffers (token, position and slot of each row, the logits indices, the plan of the attention) and a captured forward.
A batch uses the smallest size that holds it: fill the buffers, replay. Padding rows read nothing and write to a scratch slot.

How a forward is captured and replayed is an argument (`Capture`), so all of this runs without a GPU, too.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..base import ForwardContext
from ..batch import Batch
from ..kv_pool import KVPool
from .buffers import Capacity, DevicePlan, PlanBuffers, SlotBuffer
from .plan import Plan, Tiling

CAPTURE_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of the graphs: at most half of the computed rows are padding."""
_ENTRIES_PER_ROW = 16
"""Segments that a row may read, on average, before its plan exceeds a graph's buffers; deeply nested blocks do."""

Plans = dict[int | None, Plan]
"""A plan for each window of the model's layers."""
Step = Callable[[], Tensor]
Capture = Callable[[Step], tuple[Callable[[], object], Tensor]]
"""Captures a step: returns a function that replays it, and the tensor that a replay writes its result to."""
ContextOf = Callable[[Tensor, dict[int | None, DevicePlan]], ForwardContext]
"""A context from slots and plans on the device."""
Forward = Callable[[Tensor, Tensor, Tensor, ForwardContext], Tensor]
"""As `Backend.forward`."""

_log = logging.getLogger(__name__)


class _Graph(NamedTuple):
    """A captured forward and its buffers.

    Attributes:
        host, device: token, position and slot of each row, and the logits indices [4, rows].
        plans: buffers of the attention's plan for each window.
        logits: the output of `replay` [rows, V].
    """

    host: Tensor
    device: Tensor
    plans: dict[int | None, PlanBuffers]
    replay: Callable[[], object]
    logits: Tensor


class CudaGraphRunner:
    """Runs batches as graphs, captured when a size is first used.

    Args:
        forward: the model.
        context: makes a forward's context.
        tiling: of the attention's plans.
        pool: its last slot is the scratch slot, which is never given to a request.
        capture: how a step is captured.

    Attributes:
        replays: number of forwards that were replayed.
    """

    def __init__(
        self,
        forward: Forward,
        context: ContextOf,
        tiling: Tiling,
        pool: KVPool,
        device: torch.device,
        capture: Capture,
    ) -> None:
        self._forward, self._context, self._tiling = forward, context, tiling
        self._pool, self._device, self._capture = pool, device, capture
        self._graphs: dict[int, _Graph] = {}
        self._slots: dict[int | None, SlotBuffer] = {}
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self.replays = 0

    def run(self, batch: Batch, plans: Plans, token_N: Tensor | None = None) -> Tensor | None:
        """Logits of the batch, which the next call overwrites; `None` if it does not fit a graph.

        Args:
            token_N: the rows' tokens, if they are on the device only; then those of the batch are ignored.
        """
        rows = capture_size(batch, plans)
        if rows is None or any(not self.capacity(rows).holds(plan) for plan in plans.values()):
            return None
        graph = self._graphs.get(rows)
        if graph is None:
            if token_N is not None:
                return None
            graph = self._graphs[rows] = self.capture(rows, batch, plans)
        else:
            self._fill(graph.host, graph.device, graph.plans, batch, plans)
            if token_N is not None:
                graph.device[0, : len(token_N)].copy_(token_N)
            graph.replay()
            self.replays += 1
        return graph.logits[: len(batch.logits_indices)]

    def capacity(self, rows: int) -> Capacity:
        """The largest plans that a graph of so many rows holds."""
        tiling, entries = self._tiling, _ENTRIES_PER_ROW * rows
        # Requests that share a cached prefix list its slots separately, so there may be more than the pool has.
        tiles = tiling.tiles + entries
        # If no segment can have more rows than a narrow tile, the kernel of the wide ones is not launched.
        wide = tiles if rows > tiling.narrow else 0
        return Capacity(rows, 2 * self._pool.slots, entries, tiles, wide, tiling.wide * tiling.tiles + entries)

    def capture(self, rows: int, batch: Batch, plans: Plans) -> _Graph:
        """Capture the forward of so many rows, and run this batch by it."""
        host = torch.zeros(4, rows, dtype=torch.long, pin_memory=self._device.type == "cuda")
        device = host.to(self._device, copy=True)
        capacity = self.capacity(rows)
        for window in plans:  # as long as the pool, so all graphs share one: only one of them runs at a time
            if window not in self._slots:
                self._slots[window] = SlotBuffer.of(capacity.slots, self._device)
        buffers = {window: PlanBuffers(capacity, self._device, self._slots[window]) for window in plans}
        self._fill(host, device, buffers, batch, plans)
        token_N, position_N, slot_N, keep_N = device
        context = self._context(slot_N, {window: buffer.plan for window, buffer in buffers.items()})
        _log.info("capturing the forward of %d rows", rows)
        # Capturing runs the step itself, maybe several times: it writes the same keys and values each time.
        replay, logits = self._capture(lambda: self._forward(token_N, position_N, keep_N, context))
        replay()
        return _Graph(host, device, buffers, replay, logits)

    def _fill(self, host: Tensor, device: Tensor, buffers: dict[int | None, PlanBuffers], batch: Batch, plans: Plans) -> None:
        if self._copied is not None:
            self._copied.synchronize()  # the previous copy from this memory has to be finished
        count, kept = len(batch.token_N), len(batch.logits_indices)
        numbers = host.numpy()
        numbers[0, :count], numbers[0, count:] = batch.token_N.numpy(), 0
        numbers[1, :count], numbers[1, count:] = batch.position_N.numpy(), 0
        numbers[2, :count], numbers[2, count:] = batch.slot_N.numpy(), self._pool.slots - 1
        numbers[3, :kept], numbers[3, kept:] = batch.logits_indices, 0
        device.copy_(host, non_blocking=True)
        for window, plan in plans.items():
            buffers[window].fill(plan)
        if self._copied is not None:
            self._copied.record()


def capture_size(batch: Batch, plans: Plans) -> int | None:
    """Rows of the graph for a batch; `None` if it has too many, or rows that are in no plan."""
    count = len(batch.token_N)
    if not plans or count > CAPTURE_SIZES[-1] or any(family.shared_RU is not None for family in batch.families):
        return None
    return CAPTURE_SIZES[bisect_left(CAPTURE_SIZES, count)]


def cuda_capture(device: torch.device) -> Capture:
    """Captures steps as CUDA graphs that share their working memory: only one of them runs at a time."""
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Step) -> tuple[Callable[[], object], Tensor]:
        # Before a capture everything has to be compiled and initialised, outside of the stream that is captured.
        warmup = torch.cuda.Stream(device)
        warmup.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(warmup):
            for _ in range(2):
                step()
        torch.cuda.current_stream(device).wait_stream(warmup)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            logits = step()
        return graph.replay, logits

    return capture
