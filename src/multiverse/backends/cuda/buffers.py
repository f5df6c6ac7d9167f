"""Plans on the device: buffers that stay at one address while their content changes.

A kernel that was captured in a CUDA graph reads the same memory at every replay, so its plan has to be written there. Without
a graph, buffers are as large as the plan.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .plan import Plan

NARROW, WIDE = 0, 4
"""Indices in `DevicePlan.counts` of the numbers of tiles: apart, so that both are at a multiple of 16 bytes."""
_ALIGNED = 4


class DevicePlan(NamedTuple):
    """A plan as a kernel reads it.

    Attributes:
        counts: the numbers of narrow and of wide tiles, at `NARROW` and `WIDE`.
        entries, narrow, wide, partials, offsets, slots: as in `Plan`, with unused space behind.
        capacity: number of partials to allocate memory for.
    """

    counts: Tensor
    entries: Tensor
    narrow: Tensor
    wide: Tensor
    partials: Tensor
    offsets: Tensor
    slots: Tensor
    capacity: int


class Capacity(NamedTuple):
    """Largest sizes that buffers hold."""

    rows: int
    slots: int
    entries: int
    narrow: int
    wide: int
    partials: int

    @classmethod
    def of(cls, plan: Plan) -> Capacity:
        """The sizes of one plan."""
        sizes = plan.slots, plan.entries, plan.narrow, plan.wide, plan.partials
        return cls(len(plan.offsets) - 1, *map(len, sizes))

    def holds(self, plan: Plan) -> bool:
        """Whether a plan fits."""
        return all(needed <= available for needed, available in zip(Capacity.of(plan), self, strict=True))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Length in numbers of each tensor of `DevicePlan` except the slots, in its order."""
        numbers = (2 * _ALIGNED, 3 * self.entries, 5 * self.narrow, 5 * self.wide, self.partials, self.rows + 1)
        return tuple(-(-number // _ALIGNED) * _ALIGNED for number in numbers)


class SlotBuffer(NamedTuple):
    """Memory for the slots of a plan, on the host and on the device."""

    host: Tensor
    device: Tensor

    @classmethod
    def of(cls, slots: int, device: torch.device) -> SlotBuffer:
        """A buffer of this length."""
        host = torch.zeros(slots, dtype=torch.int32, pin_memory=device.type == "cuda")
        return cls(host, torch.zeros(slots, dtype=torch.int32, device=device))


class PlanBuffers:
    """Memory for plans up to a capacity, on the host and on the device.

    The host's side is overwritten by every forward; the caller makes sure that the previous copy has finished.

    Args:
        slots: memory for the slots, if several share it.
    """

    def __init__(self, capacity: Capacity, device: torch.device, slots: SlotBuffer | None = None) -> None:
        self.capacity = capacity
        size = sum(capacity.lengths)
        self._host = torch.zeros(size, dtype=torch.int32, pin_memory=device.type == "cuda")  # for asynchronous copies
        self._device = torch.zeros(size, dtype=torch.int32, device=device)
        self._slots = SlotBuffer.of(capacity.slots, device) if slots is None else slots
        counts, entries, narrow, wide, partials, offsets = self._device.split(capacity.lengths)
        self.plan = DevicePlan(counts, entries, narrow, wide, partials, offsets, self._slots.device, capacity.partials)

    def fill(self, plan: Plan) -> DevicePlan:
        """Write a plan, which has to fit, and send it to the device. Rows beyond the plan's get no partials."""
        numbers = self._host.numpy()
        numbers[NARROW], numbers[WIDE] = len(plan.narrow), len(plan.wide)
        at = self.capacity.lengths[0]
        sections = (plan.entries, plan.narrow, plan.wide, plan.partials)
        for values, length in zip(sections, self.capacity.lengths[1:], strict=False):
            flat = values.reshape(-1)
            numbers[at : at + len(flat)] = flat
            at += length
        numbers[at : at + len(plan.offsets)] = plan.offsets
        numbers[at + len(plan.offsets) :] = len(plan.partials)
        self._device.copy_(self._host, non_blocking=True)
        count = len(plan.slots)
        self._slots.host.numpy()[:count] = plan.slots
        self._slots.device[:count].copy_(self._slots.host[:count], non_blocking=True)
        return self.plan


def send(plan: Plan, device: torch.device) -> DevicePlan:
    """A plan in buffers of its own."""
    return PlanBuffers(Capacity.of(plan), device).fill(plan)
