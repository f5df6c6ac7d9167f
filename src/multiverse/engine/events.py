"""What happens while a request runs, as typed events. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..structure import TextRole
from .generation import Generation


class Counts(NamedTuple):
    """Tokens generated so far.

    Attributes:
        total: of all branches.
        critical_path: longest chain of them: highest position + 1 - positions of the prompt.
        branch: own tokens of the branch that the event is about.
    """

    total: int = 0
    critical_path: int = 0
    branch: int = 0


_NONE = Counts()


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token was written.

    What may be shown of a branch's text: all but its newest `held` tokens, and of those, once the request has finished, all but
    the last `excess` characters.

    Attributes:
        branch: label path of the branch, such as ``2.1``; empty for the trunk.
        token_id: the token.
        text: what it adds to the branch's text; may be empty while a character is incomplete.
        position: its position, as the model sees it.
        forced: whether the engine wrote it.
        logprob: its log-probability, when asked for and not forced.
        top: the likeliest tokens in its place and their log-probabilities, when asked for and not forced.
        role: what the text is; ``structure`` is tags, separators, labels and the end of text.
        outline: with the role ``outline``, label of the path to come that the text describes.
        label_length: characters at the beginning of the text that belong to an outline's label: they are structure, the rest
            has `role`.
        opens_goal: whether the token opens a goal: from here on the children of the branch's earlier block are history, and
            their labels are free.
        end_of_text: whether it ends a text. Its text is empty unless the request goes on after it (`ignore_eos`).
        held: how many of the branch's newest tokens, this one included, may be the beginning of a stop string.
        excess: characters at the end of the branch's text that are not part of the result: a stop string was met.
        counts: tokens so far, this one included.
    """

    branch: str
    token_id: int
    text: str
    position: int
    forced: bool
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] | None = None
    role: TextRole = "text"
    outline: str | None = None
    label_length: int = 0
    opens_goal: bool = False
    end_of_text: bool = False
    held: int = 0
    excess: int = 0
    counts: Counts = field(default=_NONE, compare=False)


@dataclass(frozen=True, slots=True)
class ForkEvent:
    """A branch forked.

    Attributes:
        branch: label path of the branch that forked.
        labels: label paths of its children.
        counts: tokens so far.
    """

    branch: str
    labels: tuple[str, ...]
    counts: Counts = field(default=_NONE, compare=False)


@dataclass(frozen=True, slots=True)
class BranchEndEvent:
    """A branch closed and waits for its siblings.

    Attributes:
        branch: label path of the branch.
        reason: ``stop`` if the model closed it; else the limit for which it was closed: ``length``, ``budget`` or ``deadline``.
        counts: tokens so far.
    """

    branch: str
    reason: str = "stop"
    counts: Counts = field(default=_NONE, compare=False)


@dataclass(frozen=True, slots=True)
class JoinEvent:
    """All children of a branch have closed and it goes on, seeing all of them.

    Attributes:
        branch: label path of the branch that goes on.
        labels: label paths of its children.
        counts: tokens so far.
    """

    branch: str
    labels: tuple[str, ...]
    counts: Counts = field(default=_NONE, compare=False)


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The request is over.

    Attributes:
        generation: the result.
        counts: tokens of the whole generation, those of the trunk as `branch`.
    """

    generation: Generation
    counts: Counts = field(default=_NONE, compare=False)


Event = TokenEvent | ForkEvent | BranchEndEvent | JoinEvent | FinishEvent
