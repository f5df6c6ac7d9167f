"""Attention by the Triton kernels: every shared list of slots is read once, in place.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values where it differs), S slots of
the pool, P partials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..batch import Family
from ..invariant.plan import plan_tiles
from ..kv_pool import Call
from .buffers import NARROW, WIDE, DevicePlan, send
from .plan import Plan, Tiling, plan

CHUNK = 512
"""Slots of a tile, if deterministic: a multiple of the block."""
BLOCK = 64
"""Slots that the kernel reads at a time."""
MERGED_PARTIALS = 16
"""Partials of a row that are merged at a time."""
NARROW_LANES, WIDE_LANES = 16, 64
"""Query heads of a tile's rows together: the least that a tensor core takes, and the most that fit into registers."""
WARPS, MERGE_WARPS = 4, 2
"""Warps of a program: the fastest on an H100, with next to no register spills (tests/backends/cuda/compile_kernels.py)."""


class TiledAttention:
    """Plans the attention of a forward as tiles and computes it by the Triton kernels.

    Args:
        programs: number of programs that keeps the device busy.
        deterministic: cut tiles at fixed places (`invariant/plan.py`) and compute all of them by one kernel.

    Attributes:
        heads: query heads and key/value heads of the model, known after its first forward.
        windows: sliding windows of its layers (`None` for full attention), likewise.
    """

    def __init__(self, programs: int, *, deterministic: bool = False) -> None:
        self.programs, self.deterministic = programs, deterministic
        self.heads: tuple[int, int] | None = None
        self.windows: set[int | None] = set()

    def observe(self, query_NHD: Tensor, key_SKD: Tensor, window: int | None) -> None:
        """Learn heads and windows from a call of a layer's attention."""
        self.heads = query_NHD.shape[1], key_SKD.shape[1]
        self.windows.add(window)

    @property
    def tiling(self) -> Tiling:
        """The size of tiles for the model's heads."""
        assert self.heads is not None, "the model has not run a forward yet"
        heads, kv_heads = self.heads
        folds = heads // kv_heads
        narrow, wide = lanes(folds)
        return Tiling(narrow // folds, wide // folds, BLOCK, max(1, self.programs // kv_heads))

    def plan(self, families: Sequence[Family], rows: int) -> dict[int | None, Plan]:
        """A plan for each window that the model's layers have; `rows` as in `plan.plan`."""
        if self.deterministic:
            return {window: self._fixed_plan(families, rows, window) for window in self.windows}
        return {window: plan(families, rows, self.tiling, window) for window in self.windows}

    def _fixed_plan(self, families: Sequence[Family], rows: int, window: int | None) -> Plan:
        tile_rows = self.tiling.narrow
        (fixed,) = plan_tiles(families, rows, chunk=CHUNK, tile_rows=tile_rows, window=window)
        tiles = np.concatenate([fixed.tiles, fixed.tiles[:, :1]], axis=1)  # an entry's number is that of its partial
        return Plan(fixed.slots, fixed.entries, tiles, tiles[:0], fixed.partials, fixed.offsets)

    def launch(self, call: Call, work: DevicePlan) -> None:
        """Write the output of all rows of a plan, and zeros for the others."""
        from . import attention_kernels as kernels

        query_NHD, key_SKD, value_SKV = call.query_NHD, call.key_SKD, call.value_SKV
        rows, heads, size = query_NHD.shape
        kv_heads, value_size = value_SKV.shape[1:]
        folds = heads // kv_heads
        partial_PHV = query_NHD.new_empty(work.capacity, heads, value_size, dtype=torch.float32)
        lse_PH = query_NHD.new_empty(work.capacity, heads, dtype=torch.float32)
        shape = {"HEADS": heads, "VALUE_SIZE": value_size, "VALUE_PADDED": padded_size(value_size)}
        grid = (max(1, self.programs // kv_heads), kv_heads)
        early = launches_early(rows, query_NHD.device)
        options = {"EARLY": early, "enable_fp_fusion": True, "launch_pdl": early}
        for tiles, count, tile_lanes in zip((work.narrow, work.wide), (NARROW, WIDE), lanes(folds), strict=True):
            if not len(tiles):
                continue
            kernels.attend_tiles[grid](
                *(query_NHD, key_SKD, value_SKV, partial_PHV, lse_PH),
                *(work.slots, work.entries, tiles, work.counts[count:]),
                call.scale / math.log(2),
                *(query_NHD.stride(0), query_NHD.stride(1)),
                *(key_SKD.stride(0), key_SKD.stride(1)),
                *(value_SKV.stride(0), value_SKV.stride(1)),
                **shape,
                FOLDS=folds,
                SIZE=size,
                PADDED=padded_size(size),
                LANES=tile_lanes,
                BLOCK=BLOCK,
                num_warps=WARPS,
                **options,
            )
        kernels.merge_partials[(rows, heads)](
            *(partial_PHV, lse_PH, call.out_NHV, work.partials, work.offsets),
            **shape,
            PARTIALS=MERGED_PARTIALS,
            num_warps=MERGE_WARPS,
            **options,
        )

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Run the kernels once, on rows that share 100 slots and have one each of their own, and compare with torch.

        Raises:
            RuntimeError: the results differ. Exceptions of Triton, such as for an unsupported device, are passed on.
        """
        count, heads, kv_heads, size = 102, 4, 2, 64
        generator = torch.Generator().manual_seed(0)
        shapes = ((2, heads, size), (count, kv_heads, size), (count, kv_heads, size))
        query, key, value = (torch.randn(*shape, generator=generator).to(device, dtype) for shape in shapes)
        owners = np.array([0] * (count - 2) + [1, 2])
        visible = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=bool)
        order = np.arange(count)
        family = Family(np.arange(2), order, np.minimum(order, count - 2), owners, visible)
        call = Call(query, key, value, torch.empty_like(query), size**-0.5, None)
        for wide in (False, True):  # the shared segment once as narrow tiles, once as wide ones
            tiling = Tiling(1 if wide else 2, 2, BLOCK, 2)
            self.launch(call, send(plan([family], 2, tiling), device))
            for row in range(2):
                seen = torch.from_numpy(visible[owners[count - 2 + row], owners]).to(device)
                expected = scaled_dot_product_attention(
                    query[row, None, :, None].float(),
                    key[seen].transpose(0, 1)[None].repeat_interleave(heads // kv_heads, 1).float(),
                    value[seen].transpose(0, 1)[None].repeat_interleave(heads // kv_heads, 1).float(),
                )[0, :, 0]
                if not torch.allclose(call.out_NHV[row].float(), expected, atol=2e-2, rtol=2e-2):
                    raise RuntimeError("the attention kernels give other results than torch on this device")


def lanes(folds: int) -> tuple[int, int]:
    """Lanes of narrow and of wide tiles, for `folds` query heads per key/value head."""
    least = 1 << (folds - 1).bit_length()
    return max(NARROW_LANES, least), max(WIDE_LANES, least)


def launches_early(rows: int, device: torch.device) -> bool:
    """Whether a kernel is launched before the previous one has ended, and waits itself (programmatic dependent launch).

    For one row that hides the launch latency. With more rows, waiting kernels take resources from running ones: four branches
    after 8,000 tokens took 12% longer on an H100.
    """
    return rows == 1 and _can_launch_early(device)


@cache
def _can_launch_early(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def padded_size(size: int) -> int:
    """The power of two that the kernels use for a head size; tensor cores need at least 16."""
    return max(16, 1 << (size - 1).bit_length())
