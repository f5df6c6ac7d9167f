"""Results of the stages: summary, groups, outline and refilled structure of a trace, in numbers of sentences (from 1).

Blocks and paths are named by their position below the trunk: ``2`` is the second block of the trunk, ``2/1`` its first path,
``2/1/3`` the third block in that path. (The labels in documents start anew in each block, so they are not unique.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class SentenceSpan(NamedTuple):
    """Sentences from the first to the last, both included."""

    first: int
    last: int

    def contains(self, other: SentenceSpan) -> bool:
        """Whether the other span lies inside."""
        return self.first <= other.first and other.last <= self.last


class Substep(NamedTuple):
    """The lower level of the summary."""

    summary: str
    span: SentenceSpan


class Step(NamedTuple):
    """The upper level of the summary, with at least one sub-step."""

    summary: str
    substeps: tuple[Substep, ...]

    @property
    def span(self) -> SentenceSpan:
        return SentenceSpan(self.substeps[0].span.first, self.substeps[-1].span.last)


@dataclass(frozen=True)
class Group:
    """Adjacent sequences of steps that do not depend on each other.

    Attributes:
        kind: ``collective`` if all of them are needed (sub-tasks, cases), ``selective`` if they are alternatives.
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
    """A group that becomes a block: the outline of each path and the blocks inside it."""

    group: Group
    outlines: tuple[str, ...]
    paths: tuple[tuple[OutlineBlock, ...], ...]


@dataclass(frozen=True)
class Filled:
    """The trunk or a path with its sentences.

    Attributes:
        stretches: the sentences before, between and after the blocks, each possibly empty; one more than `blocks`.
    """

    stretches: tuple[tuple[int, ...], ...]
    blocks: tuple[FilledBlock, ...]

    def sentences(self) -> Iterator[int]:
        """All sentences, those inside blocks included, in document order."""
        for number, stretch in enumerate(self.stretches):
            yield from stretch
            if number < len(self.blocks):
                for path in self.blocks[number].paths:
                    yield from path.sentences()
                yield from self.blocks[number].conclusion


@dataclass(frozen=True)
class FilledBlock:
    """A block with its sentences.

    Attributes:
        kind, reason: of its group.
        conclusion: the sentences with which the trace itself concludes the paths; often there are none.
    """

    kind: str
    reason: str
    outlines: tuple[str, ...]
    paths: tuple[Filled, ...]
    conclusion: tuple[int, ...] = ()
