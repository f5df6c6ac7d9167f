"""The CPU backend: native bfloat16 kernels where they can be compiled, packed linear layers elsewhere."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ... import threads
from ..batch import Batch
from ..buckets import BucketPlan
from ..invariant.attention import PaddedTiles
from ..invariant.linears import invariant_linear
from ..invariant.modules import make_invariant
from ..kv_pool import Call
from ..torch import CPU, TorchBackend
from .build import Attend, AttendTiles, kernels
from .layers import use_kernels
from .packed_linears import PackedLinear, pack_linears
from .quantised_linears import make_quantised_invariant, quantised_parameters
from .trim import trim

_TILE_ROWS = 16
MAX_KERNEL_ROWS = 16
"""Rows of a group up to which the attention kernel is used: faster in measurements. Larger groups are gathered for SDPA."""
TRIM_INTERVAL = 10.0
"""Seconds between two calls of `trim`, which takes a few milliseconds."""
_SMALL = 128 << 20
"""Parameters times rows up to which one thread computes a forward: several would wait for each other longer than they work."""


class CpuBackend(TorchBackend):
    """Attention of few rows by a native kernel that reads slots in place; other groups, dtypes and head sizes by torch.

    Which of the two computes a group depends on the group alone: groups of few and of many rows are in separate buckets.

    Attributes:
        library: the native kernels; `None` until `prepare` has found that the model uses them.
        free_cores: decides how many threads compute (see `multiverse.threads`); `None` if the environment does.
    """

    library: ctypes.CDLL | None = None

    def __init__(self, device: torch.device = CPU, *, packed_linears: bool = True, deterministic: bool = False) -> None:
        super().__init__(device, deterministic=deterministic)
        self._packed_linears = packed_linears
        self._trimmed_at = time.monotonic()
        self._most = threads.usable_cores()
        self.free_cores = None
        if not threads.chosen():
            # Here too, since torch may have been loaded first, and knows nothing of quotas.
            torch.set_num_threads(min(torch.get_num_threads(), threads.usable_cores()))
            self.free_cores = threads.FreeCores()

    def replace_modules(self, model: Any) -> None:
        """Replace layers and modules by native ones, and the remaining linear layers by packed ones."""
        self._parameters = model.num_parameters() + quantised_parameters(model)
        if self.deterministic:
            make_quantised_invariant(model)
        dtype = next(model.parameters()).dtype
        library = kernels() if self._packed_linears and dtype in (torch.bfloat16, torch.float32) else None
        if library is not None and dtype == torch.bfloat16 and use_kernels(model, library, invariant=self.deterministic):
            self.use_library(library)
        if self.deterministic:
            if library is not None:
                self.use_library(library)
            make_invariant(model, partial(invariant_linear, pack=self._packed_linears, keep=self.updatable))
        elif self._packed_linears:
            pack_linears(model, keep=self.updatable)

    def refresh(self) -> None:
        """As `Backend.refresh`: packed linear layers are packed again. Kernels read the modules' own weights."""
        for module in self.model.modules():
            if isinstance(module, PackedLinear):
                module.refresh()

    def use_library(self, library: ctypes.CDLL) -> None:
        """Compute attention with these kernels."""
        self.library, self.split_rows = library, MAX_KERNEL_ROWS
        self.chunk, self.tile_rows = library.multiverse_chunk(), _TILE_ROWS

    def run(self, batch: Batch) -> Tensor:
        """As `Backend.run`; now and then returns free memory to the system."""
        with self._threads(len(batch.token_N)):
            logits = super().run(batch)
        if time.monotonic() - self._trimmed_at >= TRIM_INTERVAL:
            trim()
            self._trimmed_at = time.monotonic()
        return logits

    def limit_threads(self, most: int) -> None:
        """As in `Backend`."""
        self._most = most

    @contextmanager
    def _threads(self, rows: int) -> Iterator[None]:
        """Context in which torch computes by as many threads as there are free cores, or by one if there is little to do."""
        before = torch.get_num_threads()
        wanted = before
        if self.free_cores is not None:
            wanted = 1 if self._parameters * rows <= _SMALL else min(before, self._most, self.free_cores.count())
        if wanted == before:
            yield
            return
        torch.set_num_threads(wanted)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def attend_bucket(self, call: Call, plan: BucketPlan) -> None:
        """Write the output of one bucket's rows."""
        bucket, (_, heads, size) = plan.bucket, call.query_NHD.shape
        groups, rows = bucket.row_GR.shape
        kv_heads, value_size = call.value_SKV.shape[1:]
        fits = call.query_NHD.dtype == call.key_SKD.dtype == torch.bfloat16 and size % 32 == 0 and value_size % 16 == 0
        if self.library is None or rows > MAX_KERNEL_ROWS or not fits:
            super().attend_bucket(call, plan)
            return
        visible_GRU = plan.visible(call.window)
        self.library.multiverse_attend(
            Attend(
                call.query_NHD.data_ptr(),
                call.key_SKD.data_ptr(),
                call.value_SKV.data_ptr(),
                call.out_NHV.data_ptr(),
                bucket.row_GR.data_ptr(),
                bucket.slot_GU.data_ptr(),
                None if visible_GRU is None else visible_GRU.data_ptr(),
                *(heads, kv_heads, size, value_size, groups, rows, bucket.slot_GU.shape[1]),
                call.scale,
            )
        )

    def attend_tiles(self, call: Call, tiles: PaddedTiles) -> None:
        """Write the output of the rows of a plan."""
        dtype = call.query_NHD.dtype
        if self.library is None or dtype != call.key_SKD.dtype or dtype not in (torch.bfloat16, torch.float32):
            super().attend_tiles(call, tiles)
            return
        (rows, heads, size), (kv_heads, value_size) = call.query_NHD.shape, call.value_SKV.shape[1:]
        library, plan = self.library, tiles.plan
        attend = library.multiverse_attend_tiles if dtype == torch.bfloat16 else library.multiverse_attend_tiles_float
        attend(
            AttendTiles(
                *(tensor.data_ptr() for tensor in call[:4]),
                *(array.ctypes.data for array in plan),
                *(heads, kv_heads, size, value_size, len(plan.tiles), rows, len(plan.entries)),
                call.scale,
            )
        )
