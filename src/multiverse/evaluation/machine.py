"""Description of the machine."""

from __future__ import annotations

import platform
from pathlib import Path


def describe_machine(device: str = "auto") -> str:
    """One line: processor, cores that may be used, GPU, versions.

    Args:
        device: the GPU is named if this is one; ``auto`` names the present one, if any.
    """
    import torch
    import transformers

    from ..backends import on_gpu
    from ..threads import usable_cores

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = usable_cores()
    gpu = (
        f", {torch.cuda.get_device_name(None if device == 'auto' else device)}, CUDA {torch.version.cuda}"
        if on_gpu(device)
        else ""
    )
    processor = names[0] if names else platform.processor() or platform.machine()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{processor}, {cores} {'core' if cores == 1 else 'cores'}{gpu}, {versions}"
