"""A model's response to one question, as far as it is measured: from the engine of this process or from a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.generation import Generation


@dataclass(frozen=True)
class Response:
    """One generation.

    Attributes:
        text: all generated text, thinking included.
        answer: the answer in the text after the thinking, as the model's family writes it.
        finish_reason: as in `Generation`: ``stop``, the limit that ended it, or ``malformed``.
        malformed: it broke the grammar, or finished with `stop` and does not parse.
        forks: number of blocks.
        critical_path_tokens: tokens of the longest chain; all tokens for servers that do not report it.
        critical_path_steps: forwards on that chain; its tokens for servers that do not report it.
        seconds: wall-clock time from submission to the last token.
        content: the text after the thinking; `None` where only the answer was kept.
        cached_tokens: tokens of the prompt that came from the prefix cache, where that is reported.
    """

    text: str
    answer: str
    finish_reason: str
    malformed: bool
    forks: int
    total_tokens: int
    critical_path_tokens: int
    critical_path_steps: int
    seconds: float
    content: str | None = None
    cached_tokens: int = 0

    @property
    def whole(self) -> str:
        """`content`, or else `answer`."""
        return self.content if self.content is not None else self.answer

    @classmethod
    def from_generation(cls, generation: Generation) -> Response:
        """The response of the engine."""
        usage = generation.usage
        return cls(
            text=generation.text,
            answer=generation.answer,
            finish_reason=generation.finish_reason,
            malformed=is_malformed(generation.finish_reason, parses=generation.tree is not None),
            forks=count_forks(generation.branches),
            total_tokens=usage.total_tokens,
            critical_path_tokens=usage.critical_path_tokens,
            critical_path_steps=usage.critical_path_steps,
            seconds=usage.seconds,
            content=generation.content,
            cached_tokens=usage.cached_tokens,
        )


def is_malformed(finish_reason: str, *, parses: bool) -> bool:
    """Whether a generation counts as malformed. One that a limit cut does not, though it does not parse."""
    return finish_reason == "malformed" or (finish_reason == "stop" and not parses)


def count_forks(branches: Sequence[str]) -> int:
    """Number of blocks, from the branch of every token in document order.

    A block is where the document steps from a branch into that branch's first child.
    """
    forks, before = 0, ""
    for branch in branches:
        forks += branch != before and branch == (f"{before}.1" if before else "1")
        before = branch
    return forks
