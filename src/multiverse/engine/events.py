"""Typed events of a running request. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..structure import TextRole
from .branch import TokenScore
from .generation import Generation


class Counts(NamedTuple):
    """Tokens generated so far.

    Attributes:
        total: of all branches.
        critical_path: longest chain of them: highest position + 1 - positions of the prompt.
        branch: own tokens of the event's branch.
        steps: forwards on the longest chain.
    """

    total: int = 0
    critical_path: int = 0
    branch: int = 0
    steps: int = 0


_NONE = Counts()


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token was added to a branch.

    Readers show all but the newest `held` tokens of a branch and, once the request has finished, these too but for the last
    `excess` characters.

    Attributes:
        branch: label path of the branch, such as ``2.1``; empty for the trunk.
        token_id: the token.
        text: the text that it adds to the branch; empty while a character is incomplete.
        position: its position id.
        forced: whether the engine wrote it.
        logprob: its log-probability, if requested and not forced.
        top: the likeliest tokens at its position with their log-probabilities, if requested and not forced.
        role: role of the text; ``structure`` is tags, separators, labels and the end of text.
        outline: with the role ``outline``, label of the path that the text describes.
        label_length: characters at the beginning of the text that belong to an outline's label: they are structure, the rest
            has `role`.
        opens_goal: whether the token opens a goal; the labels of the branch's earlier block are used again from here on.
        in_answer: whether that block stands in the answer, and not in a path or the thinking.
        end_of_text: whether it ends a text. Its text is empty unless the request goes on after it (`ignore_eos`).
        held: number of the branch's newest tokens, this one included, that may belong to a stop string.
        excess: number of characters at the end of the branch's text, from a stop string on, that are not part of the result.
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
    in_answer: bool = False
    end_of_text: bool = False
    held: int = 0
    excess: int = 0
    counts: Counts = field(default=_NONE, compare=False)


@dataclass(frozen=True, slots=True)
class _BlockEvent:
    """Base of the events of a block.

    Attributes:
        branch: label path of the branch that forks or resumes.
        labels: label paths of its children.
        counts: tokens so far.
    """

    branch: str
    labels: tuple[str, ...]
    counts: Counts = field(default=_NONE, compare=False)


@dataclass(frozen=True, slots=True)
class ForkEvent(_BlockEvent):
    """A branch forked into its children."""


@dataclass(frozen=True, slots=True)
class JoinEvent(_BlockEvent):
    """All children of a branch have closed and it resumes.

    Attributes:
        reread: tokens of its paths that it reads again; 0 with a join of keys and values.
    """

    reread: int = 0


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
class PromptEvent:
    """The prompt was scored (`SamplingParams.prompt_logprobs`); comes before any token.

    Attributes:
        scores: per token of the prompt, `None` for the first one and for those that the engine would write.
    """

    scores: tuple[TokenScore | None, ...]


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The request has finished.

    Attributes:
        generation: the result.
        counts: tokens of the whole generation, those of the trunk as `branch`.
    """

    generation: Generation
    counts: Counts = field(default=_NONE, compare=False)


Event = PromptEvent | TokenEvent | ForkEvent | BranchEndEvent | JoinEvent | FinishEvent
