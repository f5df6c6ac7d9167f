"""How many threads compute, and how they wait for each other. No torch.

The threads of a parallel loop wait for the last of them. By default they spin meanwhile, for milliseconds: as long as another
process has one of the cores, that takes the time which the last thread needs, and each of the hundreds of loops of a forward is
tens of times slower. Sleeping while they wait costs nothing beside other work, but on a virtual machine, where a sleeping core
is slow to wake up, it can halve the speed of an idle machine. So threads spin, and only as many compute as other processes
leave cores (`FreeCores`). Where that is not known, they sleep.

The OpenMP runtime reads its settings when torch is loaded, and never again, so importing `multiverse` calls `prepare`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_POLICY = "OMP_WAIT_POLICY"  # of every OpenMP runtime that torch is built with
_COUNT = "OMP_NUM_THREADS"
_WAITING = (_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def prepare() -> None:
    """Set how OpenMP's threads wait, and their number where a quota allows less than all cores, in this process's environment.

    What the user has set is left alone. Does nothing once torch is loaded.
    """
    if "torch" in sys.modules:
        return
    if not _any_set(_WAITING) and _busy_seconds() is None:
        os.environ[_POLICY] = "PASSIVE"
    if not os.environ.get(_COUNT) and (cores := usable_cores()) < _cores():
        os.environ[_COUNT] = str(cores)


def chosen() -> bool:
    """Whether the environment says how many threads compute."""
    return _any_set((_COUNT,))


class FreeCores:
    """How many cores other processes leave to this one, from the counts that the system keeps of busy time.

    Cheap enough to be asked before every forward: the counts are read at most every tenth of a second.
    """

    def __init__(self) -> None:
        self._found = self._most = usable_cores()
        self._counts = self._read()

    def count(self) -> int:
        """Number of cores, at least 1; all that may be used where the system keeps no counts."""
        if self._counts is None:
            return self._most
        now = time.monotonic()
        began, busy, own = self._counts
        soon = self._found == self._most and _switches() - self._switched > _CROWDED
        if now - began >= (_SOON if soon else _INTERVAL) and (counts := self._read()) is not None:
            _, busy_now, own_now = self._counts = counts
            others = max(0.0, (busy_now - busy) - (own_now - own)) / (now - began)
            self._found = max(1, min(self._most, _cores() - math.ceil(others - _SLIGHT)))
        return self._found

    def _read(self) -> tuple[float, float, float] | None:
        """Now, and the seconds for which this process's cores were busy, and this process was; `None` without counts."""
        busy = _busy_seconds()
        self._switched = _switches()
        return (time.monotonic(), busy, time.process_time()) if busy is not None else None


_INTERVAL, _SOON = 0.5, 0.1
"""Seconds over which busy time is measured; fewer once this process has been interrupted often."""
_CROWDED = 20
"""Interruptions that show that there are more threads than cores."""
_SLIGHT = 0.35
"""Part of a core that others may use before it counts as taken."""


def usable_cores() -> int:
    """Number of cores that this process may keep busy: those it may run on, within the CPU quota of its container.

    A part of a core counts as one: 1.5 are 2.
    """
    quota = cpu_quota()
    cores = _cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU quota of this process's control groups (versions 1 and 2), in cores; `None` without one.

    Args:
        root: of the file system; tests put another one there.
    """
    limits = [limit for folder in _groups(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _any_set(names: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) for name in names)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _switches() -> int:
    """How often a thread of this process was interrupted for another one."""
    import resource  # not on every system, but wherever there are counts of busy time

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _busy_seconds(file: Path = Path("/proc/stat")) -> float | None:
    """Seconds for which the cores that this process may run on were busy since the system started; `None` if not known.

    What a hypervisor took away counts as busy.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in _lines(file):
        name, *counts = line.split()
        if name in own:
            user, nice, system, _idle, _wait, interrupts, soft, stolen = (int(count) for count in counts[:8])
            ticks += user + nice + system + interrupts + soft + stolen
            own.remove(name)
    return None if own else ticks / os.sysconf("SC_CLK_TCK")


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that this process is in and that can limit its CPU time, up to the topmost."""
    mounts = [line.split() for line in _lines(root / "proc/self/mountinfo")]
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        unified = number == "0" and not controllers
        if not unified and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            # number, parent, device, root within the file system, mount point, options, ..., "-", type, source, options
            inner, point, (kind, _, options) = mount[3], mount[4], mount[mount.index("-") + 1 :][:3]
            if kind == "cgroup2" if unified else kind == "cgroup" and "cpu" in options.split(","):
                own = (
                    path.removeprefix(inner.rstrip("/")).strip("/") if (path + "/").startswith(inner.rstrip("/") + "/") else ""
                )
                top = root / point.lstrip("/")
                folder = top / own
                yield folder
                while folder != top:
                    folder = folder.parent
                    yield folder


def _limit(folder: Path) -> float | None:
    """Quota of one control group, in cores."""
    words = [word for line in _lines(folder / "cpu.max") for word in line.split()]
    words = words or [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    try:
        quota, period = (float(word) for word in words)  # "max" is no number
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None  # version 1 writes -1 for none


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
