"""Choose the next token of every row.

A row's choice depends on its own logits, parameters and random stream only, never on its neighbours in the batch.

Shape legend: B rows, V vocabulary, K likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .bounds import choices
from .branch import Branch, Top
from .params import SamplingParams
from .request import Request

Row = tuple[Request, Branch]
Meanwhile = Callable[[Tensor, Tensor], None]


@dataclass
class Choice:
    """What was chosen for each row.

    Attributes:
        tokens: the tokens; `None` where the model gave no numbers to choose by (not-a-number, or infinity).
        logprobs: log-probability of each under the model's own distribution; `None` if nobody asked.
        tops: the likeliest tokens under the same; `None` if nobody asked.
    """

    tokens: list[int | None]
    logprobs: list[float | None]
    tops: list[Top | None]


class Sampler:
    """Applies guard, bounds, biases, penalties and cuts, then draws by inverse CDF with one uniform number a row."""

    @torch.inference_mode()
    def sample(self, logits_BV: Tensor, rows: list[Row], meanwhile: Meanwhile | None = None) -> Choice:
        """Choose a token per row; `rows` says whose row it is. The logits may be written over.

        Args:
            meanwhile: what to do before waiting for the device. It gets the tokens there, -1 where there were no numbers, and
                where the host will have them once this returns.
        """
        own = own_distribution(logits_BV, rows)
        finite_B = logits_BV.amax(dim=-1).isfinite()
        self.edit(logits_BV, rows)
        token_B = self.choose(logits_BV, rows).where(finite_B, -1)
        # The one place where a step waits for the device.
        tokens = _fetch(token_B, meanwhile)
        return self.report(own, [token if token >= 0 else None for token in tokens])

    def choose(self, logits_BV: Tensor, rows: list[Row]) -> Tensor:
        """One token a row [B], on the device, from logits that have been edited."""
        token_B = logits_BV.argmax(dim=-1)
        warm = [i for i, (request, _) in enumerate(rows) if request.params.temperature > 0]
        if warm:
            params = [rows[index][0].params for index in warm]
            uniforms = [float(rows[index][1].rng.random()) for index in warm]
            warm_B = send(warm, logits_BV.device)
            token_B[warm_B] = _draw(logits_BV[warm_B], params, uniforms)
        return token_B

    def edit(self, logits_BV: Tensor, rows: list[Row]) -> None:
        """Write biases, penalties and what may not be chosen into the logits."""
        device = logits_BV.device
        banned: tuple[list[int], list[int]] = ([], [])
        for index, (request, branch) in enumerate(rows):
            params = request.params
            if params.logit_bias:
                ids = list(params.logit_bias)
                biases = [params.logit_bias[i] for i in ids]
                logits_BV[index, send(ids, device)] += send(biases, device, torch.float32)
            if params.repetition_penalty != 1.0:
                seen = send(sorted(request.seen_tokens(branch)), device)
                _penalise(logits_BV[index], seen, params.repetition_penalty)
            choice = choices(request, branch)
            if choice.only is not None:
                only = _as_index(choice.only, device)
                kept = logits_BV[index, only].clamp(min=torch.finfo(logits_BV.dtype).min)
                logits_BV[index] = -math.inf
                logits_BV[index, only] = kept
            banned[0].extend([index] * len(choice.banned))
            banned[1].extend(choice.banned)
        if banned[0]:
            row, token = send(banned, device)
            logits_BV[row, token] = -math.inf

    def report(self, own: Own, tokens: list[int | None]) -> Choice:
        """The choice of these tokens, with the log-probabilities that were asked for."""
        logprobs: list[float | None] = [None] * len(tokens)
        tops: list[Top | None] = [None] * len(tokens)
        if own.index:
            chosen = torch.tensor([tokens[i] or 0 for i in own.index], device=own.logprobs_BV.device)
            values = own.logprobs_BV.gather(1, chosen[:, None])[:, 0].tolist()
            for place, (i, value) in enumerate(zip(own.index, values, strict=True)):
                logprobs[i] = value
                if own.wanted[place]:
                    best = own.logprobs_BV[place].topk(min(own.wanted[place], own.logprobs_BV.shape[1]))
                    tops[i] = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Choice(tokens, logprobs, tops)


def dictate(token_B: Tensor, tokens: dict[int, int]) -> Tensor:
    """Write these tokens over what was chosen for these rows."""
    if tokens:
        row_D, token_D = send([list(tokens), list(tokens.values())], token_B.device)
        token_B[row_D] = token_D
    return token_B


def _fetch(token_B: Tensor, meanwhile: Meanwhile | None) -> list[int]:
    """Tokens as the host knows them; on a GPU, what `meanwhile` launches is not waited for."""
    if meanwhile is None or token_B.device.type != "cuda":
        tokens: list[int] = token_B.tolist()
        if meanwhile is not None:
            meanwhile(token_B, token_B)
        return tokens
    host_B = torch.empty(token_B.shape, dtype=token_B.dtype, pin_memory=True)
    host_B.copy_(token_B, non_blocking=True)
    there = torch.cuda.Event()
    there.record()
    meanwhile(token_B, host_B)
    there.synchronize()
    fetched: list[int] = host_B.tolist()
    return fetched


def send(numbers: Sequence[Any], device: torch.device, dtype: torch.dtype = torch.long) -> Tensor:
    """Numbers on a device, without waiting for what it is doing."""
    tensor = torch.tensor(numbers, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


_LONG = 64
_long_lists: dict[int, tuple[tuple[int, ...], Tensor]] = {}


def _as_index(token_ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Token ids as an index; long lists, of which there are few, are turned into tensors once."""
    known = _long_lists.get(id(token_ids))
    if known is not None and known[0] is token_ids and known[1].device == device:
        return known[1]
    index = send(token_ids, device)
    if len(token_ids) > _LONG:
        _long_lists[id(token_ids)] = token_ids, index
    return index


@dataclass
class Own:
    """The model's own distribution, kept for the rows that asked for log-probabilities.

    Attributes:
        index: those rows.
        wanted: how many of the likeliest tokens each wants told.
        logprobs_BV: log-probabilities, a row for each.
    """

    index: list[int]
    wanted: list[int]
    logprobs_BV: Tensor


def own_distribution(logits_BV: Tensor, rows: list[Row]) -> Own:
    """Keep what the rows that ask for log-probabilities will want, before the logits are edited."""
    index = [i for i, (request, _) in enumerate(rows) if request.params.logprobs or request.params.top_logprobs]
    if not index:
        return Own([], [], logits_BV[:0])
    wanted = [rows[i][0].params.top_logprobs for i in index]
    return Own(index, wanted, logits_BV[send(index, logits_BV.device)].log_softmax(dim=-1))


def score(logits_BV: Tensor, targets: list[int]) -> list[float]:
    """Log-probability of one target per row."""
    target_B = torch.tensor(targets, device=logits_BV.device)
    values: list[float] = (logits_BV.gather(1, target_B[:, None])[:, 0] - logits_BV.logsumexp(dim=-1)).tolist()
    return values


def _penalise(logits_V: Tensor, seen: Tensor, penalty: float) -> None:
    """Repetition penalty of CTRL (arXiv 1909.05858), in place."""
    scores = logits_V[seen]
    logits_V[seen] = torch.where(scores > 0, scores / penalty, scores * penalty)


def _draw(logits_BV: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """One token per row: temperature, then min-p, top-k and top-p cuts on the sorted distribution, then inverse CDF."""
    columns = (
        [p.temperature for p in params],
        [p.top_k or logits_BV.shape[-1] for p in params],
        [p.min_p for p in params],
        [p.top_p for p in params],
        uniforms,
    )
    # All at once: each transfer to a device costs as much as all of them together.
    settings = send(columns, logits_BV.device, torch.float64)
    temperature_B1, top_k_B1, min_p_B1, top_p_B1, uniform_B1 = settings[:, :, None].unbind()
    # The largest is taken off first, so that no temperature, however small, divides into infinity.
    scaled_BV = (logits_BV.double() - logits_BV.amax(dim=-1, keepdim=True)) / temperature_B1
    sorted_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    probability_BV = sorted_BV.softmax(dim=-1)
    rank_V = torch.arange(sorted_BV.shape[-1], device=logits_BV.device)
    keep_BV = (rank_V < top_k_B1) & (probability_BV >= min_p_B1 * probability_BV[:, :1])
    probability_BV = probability_BV * keep_BV
    probability_BV /= probability_BV.sum(dim=-1, keepdim=True)
    before_BV = probability_BV.cumsum(dim=-1) - probability_BV
    # A token stays if the likelier ones do not reach top_p yet; the likeliest always stays.
    keep_BV = (before_BV < top_p_B1) | (rank_V == 0)
    cdf_BV = (probability_BV * keep_BV).cumsum(dim=-1)
    target_B1 = uniform_B1 * cdf_BV[:, -1:]
    chosen_B1 = (cdf_BV <= target_B1).sum(dim=-1, keepdim=True)
    # Rounding may leave the target at the very end: fall back to the last kept token.
    last_B1 = ((probability_BV * keep_BV > 0).sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    return order_BV.gather(1, torch.minimum(chosen_B1, last_B1))[:, 0]
