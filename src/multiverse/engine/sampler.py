"""Choose the next token of every row.

A row's token depends only on its own logits, parameters and random stream, not on the other rows of the batch.

Shape legend: B rows, V vocabulary, S distinct tokens that a branch attends to.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..backends.transfer import download, upload
from .branch import Branch, SeenTokens, TokenScore, Top
from .params import SamplingParams
from .request import Request

Row = tuple[Request, Branch]
RunAhead = Callable[[Tensor, Tensor], None]

_LONG = 64
"""Length from which lists of allowed tokens are kept as tensors; there are few such lists, used again and again."""
_MAX_LONG = 8
"""Most lists that a sampler keeps."""


@dataclass
class Choice:
    """The token chosen for each row.

    Attributes:
        tokens: `None` where the logits were not finite.
        logprobs: log-probability of each under the model's own distribution; `None` if not requested.
        tops: the likeliest tokens under the model's own distribution; `None` if not requested.
    """

    tokens: list[int | None]
    logprobs: list[float | None]
    tops: list[Top | None]


class Sampler:
    """Applies biases, penalties, allowed tokens and cuts, then draws by inverse CDF with one uniform number per row."""

    @cached_property
    def _long_lists(self) -> OrderedDict[int, tuple[tuple[int, ...], Tensor]]:
        """Long lists of tokens as tensors, by id, least recently used first. Each entry keeps its list, so ids stay valid."""
        return OrderedDict()

    @torch.inference_mode()
    def sample(self, logits_BV: Tensor, rows: list[Row], run_ahead: RunAhead | None = None) -> Choice:
        """Choose a token per row. The logits may be overwritten.

        Args:
            rows: request and branch of each row.
            run_ahead: called before waiting for the device, with the tokens on the device (-1 where logits were not finite)
                and the host tensor that will hold them when this returns.
        """
        own = own_distribution(logits_BV, rows)
        finite_B = logits_BV.amax(dim=-1).isfinite()
        self.edit(logits_BV, rows)
        token_B = self.choose(logits_BV, rows).where(finite_B, -1)
        tokens = download(token_B, run_ahead)  # the one place where a step waits for the device
        return self.report(own, [token if token >= 0 else None for token in tokens])

    def choose(self, logits_BV: Tensor, rows: list[Row]) -> Tensor:
        """One token per row [B], on the device, from edited logits."""
        token_B = logits_BV.argmax(dim=-1)
        warm = [i for i, (request, _) in enumerate(rows) if request.params.temperature > 0]
        if warm:
            params = [rows[index][0].params for index in warm]
            uniforms = [float(rows[index][1].rng.random()) for index in warm]
            warm_B = upload(warm, logits_BV.device)
            token_B[warm_B] = _draw(logits_BV[warm_B], params, uniforms)
        return token_B

    def edit(self, logits_BV: Tensor, rows: list[Row]) -> None:
        """Apply biases, penalties, allowed and banned tokens to the logits, in place."""
        device = logits_BV.device
        if rows and (unused := rows[0][0].model.unused):  # of the model, so the same for all rows
            logits_BV.index_fill_(1, self._as_index(unused, device), -math.inf)
        banned: tuple[list[int], list[int]] = ([], [])
        for index, (request, branch) in enumerate(rows):
            params = request.params
            if params.logit_bias:
                ids = list(params.logit_bias)
                biases = [params.logit_bias[i] for i in ids]
                logits_BV[index, upload(ids, device)] += upload(biases, device, torch.float32)
            if params.penalises_in(path=bool(branch.label)):
                assert branch.seen is not None
                _penalise(logits_BV[index], branch.seen, params, params.repetition_in(path=bool(branch.label)))
            choice = request.limits.choices(branch)
            if choice.only is not None:
                only = self._as_index(choice.only, device)
                kept = logits_BV[index, only].clamp(min=torch.finfo(logits_BV.dtype).min)
                logits_BV[index] = -math.inf
                logits_BV[index, only] = kept
            if choice.mask is not None:
                allowed_V = upload(choice.mask, device, torch.bool)
                kept_V = logits_BV[index].clamp(min=torch.finfo(logits_BV.dtype).min)
                logits_BV[index] = kept_V.where(allowed_V, -math.inf)
            banned[0].extend([index] * len(choice.banned))
            banned[1].extend(choice.banned)
        if banned[0]:
            row, token = upload(banned, device)
            logits_BV[row, token] = -math.inf

    def report(self, own: Own, tokens: list[int | None]) -> Choice:
        """The choice of these tokens, with the log-probabilities that were requested."""
        logprobs: list[float | None] = [None] * len(tokens)
        tops: list[Top | None] = [None] * len(tokens)
        if own.index:
            chosen = torch.tensor([tokens[i] or 0 for i in own.index], device=own.logprobs_BV.device)
            values = own.logprobs_BV.gather(1, chosen[:, None])[:, 0].tolist()
            for place, (i, value) in enumerate(zip(own.index, values, strict=True)):
                logprobs[i] = value
                if own.wanted[place]:
                    best = own.listed_BV[place].topk(min(own.wanted[place], own.most))
                    tops[i] = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Choice(tokens, logprobs, tops)

    def _as_index(self, token_ids: tuple[int, ...], device: torch.device) -> Tensor:
        """Token ids as an index on the device."""
        if len(token_ids) <= _LONG:
            return upload(token_ids, device)
        known = self._long_lists.get(id(token_ids))
        index = known[1] if known is not None and known[1].device == device else upload(token_ids, device)
        self._long_lists[id(token_ids)] = token_ids, index
        self._long_lists.move_to_end(id(token_ids))
        if len(self._long_lists) > _MAX_LONG:
            self._long_lists.popitem(last=False)
        return index


def dictate(token_B: Tensor, tokens: dict[int, int]) -> Tensor:
    """Replace the tokens of these rows, in place."""
    if tokens:
        row_D, token_D = upload([list(tokens), list(tokens.values())], token_B.device)
        token_B[row_D] = token_D
    return token_B


@dataclass
class Own:
    """The model's own distribution, for the rows that request log-probabilities.

    Attributes:
        index: these rows.
        wanted: number of likeliest tokens that each requests.
        logprobs_BV: log-probabilities of each.
        listed_BV: the same, with minus infinity for what is no token, if any of them requests likeliest tokens.
        most: number of tokens.
    """

    index: list[int]
    wanted: list[int]
    logprobs_BV: Tensor
    listed_BV: Tensor
    most: int


def own_distribution(logits_BV: Tensor, rows: list[Row]) -> Own:
    """The distribution of the rows that request log-probabilities; taken before the logits are edited."""
    index = [i for i, (request, _) in enumerate(rows) if request.params.logprobs or request.params.top_logprobs]
    if not index:
        return Own([], [], logits_BV[:0], logits_BV[:0], 0)
    wanted = [rows[i][0].params.top_logprobs for i in index]
    logprobs_BV = listed_BV = logits_BV[upload(index, logits_BV.device)].log_softmax(dim=-1)
    unused = rows[0][0].model.unused
    if unused and any(wanted):
        listed_BV = logprobs_BV.index_fill(1, upload(unused, logits_BV.device), -math.inf)
    return Own(index, wanted, logprobs_BV, listed_BV, logits_BV.shape[1] - len(unused))


def score(logits_BV: Tensor, targets: list[int], top: int = 0, unused: tuple[int, ...] = ()) -> list[TokenScore]:
    """How likely one target per row is, and the `top` likeliest tokens of each row.

    Args:
        unused: as in `LoadedModel`.
    """
    logprobs_BV = logits_BV.log_softmax(dim=-1)
    target_B = torch.tensor(targets, device=logits_BV.device)
    value_B1 = logprobs_BV.gather(1, target_B[:, None])
    ranks = ((logprobs_BV > value_B1).sum(dim=-1) + 1).tolist()
    likeliest: list[Top] = [()] * len(targets)
    if top:
        listed_BV = logprobs_BV.index_fill(1, upload(unused, logits_BV.device), -math.inf) if unused else logprobs_BV
        best = listed_BV.topk(min(top, listed_BV.shape[-1] - len(unused)))
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        likeliest = [tuple(zip(ids, values, strict=True)) for ids, values in rows]
    return [TokenScore(*row) for row in zip(value_B1[:, 0].tolist(), ranks, likeliest, strict=True)]


def _penalise(logits_V: Tensor, seen: SeenTokens, params: SamplingParams, repetition: float) -> None:
    """Repetition penalty of CTRL (arXiv 1909.05858), then OpenAI's frequency and presence penalties, in place."""
    ids_S = upload(seen.ids, logits_V.device)
    scores_S = logits_V[ids_S]
    if repetition != 1.0:
        scores_S = torch.where(scores_S > 0, scores_S / repetition, scores_S * repetition)
    if params.frequency_penalty or params.presence_penalty:
        counts_S = upload(seen.counts, logits_V.device)
        scores_S = scores_S - params.frequency_penalty * counts_S - params.presence_penalty * (counts_S > 0)
    logits_V[ids_S] = scores_S


def _draw(logits_BV: Tensor, params: list[SamplingParams], uniforms: list[float]) -> Tensor:
    """One token per row: temperature, then min-p, top-k and top-p cuts on the sorted distribution, then inverse CDF."""
    columns = (
        [p.temperature for p in params],
        [p.top_k or logits_BV.shape[-1] for p in params],
        [p.min_p for p in params],
        [p.top_p for p in params],
        uniforms,
    )
    # In one transfer: each costs as much as all of them together.
    settings = upload(columns, logits_BV.device, torch.float64)
    temperature_B1, top_k_B1, min_p_B1, top_p_B1, uniform_B1 = settings[:, :, None].unbind()
    # The largest is subtracted first, so that no temperature, however small, gives infinity.
    scaled_BV = (logits_BV.double() - logits_BV.amax(dim=-1, keepdim=True)) / temperature_B1
    sorted_BV, order_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    probability_BV = sorted_BV.softmax(dim=-1)
    rank_V = torch.arange(sorted_BV.shape[-1], device=logits_BV.device)
    keep_BV = (rank_V < top_k_B1) & (probability_BV >= min_p_B1 * probability_BV[:, :1])
    probability_BV = probability_BV * keep_BV
    # The total is the last of the cumulative sums, not `sum`: its order depends on the number of rows.
    sum_BV = probability_BV.cumsum(dim=-1)
    # A token stays if the likelier ones do not reach top_p of the total yet; the likeliest always stays.
    keep_BV = (sum_BV - probability_BV < top_p_B1 * sum_BV[:, -1:]) | (rank_V == 0)
    cdf_BV = (probability_BV * keep_BV).cumsum(dim=-1)
    target_B1 = uniform_B1 * cdf_BV[:, -1:]
    chosen_B1 = (cdf_BV <= target_B1).sum(dim=-1, keepdim=True)
    # Rounding may leave the target at the very end: fall back to the last kept token.
    last_B1 = ((probability_BV * keep_BV > 0).sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    return order_BV.gather(1, torch.minimum(chosen_B1, last_B1))[:, 0]
