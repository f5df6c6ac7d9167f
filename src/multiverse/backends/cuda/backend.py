"""The CUDA backend: Triton kernels for attention and layers, CUDA graphs, and forwards that are begun ahead."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ...errors import first_line, require
from ..base import ForwardContext
from ..batch import Batch
from ..buckets import build_buckets
from ..fused_layers import fuse_layers, fuse_norms
from ..invariant.modules import make_invariant
from ..kv_pool import Call, KVPool
from ..torch import TorchBackend
from .attention import TiledAttention
from .buffers import DevicePlan, send
from .cuda_graphs import Capture, CudaGraphRunner, Plans, cuda_capture
from .layers import InvariantTritonLinear, TritonKernels

_PROGRAMS_PER_SM = 2  # as many programs of narrow tiles run at once
_MAX_ROWS_AHEAD = 4  # each branch may fork or end at any token, and a wrong forward costs nearly a whole step

_log = logging.getLogger(__name__)


class _Ahead(NamedTuple):
    """A forward that has been begun.

    Attributes:
        batch: its tokens are not valid.
        host_N: its input tokens, on the host by the time of the next call of `run`.
    """

    batch: Batch
    host_N: Tensor
    logits: Tensor


class CudaBackend(TorchBackend):
    """Rows go through `TiledAttention`, except those of requests with `share_every`, whose mask is not an interval.

    Deterministic, all rows do, in tiles that are cut at fixed places.

    Small forwards run as CUDA graphs. With few rows the GPU waits for the host between two forwards, so the next forward is
    begun as soon as its tokens are on the device (asynchronous scheduling). If a fork, a join, an end or a new request makes
    the next batch a different one, its result is dropped; it has only written to free slots.

    Args:
        capture: how graphs are captured; `None` runs without graphs and without asynchronous scheduling.
        packed_linears: replace layers by fused ones.

    Attributes:
        hits, misses: number of forwards begun ahead that were used, and that were not.
    """

    def __init__(
        self, device: torch.device, attention: TiledAttention, capture: Capture | None, *, packed_linears: bool = True
    ) -> None:
        super().__init__(device, deterministic=attention.deterministic)
        self.attention = attention
        self.graphs: CudaGraphRunner | None = None
        self._capture, self._packed_linears = capture, packed_linears
        self._ahead: _Ahead | None = None
        self.max_rows_ahead = 0 if capture is None else _MAX_ROWS_AHEAD
        self.hits = self.misses = 0

    @classmethod
    def create(
        cls, device: torch.device, dtype: torch.dtype, *, packed_linears: bool, deterministic: bool = False
    ) -> CudaBackend:
        """The backend of a GPU.

        Raises:
            ExtraError: Triton is not installed.
            RuntimeError: its kernels give other results than torch. Other exceptions of Triton are passed on.
        """
        require("triton", "cuda")
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        attention = TiledAttention(_PROGRAMS_PER_SM * processors, deterministic=deterministic)
        attention.check(device, dtype)
        return cls(device, attention, cuda_capture(device), packed_linears=packed_linears)

    def replace_modules(self, model: Any) -> None:
        """Fuse layers and norms; if deterministic, compute all linear layers and norms by the kernels."""
        try:
            if self._packed_linears:
                fuse_layers(model, TritonKernels(invariant=self.deterministic))
            if self._packed_linears or self.deterministic:
                fuse_norms(model, TritonKernels())
        except Exception as error:  # the model runs without, too
            _log.warning("layers are not fused: %s: %s", type(error).__name__, first_line(error))
        if self.deterministic:
            make_invariant(model, InvariantTritonLinear)

    def allocate(self, kv_memory: int | None) -> Self:
        """As `Backend.allocate`; one slot more is allocated for padding rows of graphs."""
        backend = super().allocate(kv_memory)
        if self._capture is not None:
            backend.pool = KVPool(backend.num_slots + 1)
            backend.graphs = CudaGraphRunner(
                backend.forward, backend._context, self.attention.tiling, backend.pool, self.device, self._capture
            )
        return backend

    def close(self) -> None:
        """As `Backend.close`; graphs, which hold memory of their own, go, too."""
        self.graphs = self._ahead = None
        super().close()

    def run(self, batch: Batch) -> Tensor:
        """As `Backend.run`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.batch.token_N = ahead.host_N
            if ahead.batch.same(batch):
                self.hits += 1
                return ahead.logits
            self.misses += 1
        return self._run(batch)

    @torch.inference_mode()
    def _run(self, batch: Batch) -> Tensor:
        plans = self.plan_tiles(batch)
        if self.graphs is not None and (logits := self.graphs.run(batch, plans)) is not None:
            return logits
        return self._run_context(batch, self._plan(batch, plans))

    @torch.inference_mode()
    def run_ahead(self, batch: Batch, token_N: Tensor, host_N: Tensor) -> None:
        """As `Backend.run_ahead`; does nothing if no graph of this size has been captured yet."""
        if self.graphs is None:
            return
        # A negative token stands for a row whose logits were not finite: its request ends, and the result is not used.
        logits = self.graphs.run(batch, self.plan_tiles(batch), token_N.clamp(min=0))
        if logits is not None:
            self._ahead = _Ahead(batch, host_N, logits)

    def plan_tiles(self, batch: Batch) -> Plans:
        """The plans of the rows that go through `TiledAttention`; empty if there are none."""
        families = [family for family in batch.families if self.deterministic or family.shared_RU is None]
        return self.attention.plan(families, len(batch.token_N)) if families else {}

    def plan(self, batch: Batch) -> ForwardContext:
        """As `Backend.plan`."""
        return self._plan(batch, self.plan_tiles(batch))

    def _plan(self, batch: Batch, plans: Plans) -> ForwardContext:
        context = self._context(self._send(batch.slot_N), {window: send(plan, self.device) for window, plan in plans.items()})
        shared = [family for family in batch.families if not self.deterministic and family.shared_RU is not None]
        context.buckets += [bucket.to(self.device) for bucket in build_buckets(shared)]
        return context

    def _context(self, slot_N: Tensor, tiles: dict[int | None, DevicePlan]) -> ForwardContext:
        return ForwardContext(self.pool, self, slot_N, [], tiles)

    def attend(self, query_NHD: Tensor, layer: int, context: ForwardContext, scale: float, window: int | None) -> Tensor:
        """As `Backend.attend`."""
        key_SKD, value_SKV = context.pool.key_SKD[layer], context.pool.value_SKV[layer]
        self.attention.observe(query_NHD, key_SKD, window)
        work = context.tiles.get(window)
        if work is None:
            return super().attend(query_NHD, layer, context, scale, window)
        out_NHV = query_NHD.new_empty(*query_NHD.shape[:2], value_SKV.shape[2])
        call = Call(query_NHD.contiguous(), key_SKD, value_SKV, out_NHV, scale, window)
        self.attention.launch(call, work)
        self.attend_buckets(call, context)
        return out_NHV
