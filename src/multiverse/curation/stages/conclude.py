"""(v) Goal and conclusion of a block, once its paths are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..checks import check_carried, check_connectives, check_gives_nothing_away, check_supported
from ..completions import ValidationError, fields, items, outline_text, sentence_text
from .base import Stage

SHORTEST = 400
"""A conclusion may be this long, in characters, or half as long as its paths."""


class Concluded(NamedTuple):
    """What stands before and behind the paths of a block."""

    outlines: tuple[str, ...]
    conclusion: str


@dataclass(frozen=True)
class Conclude(Stage[Concluded]):
    """Outlines that say what is determined, and the most concise synthesis of what came of it.

    Attributes:
        block: its name.
        kind: of its group.
        before: what has been said until the block.
        drafts: the outlines so far.
        paths: the texts of its paths.
        rendered: the block as it stands.
        given: what the trace itself says of the outcome; empty if it says nothing.
    """

    name = "conclude"
    field = "block"

    block: str
    kind: str
    before: str
    drafts: tuple[str, ...]
    paths: tuple[str, ...]
    rendered: str
    given: str = ""

    def inputs(self) -> dict[str, Any]:
        own = ("block", "kind", "drafts", "paths", "rendered", "given")
        return {name: getattr(self, name) for name in own}

    def read(self, value: Any) -> Concluded:
        listed, closing = fields(value, "'block'", "outlines", "conclusion")
        outlines = [outline_text(text, f"outline {number}") for number, text in enumerate(items(listed, "'outlines'"), 1)]
        if len(outlines) != len(self.paths):
            detail = f"the answer has {len(outlines)} outlines, the block {len(self.paths)} paths: give one for each, in order"
            raise ValidationError("wrong numbering", detail)
        conclusion = sentence_text(closing, "the conclusion", self.settings.max_answer)
        bound = max(SHORTEST, sum(map(len, self.paths)) // 2, len(self.given))
        if len(conclusion) > bound:
            detail = f"the conclusion has {len(conclusion)} characters: at most {bound}, and only what came out of the paths"
            raise ValidationError("conclusion too long", detail)
        known = [self.trace.question, self.before, *self.drafts, *self.paths]
        for outline in outlines:
            check_connectives(outline)
            check_supported(outline, known)
        check_connectives(conclusion)
        # It may put results together, as the trace does behind the block.
        check_supported(conclusion, [*known, self.trace.reasoning])
        check_carried(conclusion, self.given)
        for outline, path in zip(outlines, self.paths, strict=True):
            check_gives_nothing_away(outline, path, [self.trace.question, self.before])
        return Concluded(tuple(outlines), conclusion)
