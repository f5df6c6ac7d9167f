"""What came of one question, whoever answered: the engine of this process or a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.generation import Generation


@dataclass(frozen=True)
class Answer:
    """One generation, as far as it is measured.

    Attributes:
        text: the whole generation, thinking included.
        answer: what follows the thinking.
        finish_reason: ``stop`` if it ended by itself, else the bound that ended it (see `Generation`).
        malformed: it broke the grammar, or ended by itself and yet does not parse.
        forks: blocks that were opened.
        critical_path_tokens: those of the longest chain; all of them where a server does not tell.
        seconds: wall-clock from submission to the last token.
    """

    text: str
    answer: str
    finish_reason: str
    malformed: bool
    forks: int
    total_tokens: int
    critical_path_tokens: int
    seconds: float

    @classmethod
    def of(cls, generation: Generation) -> Answer:
        """What the engine has written."""
        usage = generation.usage
        return cls(
            text=generation.text,
            answer=generation.answer,
            finish_reason=generation.finish_reason,
            malformed=is_malformed(generation.finish_reason, whole=generation.tree is not None),
            forks=count_forks(generation.branches),
            total_tokens=usage.total_tokens,
            critical_path_tokens=usage.critical_path_tokens,
            seconds=usage.seconds,
        )

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self.finish_reason == "stop"

    def to_json(self) -> dict[str, Any]:
        """As a dictionary that `Answer(**...)` takes."""
        return asdict(self)


def is_malformed(finish_reason: str, *, whole: bool) -> bool:
    """Whether a generation counts as malformed; one that was cut short does not, though it never parses.

    Args:
        whole: it parses.
    """
    return finish_reason == "malformed" or (finish_reason == "stop" and not whole)


def count_forks(branches: Sequence[str]) -> int:
    """Number of blocks, from the branch of every token in document order.

    A block is where the document steps from a branch into that branch's first child.
    """
    forks, before = 0, ""
    for branch in branches:
        forks += branch != before and branch == (f"{before}.1" if before else "1")
        before = branch
    return forks
