"""Stage 5a, rewrite: a path that stands alone. Its siblings are not in the prompt, so nothing can be taken from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..checks import check_apart, check_carried, check_connectives, check_distance, check_supported
from ..completions import items, sentence_text
from ..errors import ValidationError
from ..outline import Filled
from .base import Stage

TOGETHER = 5
"""Number of first sentences of a path that are rewritten together; the others one by one."""

PART = 16
"""Most pieces in one request."""


class Unit(NamedTuple):
    """Sentences that are rewritten as one piece, and the stretch of the path that they are in."""

    stretch: int
    sentences: tuple[int, ...]


def units_of(path: Filled) -> list[Unit]:
    """The pieces of a path: its first sentences together, the others one by one; none spans a block."""
    units: list[Unit] = []
    seen = 0
    for number, stretch in enumerate(path.stretches):
        head = stretch[: max(0, TOGETHER - seen)]
        if head:
            units.append(Unit(number, head))
        units += [Unit(number, (sentence,)) for sentence in stretch[len(head) :]]
        seen += len(stretch)
    return units


@dataclass(frozen=True)
class Rewrite(Stage[tuple[str, ...]]):
    """New texts for the pieces of a path, or for a part of them.

    Attributes:
        path: its name.
        outline: what the path determines.
        before: the text of the trunk and of the enclosing paths before the block.
        whole: the path with all it contains.
        pieces: the texts to rewrite.
        siblings: the paths before it in its block, which it may not use.
        inside: the text of the blocks inside the path, which it may use.
    """

    name = "rewrite"
    field = "pieces"

    path: str
    outline: str
    before: str
    whole: str
    pieces: tuple[str, ...]
    siblings: tuple[str, ...]
    inside: str = ""

    def inputs(self) -> dict[str, Any]:
        own = ("path", "outline", "before", "whole", "pieces")
        return {name: getattr(self, name) for name in own}

    def read(self, value: Any) -> tuple[str, ...]:
        longest = self.config.max_answer
        texts = [sentence_text(text, f"piece {number}", longest) for number, text in enumerate(items(value, "'pieces'"), 1)]
        if len(texts) != len(self.pieces):
            detail = f"the answer has {len(texts)} pieces, {len(self.pieces)} were given: rewrite each, in order"
            raise ValidationError("wrong numbering", detail)
        known = [self.trace.question, self.before, self.outline, self.whole]
        for text, piece in zip(texts, self.pieces, strict=True):
            check_connectives(text)
            check_supported(text, known)
            check_carried(text, piece)
        check_apart("\n".join(texts), self.siblings, [self.trace.question, self.before, self.inside])
        check_distance("\n".join(self.pieces), "\n".join(texts), self.config.final_distance)
        return tuple(texts)


def parts(units: Sequence[Unit]) -> list[list[Unit]]:
    """The pieces of a path, divided into requests."""
    return [list(units[at : at + PART]) for at in range(0, len(units), PART)]
