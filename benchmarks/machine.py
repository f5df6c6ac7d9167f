"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

import torch
import transformers


def describe() -> str:
    """One line: processor, cores, versions, date."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    cpu = names[0] if names else platform.processor() or platform.machine()
    gpu = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, " if torch.cuda.is_available() else ""
    return (
        f"{gpu}{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {date.today()}"
    )
