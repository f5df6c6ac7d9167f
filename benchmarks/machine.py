"""The machine that figures are measured on: its description, its load, and the memory of a process."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

from multiverse.evaluation.machine import describe_machine

BUSY = 0.5
"""Load average above which the machine counts as busy."""
MAX_GROWTH = 0.02
"""Most by which memory may grow from the second to the last quarter of a run, as a share, to count as flat."""


def describe(device: str = "cpu") -> str:
    """One line: processor (and GPU, if `device` is one), cores, versions, threads, date."""
    return f"{describe_machine(device)}, {torch.get_num_threads()} threads, {date.today()}"


def load_notes() -> list[str]:
    """A note for the report if other processes keep this machine busy, else nothing."""
    load = os.getloadavg()[0]
    return [f"The machine was busy when the run started: load average {load:.1f}."] if load > BUSY else []


def resident_mib(pid: int | str = "self", *, peak: bool = False) -> float:
    """Resident memory of a process, or the most that it ever was, in MiB. Needs Linux's ``/proc``."""
    status = Path(f"/proc/{pid}/status").read_text()
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(name))


def peak_mib(work: Callable[[], object], device: str = "cpu") -> float:
    """MiB that `work` takes at most beyond what is there before. On a CPU: run it in a process of its own."""
    if device == "cuda":
        before: float = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / (1 << 20)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of a process is what it has now
    before = resident_mib()
    work()
    return resident_mib(peak=True) - before


def synchronize(device: str) -> None:
    """Wait until the device has finished all queued work."""
    if device == "cuda":
        torch.cuda.synchronize()
