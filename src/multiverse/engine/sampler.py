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
from typing import NamedTuple

import torch
from torch import Tensor

from ..backends.transfer import download, upload
from .behaviour import Supports, behaviour, cut, settings
from .branch import NOT_DRAWN, Branch, Drawn, SeenTokens, TokenScore, Top
from .limits import Choices
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
        drawn: what each row's request asks to know of its token.
    """

    tokens: list[int | None]
    drawn: list[Drawn]


class Sampler:
    """Applies biases, penalties, allowed tokens and cuts, then draws by inverse CDF with one uniform number per row."""

    @cached_property
    def _long_lists(self) -> OrderedDict[int, tuple[tuple[int, ...], Tensor]]:
        """Long lists of tokens as tensors, by id, least recently used first. Each entry keeps its list, so ids stay valid."""
        return OrderedDict()

    @cached_property
    def _supports(self) -> Supports:
        """Makes the supports of rows that record them."""
        return Supports()

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
        choices = self.edit(logits_BV, rows)
        token_B = self.choose(logits_BV, rows).where(finite_B, -1)
        recorded = None
        if any(request.params.records_draws for request, _ in rows):
            recorded = _Recorded.of(logits_BV, rows)  # before the device goes on to other logits
        tokens = download(token_B, run_ahead)  # the one place where a step waits for the device
        choice = self.report(own, [token if token >= 0 else None for token in tokens])
        if recorded is not None:
            self._record(recorded, rows, choices, choice)
        return choice

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

    def edit(self, logits_BV: Tensor, rows: list[Row]) -> list[Choices]:
        """Apply biases, penalties, allowed and banned tokens to the logits, in place; returns what each row may sample."""
        device = logits_BV.device
        choices: list[Choices] = []
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
            choices.append(choice)
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
        return choices

    def report(self, own: Own, tokens: list[int | None]) -> Choice:
        """The choice of these tokens, with the log-probabilities that were requested under the model's own distribution."""
        choice = Choice(tokens, [NOT_DRAWN] * len(tokens))
        _score_drawn(own, choice)
        return choice

    def _record(self, recorded: _Recorded, rows: list[Row], choices: list[Choices], choice: Choice) -> None:
        """Add to a choice what the rows that ask for it are told of the distributions that it was drawn from."""
        _score_drawn(recorded.processed, choice, listed_above=-math.inf)
        for i, (request, _) in enumerate(rows):
            if request.params.supports:
                support = self._supports.of(choices[i], request.model.unused, recorded.vocabulary, recorded.kept_BV.get(i))
                choice.drawn[i] = choice.drawn[i]._replace(support=support)

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
    """A distribution for the rows that request log-probabilities under it: the model's own, or the one drawn from.

    Attributes:
        index: these rows.
        wanted: number of likeliest tokens that each requests.
        logprobs_BV: log-probabilities of each.
        listed_BV: the same, with minus infinity for what is no token, if any of them requests likeliest tokens.
        most: number of tokens that may be listed.
    """

    index: list[int]
    wanted: list[int]
    logprobs_BV: Tensor
    listed_BV: Tensor
    most: int


class _Recorded(NamedTuple):
    """The distributions that tokens are drawn from, for the rows that ask about them.

    Attributes:
        processed: those of the rows that request log-probabilities under them.
        kept_BV: of the rows that record what cuts leave, by row: whether each token may be drawn.
        vocabulary: rows of the vocabulary.
    """

    processed: Own
    kept_BV: dict[int, Tensor]
    vocabulary: int

    @classmethod
    def of(cls, logits_BV: Tensor, rows: list[Row]) -> _Recorded:
        """From edited logits."""
        every = [request.params for request, _ in rows]
        index = [i for i, params in enumerate(every) if _processed(params) or (params.supports and params.cuts)]
        if not index:
            return cls(Own([], [], logits_BV[:0], logits_BV[:0], 0), {}, logits_BV.shape[-1])
        logprobs_BV, kept_BV = behaviour(logits_BV[upload(index, logits_BV.device)], [every[i] for i in index])
        kept_BV = {index[place]: kept_V for place, kept_V in kept_BV.items()}
        places = [place for place, i in enumerate(index) if _processed(every[i])]
        logprobs_BV, index = logprobs_BV[upload(places, logits_BV.device)], [index[place] for place in places]
        wanted = [every[i].top_logprobs for i in index]
        return cls(Own(index, wanted, logprobs_BV, logprobs_BV, logits_BV.shape[-1]), kept_BV, logits_BV.shape[-1])


def own_distribution(logits_BV: Tensor, rows: list[Row]) -> Own:
    """The model's own distribution; taken before the logits are edited."""
    scored = ((i, request.params) for i, (request, _) in enumerate(rows))
    index = [i for i, params in scored if (params.logprobs or params.top_logprobs) and not _processed(params)]
    if not index:
        return Own([], [], logits_BV[:0], logits_BV[:0], 0)
    wanted = [rows[i][0].params.top_logprobs for i in index]
    logprobs_BV = listed_BV = logits_BV[upload(index, logits_BV.device)].log_softmax(dim=-1)
    unused = rows[0][0].model.unused
    if unused and any(wanted):
        listed_BV = logprobs_BV.index_fill(1, upload(unused, logits_BV.device), -math.inf)
    return Own(index, wanted, logprobs_BV, listed_BV, logits_BV.shape[1] - len(unused))


def _processed(params: SamplingParams) -> bool:
    """Whether log-probabilities are asked for under the distribution that tokens are drawn from."""
    return params.logprobs_mode == "processed_logprobs"


def _score_drawn(own: Own, choice: Choice, listed_above: float | None = None) -> None:
    """Add the log-probabilities of the tokens of these rows to a choice.

    Args:
        listed_above: list only likeliest tokens with a log-probability above this.
    """
    if not own.index:
        return
    chosen = torch.tensor([choice.tokens[i] or 0 for i in own.index], device=own.logprobs_BV.device)
    values = own.logprobs_BV.gather(1, chosen[:, None])[:, 0].tolist()
    for place, (i, value) in enumerate(zip(own.index, values, strict=True)):
        top: Top | None = None
        if own.wanted[place]:
            best = own.listed_BV[place].topk(min(own.wanted[place], own.most))
            listed = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            top = tuple((token, logprob) for token, logprob in listed if listed_above is None or logprob > listed_above)
        choice.drawn[i] = Drawn(value, top)


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
    """One token per row, by inverse CDF."""
    *cuts, uniform_B1 = settings(logits_BV, params, uniforms)
    order_BV, weight_BV = cut(logits_BV, *cuts)
    cdf_BV = weight_BV.cumsum(dim=-1)
    target_B1 = uniform_B1 * cdf_BV[:, -1:]
    chosen_B1 = (cdf_BV <= target_B1).sum(dim=-1, keepdim=True)
    # Rounding may leave the target at the very end: fall back to the last kept token.
    last_B1 = ((weight_BV > 0).sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    return order_BV.gather(1, torch.minimum(chosen_B1, last_B1))[:, 0]
