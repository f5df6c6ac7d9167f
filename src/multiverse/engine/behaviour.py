"""The distributions that tokens are drawn from: temperature and cuts, and what rows that ask for it are told of them.

Shape legend: B rows, C rows with cuts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..backends.transfer import upload
from .branch import Support
from .limits import Choices
from .params import SamplingParams

_LONG = 64
"""Length from which lists of allowed tokens are known by their identity."""
_MOST_SHARED = 4096
"""Supports that are remembered; there are few different ones unless cuts depend on the logits."""


class Sorted(NamedTuple):
    """What rows draw from, likeliest first.

    Attributes:
        order_BV: the tokens.
        weight_BV: their probabilities up to a factor; 0 for those that a cut leaves out.
    """

    order_BV: Tensor
    weight_BV: Tensor


def settings(logits_BV: Tensor, params: Sequence[SamplingParams], *more: Sequence[float]) -> tuple[Tensor, ...]:
    """Temperature, top-k, min-p and top-p of each row, and further numbers, each as [B, 1] on the device."""
    columns = (
        [p.temperature for p in params],
        [p.top_k or logits_BV.shape[-1] for p in params],
        [p.min_p for p in params],
        [p.top_p for p in params],
        *more,
    )
    # In one transfer: each costs as much as all of them together.
    return upload(columns, logits_BV.device, torch.float64)[:, :, None].unbind()


def cut(logits_BV: Tensor, temperature_B1: Tensor, top_k_B1: Tensor, min_p_B1: Tensor, top_p_B1: Tensor) -> Sorted:
    """Temperature (above 0), then min-p, top-k and top-p cuts on the sorted distribution."""
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
    return Sorted(order_BV, probability_BV * keep_BV)


class Behaviour(NamedTuple):
    """What rows draw from, for those that ask about it.

    Attributes:
        logprobs_BV: log-probabilities in the order of the rows asked for, minus infinity for what cannot be drawn.
        kept_BV: for the rows that cut, by place: which tokens the cuts leave.
    """

    logprobs_BV: Tensor
    kept_BV: dict[int, Tensor]


def behaviour(logits_BV: Tensor, params: Sequence[SamplingParams]) -> Behaviour:
    """The distributions of rows with these parameters, whose logits have been edited.

    At temperature 0 nothing is drawn: that of temperature 1, without cuts.
    """
    temperatures = upload([p.temperature or 1.0 for p in params], logits_BV.device, torch.float64)
    scaled_BV = (logits_BV.double() - logits_BV.amax(dim=-1, keepdim=True)) / temperatures[:, None]
    cutting = [place for place, p in enumerate(params) if p.cuts]
    kept: dict[int, Tensor] = {}
    if cutting:
        at_C = upload(cutting, logits_BV.device)
        logits_CV = logits_BV[at_C]
        order_CV, weight_CV = cut(logits_CV, *settings(logits_CV, [params[place] for place in cutting]))
        kept_CV = torch.zeros_like(order_CV, dtype=torch.bool).scatter(1, order_CV, weight_CV > 0)
        scaled_BV[at_C] = scaled_BV[at_C].masked_fill(~kept_CV, -torch.inf)
        kept = dict(zip(cutting, kept_CV, strict=True))
    return Behaviour(scaled_BV.log_softmax(dim=-1).float(), kept)


class Supports:
    """Makes supports, each of the shorter of two lists, and equal ones as one object."""

    def __init__(self) -> None:
        self._shared: dict[Support, Support] = {}
        # Long lists by identity, as `Limits.choices` passes them on unchanged; they are kept, so that it stays valid.
        self._known: dict[tuple[object, tuple[int, ...]], tuple[tuple[int, ...] | None, Support | None]] = {}

    def of(self, choice: Choices, unused: tuple[int, ...], vocabulary: int, kept_V: Tensor | None = None) -> Support | None:
        """The support of a row; `None` if every token could be drawn.

        Args:
            choice: what grammar and limits allow.
            unused: as in `LoadedModel`.
            kept_V: what cuts leave of it.
        """
        if kept_V is not None:
            return self._shorter(kept_V.nonzero()[:, 0].tolist(), vocabulary)
        if choice.mask is not None:
            allowed = choice.mask.copy()
            allowed[list(choice.banned)] = False
            return self._shorter(np.flatnonzero(allowed).tolist(), vocabulary)
        key = choice.only if choice.only is None or len(choice.only) <= _LONG else id(choice.only), choice.banned
        if key not in self._known:
            if choice.only is not None:
                found = self._shorter(sorted({*choice.only} - {*choice.banned}), vocabulary)
            else:
                banned = tuple(sorted({*choice.banned, *unused}))
                found = self._share(Support(banned, allowed=False)) if banned else None
            if len(self._known) >= _MOST_SHARED:
                self._known.clear()
            self._known[key] = choice.only, found
        return self._known[key][1]

    def _shorter(self, allowed: list[int], vocabulary: int) -> Support | None:
        """The support of these tokens, in ascending order."""
        if 2 * len(allowed) <= vocabulary:
            return self._share(Support(tuple(allowed), allowed=True))
        banned = np.setdiff1d(np.arange(vocabulary), allowed, assume_unique=True)
        return self._share(Support(tuple(banned.tolist()), allowed=False)) if len(banned) else None

    def _share(self, support: Support) -> Support:
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()
        return self._shared.setdefault(support, support)
