"""The figures of a run of `multiverse bench`, as they come in, and as JSON. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

FORKED, SEPARATE = "multiverse, branches", "multiverse, requests"
OURS = (FORKED, SEPARATE)


class Case(NamedTuple):
    """An engine decoding a number of rows, each of which has read `prefix` tokens when the clock starts."""

    side: str
    rows: int
    prefix: int


class Whole(NamedTuple):
    """A document of one block, and a text of as many tokens without a fork.

    Attributes:
        seconds, line_seconds: from the first to the last token of each.
    """

    tokens: int
    critical_path_tokens: int
    seconds: float
    line_seconds: float


@dataclass
class Record:
    """All figures; lists hold one entry a round.

    Attributes:
        machine: its description.
        settings: of the run.
        notes: what was left out or failed, and why.
        versions: of the other engines.
        speeds: tokens per second over all rows.
        first_tokens: seconds to the first token, under (side, prefix).
        documents: under (paths, prefix).
        interrupted: whether the run was ended early.
    """

    model: str
    machine: str
    date: str
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    speeds: dict[Case, list[float]] = field(default_factory=dict)
    first_tokens: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    documents: dict[tuple[int, int], list[Whole]] = field(default_factory=dict)
    interrupted: bool = False

    def clear(self) -> None:
        """Drop all figures, after the warm-up."""
        for table in (self.speeds, self.first_tokens, self.documents):
            table.clear()

    @property
    def sides(self) -> list[str]:
        """The engines that were measured, ours first."""
        found = dict.fromkeys([case.side for case in self.speeds] + [side for side, _ in self.first_tokens])
        return [*(side for side in OURS if side in found), *(side for side in found if side not in OURS)]

    @property
    def rows(self) -> list[int]:
        """Numbers of rows that were measured."""
        return sorted({case.rows for case in self.speeds})

    @property
    def prefixes(self) -> list[int]:
        """Prefixes that were measured."""
        return sorted({case.prefix for case in self.speeds} | {prefix for _, prefix in self.first_tokens})

    def ratios(self, case: Case) -> list[float]:
        """Our speed over this engine's with as many rows, in each round: of branches, where the model forks."""
        ours = next((self.speeds[own] for side in OURS if (own := case._replace(side=side)) in self.speeds), [])
        return [a / b for a, b in zip(ours, self.speeds.get(case, []), strict=False)]

    def gains(self, rows: int, prefix: int) -> list[float]:
        """The speed of so many branches over that of a text in a line, in each round."""
        line = self.speeds.get(Case(SEPARATE, 1, prefix), [])
        return [a / b for a, b in zip(self.speeds.get(Case(FORKED, rows, prefix), []), line, strict=False)]

    def to_json(self) -> dict[str, Any]:
        """Plain objects: medians, with the figure of every round beside them."""
        return {
            "model": self.model,
            "machine": self.machine,
            "date": self.date,
            "settings": self.settings,
            "versions": self.versions,
            "notes": self.notes,
            "interrupted": self.interrupted,
            "decode": list(self._decode()),
            "first_token": [
                {"engine": side, "prefix": prefix, "seconds": median(values), "rounds": values}
                for (side, prefix), values in self.first_tokens.items()
            ],
            "documents": [
                {
                    "paths": paths,
                    "prefix": prefix,
                    "tokens": wholes[0].tokens,
                    "critical_path_tokens": wholes[0].critical_path_tokens,
                    "parallelism": wholes[0].tokens / wholes[0].critical_path_tokens,
                    "seconds": median(one.seconds for one in wholes),
                    "line_seconds": median(one.line_seconds for one in wholes),
                    "speedup": median(one.line_seconds / one.seconds for one in wholes),
                }
                for (paths, prefix), wholes in self.documents.items()
            ],
        }

    def _decode(self) -> Iterator[dict[str, Any]]:
        for case, speeds in self.speeds.items():
            ratios = self.ratios(case) if case.side not in OURS else []
            gains = self.gains(case.rows, case.prefix) if case.side == FORKED else []
            yield {
                "engine": case.side,
                "rows": case.rows,
                "prefix": case.prefix,
                "tokens_per_second": median(speeds),
                "rounds": speeds,
                "ours_is_times_as_fast": median(ratios) if ratios else None,
                "times_a_line": median(gains) if gains else None,
            }
