"""What the figures were measured on."""

from __future__ import annotations

from datetime import date

import torch

from multiverse.evaluation.machine import describe_machine


def describe(device: str = "cpu") -> str:
    """One line: processor (and GPU, where it is one that was measured on), cores, versions, threads, date."""
    return f"{describe_machine(device)}, {torch.get_num_threads()} threads, {date.today()}"
