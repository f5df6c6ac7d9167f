"""A person's decisions about the candidates of an audit, and the table of the accepted ones.

Decisions are JSON lines that are only appended: the last one about an instance counts. They identify an instance by its trace
and sentences, so they stay valid when the candidates are listed again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from ..errors import DataError
from .audit import CANDIDATES, Instance, Listed, Parts, read_candidates, spans_of
from .stages.groups import KINDS

DECISIONS = "decisions.jsonl"
ACCEPT, REJECT, OPEN = VERDICTS = ("accept", "reject", "open")
CATEGORIES = (*KINDS, *(f"nested {kind}" for kind in KINDS))


class Decision(NamedTuple):
    """A decision about an instance.

    Attributes:
        id, parts: trace and sentences of the instance.
        verdict: accept, reject, or open, which revokes an earlier decision.
        kind, nested: its category according to the person.
    """

    id: str
    parts: Parts
    verdict: str
    kind: str
    nested: bool

    @property
    def category(self) -> str:
        """One of `CATEGORIES`."""
        return f"nested {self.kind}" if self.nested else self.kind


class Review:
    """The candidates of a folder, and the decisions about them.

    Attributes:
        listed: every trace of the audit.
        candidates: every instance with its trace.

    Raises:
        DataError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / DECISIONS
        self._decided: dict[tuple[str, Parts], Decision] = {}
        self.listed = list(read_candidates(folder / CANDIDATES))
        self.candidates = [(listed, instance) for listed in self.listed for instance in listed.instances]
        self._read()

    def _read(self) -> None:
        try:
            lines = self._file.read_bytes().split(b"\n") if self._file.exists() else []
        except OSError as error:
            raise DataError(f"{str(self._file)!r} cannot be read ({error.strerror or error}): check the folder") from error
        for line in lines:
            try:
                value = json.loads(line)
                self._apply(Decision(**{**value, "parts": spans_of(value["parts"])}))
            except (ValueError, LookupError, TypeError):
                continue  # truncated by a kill: the instance stays open

    def of(self, listed: Listed, instance: Instance) -> Decision | None:
        """The decision about an instance."""
        return self._decided.get((listed.id, instance.parts))

    def open(self) -> Iterator[int]:
        """Numbers of the undecided candidates; evaluated lazily."""
        return (number for number, (listed, instance) in enumerate(self.candidates) if self.of(listed, instance) is None)

    def decide(self, number: int, verdict: str, kind: str = "", nested: bool | None = None) -> Decision:
        """Store a decision about a candidate in the file, then apply it.

        Args:
            number: of the candidate, from 0.
            kind, nested: its category; by default the model's.

        Raises:
            ValueError: there is no such candidate, verdict or kind.
            DataError: the file cannot be written.
        """
        if not 0 <= number < len(self.candidates):
            raise ValueError(f"there is no candidate {number}: they are numbered 0 to {len(self.candidates) - 1}")
        listed, instance = self.candidates[number]
        decision = Decision(
            listed.id, instance.parts, verdict, kind or instance.kind, instance.nested if nested is None else bool(nested)
        )
        if verdict not in VERDICTS or decision.kind not in KINDS:
            raise ValueError(f"{verdict!r}, {kind!r}: a verdict is {' or '.join(VERDICTS)}, a kind {' or '.join(KINDS)}")
        try:
            with self._file.open("ab") as stream:
                # Also begin with a line break, so that a line truncated by a kill does not spoil this one.
                stream.write(b"\n" + json.dumps(decision._asdict()).encode() + b"\n")
        except OSError as error:
            raise DataError(f"{str(self._file)!r} cannot be written ({error.strerror or error}): check the folder") from error
        self._apply(decision)
        return decision

    def _apply(self, decision: Decision) -> None:
        key = (decision.id, decision.parts)
        if decision.verdict == OPEN:
            self._decided.pop(key, None)
        else:
            self._decided[key] = decision

    def table(self) -> Table:
        """Share and frequency over the traces whose instances are all decided."""
        counts: list[dict[str, int]] = []
        undecided = failed = 0
        for listed in self.listed:
            decisions = [self.of(listed, instance) for instance in listed.instances]
            if listed.problem:
                failed += 1
            elif None in decisions:
                undecided += 1
            else:
                accepted = [decision.category for decision in decisions if decision is not None and decision.verdict == ACCEPT]
                counts.append({name: accepted.count(name) for name in CATEGORIES})
        return Table(
            traces=len(counts),
            undecided=undecided,
            failed=failed,
            share=mean([float(any(own.values())) for own in counts]),
            frequency=mean([sum(own.values()) for own in counts]),
            shares={name: mean([float(own[name] > 0) for own in counts]) for name in CATEGORIES},
            frequencies={name: mean([own[name] for own in counts]) for name in CATEGORIES},
        )


@dataclass(frozen=True)
class Mean:
    """A mean over traces, and its standard error for at least two traces."""

    mean: float
    stderr: float | None


def mean(values: Sequence[float]) -> Mean | None:
    """Mean of one value a trace; `None` without values."""
    if not values:
        return None
    return Mean(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


@dataclass(frozen=True)
class Table:
    """Amount of implicit parallelism.

    Attributes:
        traces: number of traces with decisions on all instances.
        undecided, failed: excluded traces, because a decision is missing, or because no completion was valid.
        share, shares: traces with at least one accepted instance; and of each category.
        frequency, frequencies: accepted instances a trace; and of each category.
    """

    traces: int
    undecided: int
    failed: int
    share: Mean | None
    frequency: Mean | None
    shares: dict[str, Mean | None]
    frequencies: dict[str, Mean | None]

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, share and frequency of each line, as text."""
        lines: list[tuple[str, Mean | None, Mean | None]]
        lines = [(name, self.shares[name], self.frequencies[name]) for name in CATEGORIES]
        lines.append(("any", self.share, self.frequency))
        return [(name, _cell(share, ".1%"), _cell(frequency, ".2f")) for name, share, frequency in lines]

    def markdown(self) -> str:
        """The table in Markdown, with remarks."""
        lines = ["| implicit parallelism | share of traces | instances a trace |", "|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows()]
        return "\n".join([*lines, "", self.remarks(), ""])

    def remarks(self) -> str:
        """Number of traces, meaning of the errors, and excluded traces."""
        excluded = [f"{self.undecided} not decided in full"] * (self.undecided > 0)
        excluded += [f"{self.failed} that the model's answers were of no use for"] * (self.failed > 0)
        behind = f"; left out: {', '.join(excluded)}" if excluded else ""
        return f"n = {self.traces} traces; ± is one standard error{behind}"


def _cell(value: Mean | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value.mean:{form}}" + (f" ± {value.stderr:{form}}" if value.stderr is not None else "")
