"""Tree attention by the Triton kernels: every shared stretch of slots is read once, without gathering it first.

Rows that come as plans (see `cascade.py`) go through the kernels; groups that come as buckets (paths that share their
stretches, whose mask is no interval) through `SdpaBackend`.

Shape legend: as in `tree.py`, and P parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..errors import ExtraError
from .cascade import Family, Plan, Planner, Tiling, plan
from .tree import Call, SdpaBackend, TreeContext
from .work import NARROW, WIDE, Work, send

BLOCK = 64
"""Slots that the kernel takes at a time."""
PARTS = 16
"""Parts of a row that are merged at a time."""
NARROW_LANES, WIDE_LANES = 16, 64
"""Query heads of an item's rows together: the least that a tensor core takes, and what still fits into registers."""
WARPS, MERGE_WARPS = 4, 2
"""Warps of a program: the fastest on an H100, and the compiler spills next to nothing (tests/attention/compile_kernels.py)."""


class TritonBackend(SdpaBackend):
    """Computes plans by the Triton kernels, and lays them out.

    Args:
        programs: how many programs keep the device busy.

    Raises:
        ExtraError: Triton is not installed.
    """

    def __init__(self, programs: int) -> None:
        try:
            from . import triton_kernels
        except ImportError:
            raise ExtraError("triton", "cuda") from None
        self._kernels: Any = triton_kernels
        self.planner: Planner | None = self
        self.programs = programs
        self.heads: tuple[int, int] | None = None
        """Query heads and key/value heads of the model, once a forward has shown them."""
        self.windows: set[int | None] = set()
        """Windows of its layers, likewise."""

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Run the kernels once, on rows that see 100 slots together and one each alone, and compare with torch.

        Raises:
            RuntimeError: they give something else. What Triton raises where it cannot compile for the device comes as it is.
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
        for wide in (False, True):  # the shared piece once as narrow items, once as wide ones
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
                    raise RuntimeError("the attention kernels give something else than torch on this device")

    @property
    def tiling(self) -> Tiling:
        """How plans are cut for the model's heads."""
        assert self.heads is not None, "no forward has shown the model's heads yet"
        heads, kv_heads = self.heads
        folds = heads // kv_heads
        narrow, wide = self.lanes(folds)
        return Tiling(narrow // folds, wide // folds, BLOCK, max(1, self.programs // kv_heads))

    @staticmethod
    def lanes(folds: int) -> tuple[int, int]:
        """Lanes of narrow and of wide items."""
        least = 1 << (folds - 1).bit_length()
        return max(NARROW_LANES, least), max(WIDE_LANES, least)

    def plan(self, families: Sequence[Family], rows: int) -> dict[int | None, Plan]:
        """One plan for each window that the model's layers have."""
        return {window: plan(families, rows, self.tiling, window) for window in self.windows}

    def attend(self, query_NHD: Tensor, layer: int, context: TreeContext, scale: float, window: int | None) -> Tensor:
        """As `Backend.attend`."""
        key_SKD, value_SKV = context.pool.key_SKD[layer], context.pool.value_SKV[layer]
        self.heads = query_NHD.shape[1], key_SKD.shape[1]
        self.windows.add(window)
        work = context.works.get(window)
        if work is None:
            return super().attend(query_NHD, layer, context, scale, window)
        out_NHV = query_NHD.new_empty(*query_NHD.shape[:2], value_SKV.shape[2])
        call = Call(query_NHD.contiguous(), key_SKD, value_SKV, out_NHV, scale, window)
        self.launch(call, work)
        self.attend_buckets(call, context)
        return out_NHV

    def launch(self, call: Call, work: Work) -> None:
        """Write the output of all rows that the work knows, and zeros for the others."""
        query_NHD, key_SKD, value_SKV = call.query_NHD, call.key_SKD, call.value_SKV
        rows, heads, size = query_NHD.shape
        kv_heads, value_size = value_SKV.shape[1:]
        folds = heads // kv_heads
        part_PHV = query_NHD.new_empty(work.room, heads, value_size, dtype=torch.float32)
        lse_PH = query_NHD.new_empty(work.room, heads, dtype=torch.float32)
        value_padded = _power(value_size)
        grid = (max(1, self.programs // kv_heads), kv_heads)
        narrow, wide = self.lanes(folds)
        early = begins_early(rows, query_NHD.device)
        for items, count, lanes in ((work.narrow, NARROW, narrow), (work.wide, WIDE, wide)):
            if not len(items):
                continue
            self._kernels.attend_items[grid](
                query_NHD,
                key_SKD,
                value_SKV,
                part_PHV,
                lse_PH,
                work.slots,
                work.entries,
                items,
                work.counts[count:],
                call.scale / math.log(2),
                *(query_NHD.stride(0), query_NHD.stride(1)),
                *(key_SKD.stride(0), key_SKD.stride(1)),
                *(value_SKV.stride(0), value_SKV.stride(1)),
                HEADS=heads,
                FOLDS=folds,
                SIZE=size,
                VALUE_SIZE=value_size,
                PADDED=_power(size),
                VALUE_PADDED=value_padded,
                LANES=lanes,
                BLOCK=BLOCK,
                EARLY=early,
                num_warps=WARPS,
                enable_fp_fusion=True,
                launch_pdl=early,
            )
        self._kernels.merge_parts[(rows, heads)](
            part_PHV,
            lse_PH,
            call.out_NHV,
            work.parts,
            work.offsets,
            HEADS=heads,
            VALUE_SIZE=value_size,
            VALUE_PADDED=value_padded,
            PARTS=PARTS,
            EARLY=early,
            num_warps=MERGE_WARPS,
            enable_fp_fusion=True,
            launch_pdl=early,
        )


def begins_early(rows: int, device: torch.device) -> bool:
    """Whether a kernel is to begin before the one ahead of it has ended, and wait in itself.

    For one row that hides what it takes to start a kernel. With more rows, kernels that wait stand in the way of those that
    work: four branches behind 8,000 tokens took 12% longer on an H100.
    """
    return rows == 1 and _can_begin_early(device)


@cache
def _can_begin_early(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def _power(size: int) -> int:
    """The power of two that a kernel takes for a head size; tensor cores want 16 at least."""
    return max(16, 1 << (size - 1).bit_length())
