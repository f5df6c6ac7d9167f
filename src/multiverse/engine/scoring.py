"""Scoring: the log-probabilities of a given text's own tokens. Torch-free."""

from __future__ import annotations

from .branch import Branch
from .params import SamplingParams
from .request import Request
from .tree import ModelInfo


class ScoringRequest(Request):
    """A text whose own tokens are scored; nothing is generated, and nothing comes from the prefix cache.

    Attributes:
        scores: log-probability of each own token but a branch's first, by branch index and number within the branch.
        cached: whether the text goes to the prefix cache when it is scored, for prompts that begin like it.
    """

    scoring = True

    def __init__(
        self, request_id: int, token_ids: list[int], share_every: int | None, model: ModelInfo, *, cached: bool = True
    ) -> None:
        super().__init__(request_id, token_ids, SamplingParams(max_tokens=1, share_every=share_every), model)
        self.scores: dict[tuple[int, int], float] = {}
        self.cached = cached

    @property
    def logprobs(self) -> tuple[float | None, ...]:
        """Of a text without tags: of its tokens in order, `None` for the first."""
        return tuple(self.scores.get((self.trunk.index, number)) for number in range(len(self.prompt)))

    def add_scores(self, branch: Branch, first: int, values: list[float]) -> None:
        """Keep the scores of a branch's tokens from number `first` on; the request is over when nothing is left to compute."""
        for number, value in enumerate(values, first):
            self.scores[branch.index, number] = value
        if not self.queues.prefill:
            self.finish_reason = "stop"

    def check_limits(self, now: float) -> None:
        """There are none."""
