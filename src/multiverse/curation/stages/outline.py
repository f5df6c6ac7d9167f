"""Stage 3, outline: which groups become blocks, how blocks nest, and what each path determines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...structure import Block, Dialect, place, render
from ..checks import check_gives_nothing_away, check_supported
from ..completions import fields, items, outline_text
from ..errors import ValidationError
from ..outline import Group, OutlineBlock, SentenceSpan, Step
from .base import Stage


@dataclass(frozen=True)
class Outline(Stage[tuple[OutlineBlock, ...]]):
    """The blocks of the trunk, in order, with the blocks inside their paths."""

    name = "outline"
    field = "blocks"

    steps: tuple[Step, ...]
    groups: tuple[Group, ...]

    @property
    def deepest(self) -> int:
        """Deepest nesting of blocks."""
        return self.config.max_nesting if self.config.tags.nests else 1

    def inputs(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "groups": self.groups,
            "depth": self.deepest,
            "example": example(self.config.tags),
        }

    def read(self, value: Any) -> tuple[OutlineBlock, ...]:
        return self._blocks(value, SentenceSpan(1, len(self.trace.sentences)), 1, set())

    def _blocks(self, value: Any, inside: SentenceSpan, depth: int, used: set[int]) -> tuple[OutlineBlock, ...]:
        listed = items(value, "'blocks'")
        if listed and depth > self.deepest:
            raise ValidationError("too deep", f"blocks nest {depth} deep: at most {self.deepest} are allowed")
        blocks, due = [], inside.first
        for item in listed:
            number, paths = fields(item, "a block", "group", "paths")
            if type(number) is not int or not 1 <= number <= len(self.groups):
                known = f"there are groups 1 to {len(self.groups)}"
                raise ValidationError("wrong numbering", f"a block is made of group {str(number)[:40]}: {known}")
            if number in used:
                raise ValidationError("wrong numbering", f"group {number} stands twice: each becomes at most one block")
            used.add(number)
            group = self.groups[number - 1]
            if group.span.first < due or group.span.last > inside.last:
                detail = f"the block of group {number} stands where its sentences do not: blocks follow the trace, and nest"
                raise ValidationError("wrong nesting", f"{detail} in the path that holds their sentences")
            due = group.span.last + 1
            blocks.append(self._block(group, number, items(paths, f"the paths of group {number}"), depth, used))
        return tuple(blocks)

    def _block(self, group: Group, number: int, paths: list[Any], depth: int, used: set[int]) -> OutlineBlock:
        if len(paths) != len(group.spans):
            detail = f"the block of group {number} has {len(paths)} paths, the group has {len(group.spans)}: give one for each"
            raise ValidationError("wrong numbering", detail)
        outlines, inner = [], []
        before = self._text(SentenceSpan(1, group.span.first - 1))
        for index, path in enumerate(paths):
            what, own = f"path {index + 1} of group {number}", group.spans[index]
            (text,) = fields(path, what, "outline")
            outline = outline_text(text, f"the outline of {what}")
            check_supported(outline, [self.trace.question, self.trace.reasoning])
            check_gives_nothing_away(outline, self._text(own), [self.trace.question, before])
            outlines.append(outline)
            inner.append(self._blocks(path.get("inside", []), own, depth + 1, used))
        return OutlineBlock(group, tuple(outlines), tuple(inner))

    def _text(self, span: SentenceSpan) -> str:
        return "".join(self.trace.sentences[span.first - 1 : span.last])


def example(dialect: Dialect) -> str:
    """A small rendered document for the prompt."""
    block = Block(
        ("the area of the square", "the area of the circle"),
        (("The side is 6, so its area is 6*6=36.",), ("The radius is 2, so its area is about 12.57.",)),
        "The areas are 36 and 12.57." if dialect.conclusion is not None else "",
    )
    thinking = ("Both areas are needed.", block, "Together they are 48.57.")
    return render(place(thinking, "48.57" if dialect.apart else "", dialect), dialect)
