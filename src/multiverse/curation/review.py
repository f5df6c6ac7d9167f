"""A person's word on what an audit has listed, and the table that comes of it.

Decisions are JSON lines, only ever appended: the last one about an instance counts. They name an instance by its trace and its
sentences, so they outlive a second listing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    """What was decided about an instance.

    Attributes:
        id, parts: which instance.
        verdict: accept, reject, or open, which takes back what was decided before.
        kind, nested: what the person says it is.
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
    """What was listed in a folder, and what was decided about it.

    Attributes:
        listed: every trace that was looked at.
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
            raise DataError(f"{str(self._file)!r} cannot be read ({error.strerror or error}): see to the folder") from error
        for line in lines:
            try:
                value = json.loads(line)
                self._note(Decision(**{**value, "parts": spans_of(value["parts"])}))
            except (ValueError, LookupError, TypeError):
                continue  # torn by a kill: that decision is asked for again

    def of(self, listed: Listed, instance: Instance) -> Decision | None:
        """What was decided about an instance."""
        return self._decided.get((listed.id, instance.parts))

    def open(self) -> Iterator[int]:
        """Numbers of the candidates that nobody has decided about, as of the moment each is asked for."""
        return (number for number, (listed, instance) in enumerate(self.candidates) if self.of(listed, instance) is None)

    def decide(self, number: int, verdict: str, kind: str = "", nested: bool | None = None) -> Decision:
        """Note a decision about a candidate, in the file before anywhere else.

        Args:
            number: of the candidate, from 0.
            kind, nested: what it is; as the model says, unless given.

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
                # With a line's end before it, too: what a kill has torn must not take this one with it.
                stream.write(b"\n" + json.dumps(decision._asdict()).encode() + b"\n")
        except OSError as error:
            raise DataError(f"{str(self._file)!r} cannot be written ({error.strerror or error}): see to the folder") from error
        self._note(decision)
        return decision

    def _note(self, decision: Decision) -> None:
        key = (decision.id, decision.parts)
        if decision.verdict == OPEN:
            self._decided.pop(key, None)
        else:
            self._decided[key] = decision

    def table(self) -> Table:
        """Share and frequency over the traces of which every instance is decided."""
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
            share=estimate([float(any(own.values())) for own in counts]),
            frequency=estimate([sum(own.values()) for own in counts]),
            shares={name: estimate([float(own[name] > 0) for own in counts]) for name in CATEGORIES},
            frequencies={name: estimate([own[name] for own in counts]) for name in CATEGORIES},
        )


class Estimate(NamedTuple):
    """A mean over traces and its standard error, which takes at least two traces."""

    mean: float
    stderr: float | None


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of values, which are one a trace; `None` where there are none."""
    if not values:
        return None
    return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


@dataclass(frozen=True)
class Table:
    """How much implicit parallelism there is.

    Attributes:
        traces: how many count: looked at, and decided about in full.
        undecided, failed: traces left out, because a decision is missing, or because the model's answers could not be used.
        share, shares: traces with at least one accepted instance; and of each category.
        frequency, frequencies: accepted instances a trace; and of each category.
    """

    traces: int
    undecided: int
    failed: int
    share: Estimate | None
    frequency: Estimate | None
    shares: dict[str, Estimate | None]
    frequencies: dict[str, Estimate | None]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain objects."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def rows(self) -> list[tuple[str, str, str]]:
        """A name, a share and a frequency on each line, as text."""
        lines = [(name, self.shares[name], self.frequencies[name]) for name in CATEGORIES]
        return [(name, _percent(share), _number(mean)) for name, share, mean in [*lines, ("any", self.share, self.frequency)]]

    def markdown(self) -> str:
        """The table, and what stands behind it."""
        lines = ["| implicit parallelism | share of traces | instances a trace |", "|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows()]
        return "\n".join([*lines, "", self.told(), ""])

    def told(self) -> str:
        """What the numbers stand on."""
        left_out = [f"{self.undecided} not decided in full"] * (self.undecided > 0)
        left_out += [f"{self.failed} that the model's answers were of no use for"] * (self.failed > 0)
        behind = f"; left out: {', '.join(left_out)}" if left_out else ""
        return f"n = {self.traces} traces; ± is one standard error{behind}"


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value._asdict()
    return {name: _plain(below) for name, below in value.items()} if isinstance(value, dict) else value


def _percent(value: Estimate | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.1%}" + (f" ± {value.stderr:.1%}" if value.stderr is not None else "")


def _number(value: Estimate | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + (f" ± {value.stderr:.2f}" if value.stderr is not None else "")
