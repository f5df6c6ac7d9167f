"""Optional stage: whether a path uses what only a sibling has established."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from ..completions import fields, items, sentence_text
from ..errors import ValidationError
from .base import Stage


class Verdict(NamedTuple):
    """A path that depends on an earlier one, both from 1, and how."""

    path: int
    on: int
    because: str


@dataclass(frozen=True)
class Judge(Stage[tuple[Verdict, ...]]):
    """The dependences between the paths of a block; an independent block has none.

    Attributes:
        block: its name.
        before: the text before the block.
        paths: the texts of its paths.
        rendered: the block as it is now.
    """

    name = "judge"
    field = "dependent"

    block: str
    before: str
    paths: tuple[str, ...]
    rendered: str

    def inputs(self) -> dict[str, Any]:
        return {"block": self.block, "before": self.before, "rendered": self.rendered}

    def read(self, value: Any) -> tuple[Verdict, ...]:
        verdicts = []
        for item in items(value, "'dependent'"):
            path, on, because = fields(item, "a dependence", "path", "on", "because")
            if not all(type(number) is int and 1 <= number <= len(self.paths) for number in (path, on)) or path == on:
                known = f"two different numbers from 1 to {len(self.paths)}"
                raise ValidationError("wrong numbering", f"'path' and 'on' must be {known}")
            verdicts.append(Verdict(path, on, sentence_text(because, "'because'")))
        return tuple(verdicts)
