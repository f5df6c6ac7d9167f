"""Plans on the device: where their numbers lie, and buffers that stay where they are while the numbers change.

A kernel that was captured in a graph reads the same memory at every replay, so its plan has to be written there. Without a
graph the buffers are just as large as the plan.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .cascade import Plan

NARROW, WIDE = 0, 4
"""Where in `Work.counts` the two numbers of items are: apart, so that both begin at a multiple of 16 bytes."""
_ALIGNED = 4


class Work(NamedTuple):
    """A plan as a kernel reads it.

    Attributes:
        counts: how many narrow and how many wide items there are, at `NARROW` and `WIDE`.
        room: parts that there has to be memory for.
        slots, entries, narrow, wide, parts, offsets: as in `Plan`, with room behind.
    """

    counts: Tensor
    entries: Tensor
    narrow: Tensor
    wide: Tensor
    parts: Tensor
    offsets: Tensor
    slots: Tensor
    room: int


class Capacity(NamedTuple):
    """The most of everything that buffers hold."""

    rows: int
    slots: int
    entries: int
    narrow: int
    wide: int
    parts: int

    @classmethod
    def of(cls, plan: Plan) -> Capacity:
        """Just enough for one plan."""
        sizes = plan.slots, plan.entries, plan.narrow, plan.wide, plan.parts
        return cls(len(plan.offsets) - 1, *map(len, sizes))

    def holds(self, plan: Plan) -> bool:
        """Whether a plan fits."""
        return all(needed <= there for needed, there in zip(Capacity.of(plan), self, strict=True))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Numbers that each part of `Work` but the slots takes, in its order."""
        numbers = (2 * _ALIGNED, 3 * self.entries, 5 * self.narrow, 5 * self.wide, self.parts, self.rows + 1)
        return tuple(-(-number // _ALIGNED) * _ALIGNED for number in numbers)


class SlotList(NamedTuple):
    """Memory for the slots of a plan, on the host and on the device."""

    host: Tensor
    device: Tensor

    @classmethod
    def of(cls, slots: int, device: torch.device) -> SlotList:
        """Room for so many."""
        host = torch.zeros(slots, dtype=torch.int32, pin_memory=device.type == "cuda")
        return cls(host, torch.zeros(slots, dtype=torch.int32, device=device))


class Buffers:
    """Memory for plans up to a capacity, on the host and on the device.

    The host's side is written again for every forward; whoever does it sees to it that it has been copied by then.

    Args:
        slots: memory for the slots, where several share it.
    """

    def __init__(self, capacity: Capacity, device: torch.device, slots: SlotList | None = None) -> None:
        self.capacity = capacity
        size = sum(capacity.lengths)
        self._host = torch.zeros(size, dtype=torch.int32, pin_memory=device.type == "cuda")  # copying waits for nobody
        self._device = torch.zeros(size, dtype=torch.int32, device=device)
        self._slots = SlotList.of(capacity.slots, device) if slots is None else slots
        counts, entries, narrow, wide, parts, offsets = self._device.split(capacity.lengths)
        self.work = Work(counts, entries, narrow, wide, parts, offsets, self._slots.device, capacity.parts)

    def fill(self, plan: Plan) -> Work:
        """Write a plan, which has to fit, and send it to the device. Rows beyond its own get no parts."""
        numbers = self._host.numpy()
        numbers[NARROW], numbers[WIDE] = len(plan.narrow), len(plan.wide)
        at = self.capacity.lengths[0]
        sections = (plan.entries, plan.narrow, plan.wide, plan.parts)
        for values, length in zip(sections, self.capacity.lengths[1:], strict=False):
            flat = values.reshape(-1)
            numbers[at : at + len(flat)] = flat
            at += length
        numbers[at : at + len(plan.offsets)] = plan.offsets
        numbers[at + len(plan.offsets) :] = len(plan.parts)
        self._device.copy_(self._host, non_blocking=True)
        count = len(plan.slots)
        self._slots.host.numpy()[:count] = plan.slots
        self._slots.device[:count].copy_(self._slots.host[:count], non_blocking=True)
        return self.work


def send(plan: Plan, device: torch.device) -> Work:
    """A plan in buffers of its own."""
    return Buffers(Capacity.of(plan), device).fill(plan)
