"""(v) Rewriting a path to stand alone. The siblings are not shown, so nothing can be taken from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..checks import check_apart, check_carried, check_connectives, check_distance, check_supported
from ..completions import ValidationError, items, sentence_text
from ..outline import Filled
from .base import Stage

TOGETHER = 5
"""So many sentences of a path are rewritten together; those behind them one by one."""

PART = 16
"""So many pieces are rewritten in one request."""


class Unit(NamedTuple):
    """Sentences that are rewritten as one, and the stretch of the path they stand in."""

    stretch: int
    sentences: tuple[int, ...]


def units_of(path: Filled) -> list[Unit]:
    """The pieces of a path: its first sentences together, the rest one by one; none reaches over a block."""
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
        before: what the trunk, and the paths around this one, have said until the block.
        whole: the path as it is, with all it holds.
        pieces: what is to be rewritten.
        siblings: the paths before it in its block, which it may not use.
        inside: what the blocks inside the path have said, which it may.
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
        longest = self.settings.max_answer
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
        check_distance("\n".join(self.pieces), "\n".join(texts), self.settings.final_distance)
        return tuple(texts)


def parts(units: Sequence[Unit]) -> list[list[Unit]]:
    """The pieces of a path, as many as one request holds."""
    return [list(units[at : at + PART]) for at in range(0, len(units), PART)]
