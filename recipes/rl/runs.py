"""The runs: what each starts from, how it is trained, and what is measured before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multiverse.prompting import Instruction

from .mismatch import MISMATCHES, Mismatch

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Run:
    """One run of reinforcement learning.

    Attributes:
        what: for tables.
        start: name of the start model.
        config: file with its settings, in this folder.
        settings: what replaces them, by dotted name.
        families, modes, temperatures: held-out problems before and after, how they are asked, and how answers are drawn.
        n: problems of each family.
        mismatch: what is done to rollouts before the update, to see what it costs.
    """

    what: str
    start: str
    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = ("worksheet", "nested")
    modes: tuple[Instruction, ...] = ("parallel",)
    temperatures: tuple[float, ...] = (0.0, 1.0)
    n: int = 150
    mismatch: Mismatch | None = None


_ALL = ("worksheet", "cases", "countdown", "nested", "chain")
_CORRECT = [{"name": "correct"}]

RUNS: dict[str, Run] = {
    "correctness": Run("correctness rewarded, parallel", "form", "correctness.yaml"),
    "acceleration": Run("correctness and acceleration", "able", "acceleration.yaml", families=_ALL, modes=("as-is",), n=60),
    "no-acceleration": Run(
        "correctness alone",
        "able",
        "acceleration.yaml",
        {"rewards": _CORRECT},
        families=_ALL,
        modes=("as-is",),
        n=60,
    ),
    "collapse": Run("correctness alone", "free", "collapse.yaml", modes=("as-is",)),
    "shaped": Run(
        "correctness, acceleration, well-formed blocks",
        "free",
        "collapse.yaml",
        {
            "rewards": [
                *_CORRECT,
                {"name": "acceleration", "weight": 0.5},
                {"name": "well_formed", "weight": 0.2, "alternate": [2, 10]},
            ]
        },
        modes=("as-is",),
    ),
    # A forking answer has 334 sampled tokens on average, one in a line about 285.
    "sequential": Run(
        "correctness rewarded, sequential",
        "form",
        "correctness.yaml",
        {"mode": "sequential", "max_steps": 70},
        modes=("sequential",),
    ),
    **{
        f"mismatch-{name}": Run(mismatch.what, "form", "correctness.yaml", mismatch=mismatch)
        for name, mismatch in MISMATCHES.items()
    },
}
"""All runs by name."""
