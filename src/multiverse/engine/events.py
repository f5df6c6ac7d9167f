"""What happens while a request runs, as typed events. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .generation import Generation


@dataclass(frozen=True)
class TokenEvent:
    """A token was written.

    Attributes:
        branch: label path of the branch, such as ``2.1``; empty for the trunk.
        token_id: the token.
        text: what it adds to the branch's text; may be empty while a character is incomplete.
        position: its position, as the model sees it.
        forced: whether the engine wrote it.
        logprob: its log-probability, when asked for and not forced.
        top: the likeliest tokens in its place and their log-probabilities, when asked for and not forced.
    """

    branch: str
    token_id: int
    text: str
    position: int
    forced: bool
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] | None = None


@dataclass(frozen=True)
class ForkEvent:
    """A branch forked.

    Attributes:
        branch: label path of the branch that forked.
        labels: label paths of its children.
    """

    branch: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class BranchEndEvent:
    """A branch closed and waits for its siblings.

    Attributes:
        branch: label path of the branch.
        reason: ``stop`` if the model closed it; else the bound for which it was closed: ``length``, ``budget`` or ``deadline``.
    """

    branch: str
    reason: str = "stop"


@dataclass(frozen=True)
class JoinEvent:
    """All children of a branch have closed and it goes on, seeing all of them.

    Attributes:
        branch: label path of the branch that goes on.
        labels: label paths of its children.
    """

    branch: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class FinishEvent:
    """The request is over."""

    generation: Generation


Event = TokenEvent | ForkEvent | BranchEndEvent | JoinEvent | FinishEvent
