"""Scoring: the log-probabilities of a given text's own tokens. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..structure import layout
from .branch import Branch, TokenScore
from .params import SamplingParams
from .request import Request
from .tree import ModelInfo


class ScoringRequest(Request):
    """A text whose own tokens are scored; nothing is generated, and nothing comes from the prefix cache.

    Args:
        top: how many of the likeliest tokens are reported at each place.
        cached: whether the text goes to the prefix cache when it is scored, for prompts that begin like it.
        trained: as in `BranchTree`. Such a text never goes to the prefix cache.

    Attributes:
        scores: of each own token but a branch's first, by branch index and number within the branch.
    """

    scoring = True

    def __init__(
        self,
        request_id: int,
        token_ids: list[int],
        params: SamplingParams,
        model: ModelInfo,
        *,
        top: int = 0,
        cached: bool = True,
        priority: int = 0,
        trained: bool = False,
    ) -> None:
        self.trained = trained
        super().__init__(request_id, token_ids, params, model, priority=priority)
        self.scores: dict[tuple[int, int], TokenScore] = {}
        self.top, self.cached = top, cached and not trained

    @property
    def logprobs(self) -> tuple[float | None, ...]:
        """Of a text without tags: of its tokens in order, `None` for the first."""
        own = (self.scores.get((self.trunk.index, number)) for number in range(len(self.prompt)))
        return tuple(score.logprob if score is not None else None for score in own)

    def add_scores(self, branch: Branch, first: int, values: Sequence[TokenScore]) -> None:
        """Keep the scores of a branch's tokens from number `first` on; the request is over when nothing is left to compute."""
        for number, value in enumerate(values, first):
            self.scores[branch.index, number] = value
        if not self.queues.prefill:
            self._finish()

    def check_limits(self, now: float) -> None:
        """There are none."""

    def _finish(self) -> None:
        self.finish_reason = "stop"
        own = [
            self.scores.get((branch.index, number)) for branch, start, end in self.tree.segments for number in range(start, end)
        ]
        tokens = self.model.tokens
        # What the engine writes itself is no choice of the model, and has siblings that it looks the same from.
        forced = layout(self.prompt, tokens).forced if tokens is not None else (False,) * len(own)
        self.prompt_scores = tuple(None if by_engine else score for score, by_engine in zip(own, forced, strict=True))

    def score(self) -> Score:
        """The result, once it has finished."""
        tokens = self.model.tokens
        owners = [branch.label for branch, start, end in self.tree.segments for _ in range(start, end)]
        return Score(
            token_ids=tuple(self.prompt),
            positions=tuple(self.tree.positions),
            branches=tuple(owners),
            forced=layout(self.prompt, tokens).forced if tokens is not None else (False,) * len(owners),
            logprobs=tuple(score.logprob if score is not None else None for score in self.prompt_scores or ()),
        )


class Score(NamedTuple):
    """Log-probabilities of a structured text, token by token, in document order.

    Attributes:
        token_ids, positions, branches, forced: as in `Generation`.
        logprobs: log-probability of each token given everything that its branch sees before it; `None` for the first one and
            for tokens that the engine forces.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: tuple[str, ...]
    forced: tuple[bool, ...]
    logprobs: tuple[float | None, ...]

    @property
    def total(self) -> float:
        """Sum of the log-probabilities of the tokens that are not forced."""
        return sum(value for value in self.logprobs if value is not None)
