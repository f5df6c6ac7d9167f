"""What passes between the engine, the rewards and the update: questions, rollouts, their scores. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...engine import Support

if TYPE_CHECKING:
    from ...engine import Generation
    from ..features import Table

__all__ = ["Group", "Question", "Rollout", "Scores", "Support"]


@dataclass(frozen=True)
class Question:
    """What is asked, and what is needed to judge an answer.

    Attributes:
        id: the same for the same question in every run.
        messages: the chat, without the model's answer.
        reference: the right answer, if there is one.
        source: the task family, file or dataset that it is from; figures are given for each.
        extra: anything else that a reward needs; values that JSON can hold.
    """

    id: str
    messages: tuple[Mapping[str, str], ...]
    reference: str | None = None
    source: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """One answer to a question, with all that the update needs, as the engine had it. Nothing is tokenized again.

    Sequences over the prompt and the answer are in document order, the prompt's tokens first.

    Attributes:
        generation: text, answer, tree, usage, finish reason, and per token of the answer `token_ids`, `forced`, and `logprobs`
            under the distribution that the token was drawn from (`SamplingParams.logprobs_mode` is ``processed_logprobs``).
        positions: position of each token of prompt and answer.
        segments: index of the branch of each token of prompt and answer; 0 is the trunk.
        visibility: for every pair of segments, whether tokens of the first may attend to earlier tokens of the second.
        sources: for each token of the answer, the index in prompt and answer of the token whose logits it was drawn from; -1
            for forced tokens.
        supports: for each token of the answer, what could be drawn; `None` where everything could, and for forced tokens.
        temperature: the logits were divided by it.
        version: number of updates of the weights that wrote it.
        seed: of its random streams.
    """

    generation: Generation
    positions: tuple[int, ...]
    segments: tuple[int, ...]
    visibility: Table
    sources: tuple[int, ...]
    supports: tuple[Support | None, ...]
    temperature: float
    version: int
    seed: int

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and answer."""
        return self.generation.prompt_token_ids + self.generation.token_ids

    @property
    def num_sampled(self) -> int:
        """Tokens that the model chose: those with loss."""
        return sum(not forced for forced in self.generation.forced)


@dataclass(frozen=True)
class Scores:
    """What a rollout was judged to be worth.

    Attributes:
        total: the reward.
        parts: what each reward function gave, before its weight, by name.
        correct: whether the answer is right; `None` where nothing judges that.
        faults: why a reward function gave nothing, by name: it raised, gave no number, or took too long.
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    correct: bool | None = None
    faults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """All rollouts of one question in one step.

    Attributes:
        scores: of each rollout, once they have been judged.
    """

    question: Question
    rollouts: Sequence[Rollout]
    scores: Sequence[Scores] = ()
