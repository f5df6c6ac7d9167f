"""Choose the next token of every row.

A row's choice depends on its own logits, parameters and random stream only, never on its neighbours in the batch.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .params import SamplingParams
from .request import Branch, Request


@dataclass
class Choice:
    """The chosen token of each row, and its log-probability under the model's own distribution (`None` if nobody asked)."""

    tokens: list[int]
    logprobs: list[float | None]


class Sampler:
    """Applies bounds, penalties and cuts, then draws by inverse CDF with one uniform number a row."""

    @torch.inference_mode()
    def sample(self, logits_BV: Tensor, rows: list[tuple[Request, Branch]]) -> Choice:
        """Choose a token per row; `rows` says whose row it is."""
        own_BV = logits_BV
        edited = False
        for index, (request, branch) in enumerate(rows):
            banned = request.banned(branch)
            penalty = request.params.repetition_penalty
            if (banned or penalty != 1.0) and not edited:
                logits_BV, edited = logits_BV.clone(), True
            if penalty != 1.0:
                _penalise(logits_BV[index], sorted(request.seen_tokens(branch)), penalty)
            if banned:
                logits_BV[index, list(banned)] = -math.inf
        token_B = logits_BV.argmax(dim=-1)
        warm = [index for index, (request, _) in enumerate(rows) if request.params.temperature > 0]
        if warm:
            params = [rows[index][0].params for index in warm]
            uniforms = [float(rows[index][1].rng.random()) for index in warm]
            token_B[warm] = _draw(logits_BV[warm], params, uniforms)
        tokens: list[int] = token_B.tolist()
        return Choice(tokens, self.logprobs(own_BV, token_B, rows))

    def logprobs(self, logits_BV: Tensor, token_B: Tensor, rows: list[tuple[Request, Branch]]) -> list[float | None]:
        """Log-probability of the given token of each row under the unedited logits, for the rows that asked."""
        if not any(request.params.logprobs for request, _ in rows):
            return [None] * len(rows)
        chosen_B = logits_BV.gather(1, token_B[:, None])[:, 0] - logits_BV.logsumexp(dim=-1)
        values: list[float] = chosen_B.tolist()
        return [value if request.params.logprobs else None for value, (request, _) in zip(values, rows, strict=True)]


def _penalise(logits_V: Tensor, seen: list[int], penalty: float) -> None:
    """Repetition penalty of CTRL (arXiv 1909.05858), in place."""
    scores = logits_V[seen]
    logits_V[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _draw(logits_BV: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """One token per row: temperature, then min-p, top-k and top-p cuts on the sorted distribution, then inverse CDF."""
    device = logits_BV.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

    temperature_B1 = column([p.temperature for p in params])
    # The largest is taken off first, so that no temperature, however small, divides into infinity.
    scaled_BV = (logits_BV.double() - logits_BV.amax(dim=-1, keepdim=True)) / temperature_B1
    sorted_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    probability_BV = sorted_BV.softmax(dim=-1)
    rank_V = torch.arange(sorted_BV.shape[-1], device=device)
    top_k_B1 = column([p.top_k or sorted_BV.shape[-1] for p in params])
    min_p_B1 = column([p.min_p for p in params])
    top_p_B1 = column([p.top_p for p in params])
    keep_BV = (rank_V < top_k_B1) & (probability_BV >= min_p_B1 * probability_BV[:, :1])
    probability_BV = probability_BV * keep_BV
    probability_BV /= probability_BV.sum(dim=-1, keepdim=True)
    before_BV = probability_BV.cumsum(dim=-1) - probability_BV
    # A token stays if the likelier ones do not reach top_p yet; the likeliest always stays.
    keep_BV = (before_BV < top_p_B1) | (rank_V == 0)
    cdf_BV = (probability_BV * keep_BV).cumsum(dim=-1)
    target_B1 = column(uniforms) * cdf_BV[:, -1:]
    chosen_B1 = (cdf_BV <= target_B1).sum(dim=-1, keepdim=True)
    # Rounding may leave the target at the very end: fall back to the last kept token.
    last_B1 = ((probability_BV * keep_BV > 0).sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    return order_BV.gather(1, torch.minimum(chosen_B1, last_B1))[:, 0]
