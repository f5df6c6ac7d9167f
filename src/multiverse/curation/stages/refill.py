"""Stage 4, refill: which sentences go where. The model returns only numbers, so no sentence can change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...pages import within
from ..completions import check_cover, items, span
from ..errors import ValidationError
from ..outline import Filled, FilledBlock, OutlineBlock, SentenceSpan
from ..prompting import numbered
from .base import Stage


class Place(NamedTuple):
    """A stretch of the trunk or of a path that sentences can go to, or the conclusion of a block.

    Attributes:
        name: its name in the completion.
        what: its description in the prompt.
    """

    name: str
    what: str


@dataclass(frozen=True)
class Refill(Stage[Filled]):
    """Assign the trace's sentences to places."""

    name = "refill"
    field = "places"

    blocks: tuple[OutlineBlock, ...]

    def inputs(self) -> dict[str, Any]:
        return {"places": self.places(), "sentences": numbered(self.trace.sentences), "concluding": self.concluding}

    def places(self) -> list[Place]:
        """Every stretch, in document order."""
        found = _places(self.blocks, "", "the trunk", self.concluding)
        return [Place(f"P{number}", what) for number, what in enumerate(found, 1)]

    @property
    def concluding(self) -> bool:
        """Whether blocks have conclusions in the dialect."""
        return self.config.tags.conclusion is not None

    def read(self, value: Any) -> Filled:
        places = self.places()
        if not isinstance(value, dict):
            raise ValidationError("wrong shape", "'places' must be an object with a field for each place")
        for name in sorted(value.keys() - {place.name for place in places}):
            raise ValidationError("wrong numbering", f"there is no place {name[:40]!r}: there are P1 to P{len(places)}")
        last = len(self.trace.sentences)
        spans: dict[str, SentenceSpan] = {}
        for place in places:
            pair = value.get(place.name)
            if pair is not None and items(pair, place.name):
                spans[place.name] = span(pair, place.name, last)
        check_cover(list(spans.items()), last)
        stretches = iter([_numbers(spans.get(place.name)) for place in places])
        filled = _fill(self.blocks, stretches, self.concluding)
        for name, path in _paths(filled, ""):
            if not any(path.sentences()):
                raise ValidationError("empty path", f"path {name} has no sentence: every path needs some")
        return filled


def _places(blocks: Sequence[OutlineBlock], holder: str, what: str, concluding: bool) -> Iterator[str]:
    for index, block in enumerate(blocks):
        name = within(holder, index)
        yield f"{what}, before block {name}"
        for number, (outline, inner) in enumerate(zip(block.outlines, block.paths, strict=True)):
            path = within(name, number)
            first, last = block.group.spans[number]
            described = f"path {path} ({outline}; planned for sentences {first} to {last})"
            yield from _places(inner, path, described, concluding)
        if concluding:
            yield f"the conclusion of block {name}"
    yield f"{what}, behind its last block" if blocks else what


def _fill(blocks: Sequence[OutlineBlock], stretches: Iterator[tuple[int, ...]], concluding: bool) -> Filled:
    own, filled = [], []
    for block in blocks:
        own.append(next(stretches))
        paths = tuple(_fill(inner, stretches, concluding) for inner in block.paths)
        conclusion = next(stretches) if concluding else ()
        filled.append(FilledBlock(block.group.kind, block.group.reason, block.outlines, paths, conclusion))
    own.append(next(stretches))
    return Filled(tuple(own), tuple(filled))


def _paths(filled: Filled, holder: str) -> Iterator[tuple[str, Filled]]:
    for index, block in enumerate(filled.blocks):
        for number, path in enumerate(block.paths):
            name = within(within(holder, index), number)
            yield name, path
            yield from _paths(path, name)


def _numbers(found: SentenceSpan | None) -> tuple[int, ...]:
    return () if found is None else tuple(range(found.first, found.last + 1))
