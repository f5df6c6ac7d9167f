"""Stage 5b: goal and conclusion of a block, after its paths are rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..checks import check_carried, check_connectives, check_gives_nothing_away, check_supported
from ..completions import fields, items, outline_text, sentence_text
from ..errors import ValidationError
from .base import Stage

ALWAYS_ALLOWED = 400
"""Characters that a conclusion may always have; a longer one, half as many as its paths."""


class Concluded(NamedTuple):
    """Goal (an outline for each path) and conclusion of a block."""

    outlines: tuple[str, ...]
    conclusion: str


@dataclass(frozen=True)
class Conclude(Stage[Concluded]):
    """Write the outlines of a block, which name what is determined, and a concise synthesis of the results.

    Attributes:
        block: its name.
        kind: of its group.
        before: the text before the block.
        drafts: its present outlines.
        paths: the texts of its paths.
        rendered: the block as it is now.
        given: the trace's own conclusion, possibly empty.
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
        conclusion = sentence_text(closing, "the conclusion", self.config.max_answer)
        limit = max(ALWAYS_ALLOWED, sum(map(len, self.paths)) // 2, len(self.given))
        if len(conclusion) > limit:
            detail = f"the conclusion has {len(conclusion)} characters: at most {limit}, and only what came out of the paths"
            raise ValidationError("conclusion too long", detail)
        known = [self.trace.question, self.before, *self.drafts, *self.paths]
        for outline in outlines:
            check_connectives(outline)
            check_supported(outline, known)
        check_connectives(conclusion)
        # It may combine results, as the trace does after the block.
        check_supported(conclusion, [*known, self.trace.reasoning])
        check_carried(conclusion, self.given)
        for outline, path in zip(outlines, self.paths, strict=True):
            check_gives_nothing_away(outline, path, [self.trace.question, self.before])
        return Concluded(tuple(outlines), conclusion)
