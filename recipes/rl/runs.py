"""The runs: what each starts from, how it is trained, and what is measured before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiverse.prompting import Instruction

from .mismatch import MISMATCHES, Mismatch

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_NARROW = {"worksheet": (2, 3), "nested": (2,)}
"""Short problems, as in training, so that a batch of rollouts takes a minute."""


@dataclass(frozen=True)
class Run:
    """One run of reinforcement learning.

    Attributes:
        what: for tables.
        start: name of the start model.
        config: file with its settings, in this folder.
        settings: what replaces them, by dotted name.
        families: held-out problems before and after, with their widths; none is any. Without, a run is judged by its rollouts.
        modes, temperatures: how they are asked, and how answers are drawn.
        n: problems of each family.
        mismatch: what is done to rollouts before the update, to see what it costs.
    """

    what: str
    start: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    families: Mapping[str, Sequence[int]] = field(default_factory=lambda: _NARROW)
    modes: tuple[Instruction, ...] = ("parallel",)
    temperatures: tuple[float, ...] = (0.0,)
    n: int = 200
    mismatch: Mismatch | None = None


_MIDDLE = {"worksheet": (3, 4), "nested": (2,)}
_CORRECT = [{"name": "correct"}]

RUNS: dict[str, Run] = {
    "correctness": Run("correctness rewarded, parallel", "careless", "correctness.yaml", temperatures=(1.0,)),
    "acceleration": Run("correctness and acceleration", "able", "acceleration.yaml", families=_MIDDLE, modes=("as-is",)),
    "no-acceleration": Run(
        "correctness alone",
        "able",
        "acceleration.yaml",
        {"rewards": _CORRECT, "max_steps": 4},
        families={},
    ),
    "sequential": Run(
        "correctness rewarded, sequential",
        "careless",
        "correctness.yaml",
        {"mode": "sequential", "max_steps": 4},
        families={},
    ),
    **{
        f"mismatch-{name}": Run(mismatch.what, "careless", "correctness.yaml", {"max_steps": 3}, families={}, mismatch=mismatch)
        for name, mismatch in MISMATCHES.items()
    },
}
"""All runs by name."""
