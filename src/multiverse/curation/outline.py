"""What the stages find out about a trace, always by numbers of sentences (from 1), never by text.

Parts of a plan are named by their way from the trunk: ``2`` is the second block of the trunk, ``2/1`` its first path,
``2/1/3`` the third block in that path, and so on. Labels in documents are the renderer's and start anew in each block, so
they would name two things alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class SentenceSpan(NamedTuple):
    """Sentences from the first to the last, both included."""

    first: int
    last: int

    def holds(self, other: SentenceSpan) -> bool:
        """Whether the other lies inside."""
        return self.first <= other.first and other.last <= self.last


class Substep(NamedTuple):
    """The lower level of the summary."""

    summary: str
    span: SentenceSpan


class Step(NamedTuple):
    """The upper level of the summary; at least one sub-step."""

    summary: str
    substeps: tuple[Substep, ...]

    @property
    def span(self) -> SentenceSpan:
        return SentenceSpan(self.substeps[0].span.first, self.substeps[-1].span.last)


@dataclass(frozen=True)
class Group:
    """Neighbouring runs of steps that need nothing of each other.

    Attributes:
        kind: ``collective`` where all of them are needed (sub-tasks, cases), ``selective`` where they are attempts at one
            thing.
        reason: why none depends on another.
        paths: labels of the steps of each path.
        spans: sentences of each path.
    """

    kind: str
    reason: str
    paths: tuple[tuple[str, ...], ...]
    spans: tuple[SentenceSpan, ...]

    @property
    def span(self) -> SentenceSpan:
        return SentenceSpan(self.spans[0].first, self.spans[-1].last)


@dataclass(frozen=True)
class OutlineBlock:
    """A group that is to become a block."""

    group: Group
    outlines: tuple[str, ...]
    paths: tuple[tuple[OutlineBlock, ...], ...]


@dataclass(frozen=True)
class Filled:
    """The trunk or a path: its blocks, and the sentences before, between and behind them (none is fine).

    `stretches` holds one more than `blocks`.
    """

    stretches: tuple[tuple[int, ...], ...]
    blocks: tuple[FilledBlock, ...]

    def sentences(self) -> Iterator[int]:
        """All its sentences, those inside blocks included, in document order."""
        for number, stretch in enumerate(self.stretches):
            yield from stretch
            if number < len(self.blocks):
                for path in self.blocks[number].paths:
                    yield from path.sentences()
                yield from self.blocks[number].conclusion


@dataclass(frozen=True)
class FilledBlock:
    """A block with sentences in their places; `kind` and `reason` are its group's.

    `conclusion` holds the sentences with which the trace itself sums the paths up; often there are none.
    """

    kind: str
    reason: str
    outlines: tuple[str, ...]
    paths: tuple[Filled, ...]
    conclusion: tuple[int, ...] = ()


def within(name: str, number: int) -> str:
    """Name of a part of a named part, by its number from 0."""
    return f"{name}/{number + 1}" if name else str(number + 1)
