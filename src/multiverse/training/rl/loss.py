"""The policy-gradient loss on the sampled tokens of a batch of rollouts, and what there is to log of it.

Shape legend: T tokens with loss in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms import Algorithm

_MAX_LOG_RATIO = 20.0


class LossTokens(NamedTuple):
    """What the loss needs to know of each token with loss, beside its log-probability under the weights being trained.

    Attributes:
        old_T: log-probability with which the engine drew it.
        advantage_T: of its rollout.
        weight_T: factor of its term in the loss; those of all tokens of an update, over all batches and processes, make the
            mean that `Algorithm.loss_aggregation` names.
        rollout_T: index of its rollout in the batch.
        reference_T: log-probability under the reference of the KL divergence, once it has been computed.
    """

    old_T: Tensor
    advantage_T: Tensor
    weight_T: Tensor
    rollout_T: Tensor
    reference_T: Tensor | None = None


def policy_loss(
    logprob_T: Tensor, entropy_T: Tensor, tokens: LossTokens, algorithm: Algorithm
) -> tuple[Tensor, LossStatistics]:
    """The loss of a batch: a weighted sum over its tokens, to be added to those of the other batches of the same update.

    With ``r = exp(logprob - old)`` and the advantage A, a token's term is that of PPO (arXiv 1707.06347) with two clips,
    ``-min(r A, clip(r, 1 - clip_ratio_low, 1 + clip_ratio_high) A)``; with the dual clip c (arXiv 1912.09729) it is at most
    ``-c A`` where A is negative. With importance sampling it is ``-w A r'``, where r' has the value 1 and the gradient of the
    log-probability, and w is r without gradient, truncated (as in IMPALA, arXiv 1802.01561, and CISPO, arXiv 2506.13585) or
    masked. In both cases the ratio is against what the engine drew from. Added are `kl_coef` times the estimate of the KL
    divergence from the reference, and subtracted `entropy_coef` times the entropy.

    Args:
        logprob_T, entropy_T: of the weights being trained, with gradients.

    Returns:
        The loss, and its statistics.
    """
    delta_T = (logprob_T - tokens.old_T).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    if algorithm.importance_sampling == "none":
        surrogate_T, details = _clipped(delta_T, tokens.advantage_T, algorithm)
    else:
        surrogate_T, details = _weighted(logprob_T, tokens, algorithm)
    term_T = -surrogate_T
    kl_T = torch.zeros_like(delta_T)
    if algorithm.kl_coef:
        assert tokens.reference_T is not None, "kl_coef needs log-probabilities of the reference"
        kl_T = kl_estimate(logprob_T, tokens.reference_T, algorithm)
        term_T = term_T + algorithm.kl_coef * kl_T
    if algorithm.entropy_coef:
        term_T = term_T - algorithm.entropy_coef * entropy_T
    loss = (tokens.weight_T * term_T).sum()
    ratio_T = delta_T.detach().exp()
    details |= {"entropy": entropy_T, "kl": kl_T, "ratio": ratio_T, "ratio_off": (ratio_T - 1).square(), "old_kl": -delta_T}
    return loss, LossStatistics.of(loss, ratio_T, details)


def kl_estimate(logprob_T: Tensor, reference_T: Tensor, algorithm: Algorithm) -> Tensor:
    """Estimate of the KL divergence from the reference at each sampled token (J. Schulman, "Approximating KL divergence").

    With ``x = reference - logprob``: k3 is ``exp(x) - 1 - x``, k2 is ``x ** 2 / 2``. Both are 0 or more.
    """
    x_T = (reference_T - logprob_T).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return x_T.square() / 2 if algorithm.kl_estimator == "k2" else x_T.expm1() - x_T


def _clipped(delta_T: Tensor, advantage_T: Tensor, algorithm: Algorithm) -> tuple[Tensor, dict[str, Tensor]]:
    ratio_T = delta_T.exp()
    low, high = 1 - algorithm.clip_ratio_low, 1 + algorithm.clip_ratio_high
    surrogate_T = torch.minimum(ratio_T * advantage_T, ratio_T.clamp(low, high) * advantage_T)
    negative_T = advantage_T < 0
    details = {"clip_low": negative_T & (ratio_T < low), "clip_high": (advantage_T > 0) & (ratio_T > high)}
    if algorithm.clip_ratio_dual:
        bound_T = algorithm.clip_ratio_dual * advantage_T
        details["clip_dual"] = negative_T & (surrogate_T < bound_T)
        surrogate_T = torch.where(negative_T, torch.maximum(surrogate_T, bound_T), surrogate_T)
    return surrogate_T, details


def _weighted(logprob_T: Tensor, tokens: LossTokens, algorithm: Algorithm) -> tuple[Tensor, dict[str, Tensor]]:
    log_T = logprob_T.detach() - tokens.old_T
    level, _, action = algorithm.importance_sampling.partition("_")
    if level == "sequence":
        # A rollout is never split over rows, so all its tokens with loss are here.
        count = int(tokens.rollout_T.max()) + 1 if len(log_T) else 0
        log_T = log_T.new_zeros(count).index_add(0, tokens.rollout_T, log_T)[tokens.rollout_T]
    cap = math.log(algorithm.importance_sampling_cap)
    above_T = log_T > cap
    weight_T = log_T.clamp(max=cap).exp()
    if action == "mask":
        weight_T = weight_T.masked_fill(above_T, 0.0)
    unit_T = (logprob_T - logprob_T.detach()).exp()
    return weight_T * tokens.advantage_T * unit_T, {"importance": weight_T, "importance_capped": above_T}


_MEANS = (
    "ratio",
    "ratio_off",
    "clip_low",
    "clip_high",
    "clip_dual",
    "entropy",
    "kl",
    "old_kl",
    "importance",
    "importance_capped",
)


@dataclass(frozen=True)
class LossStatistics:
    """Sums and extremes over the tokens with loss of one or more batches.

    Attributes:
        sums: loss, number of tokens, and the sum over tokens of each of `_MEANS`.
        highest: the largest ratio, the negative of the smallest, and the largest distance of one from 1.
    """

    sums: Tensor
    highest: Tensor

    @classmethod
    def of(cls, loss: Tensor, ratio_T: Tensor, details: dict[str, Tensor]) -> LossStatistics:
        """Statistics of one batch.

        Args:
            details: values of tokens, by name.
        """
        nothing = torch.zeros_like(ratio_T)
        means = [details.get(name, nothing).detach().double().sum() for name in _MEANS]
        sums = torch.stack([loss.detach().double(), ratio_T.new_tensor(len(ratio_T)).double(), *means])
        if not len(ratio_T):
            return cls(sums, torch.full((3,), -math.inf, dtype=torch.double, device=sums.device))
        highest = torch.stack([ratio_T.max(), (-ratio_T).max(), (ratio_T - 1).abs().max()]).double()
        return cls(sums, highest)

    def __add__(self, other: LossStatistics) -> LossStatistics:
        return LossStatistics(self.sums + other.sums, torch.maximum(self.highest, other.highest))

    def reduced(self, gather: Callable[[Tensor], Tensor]) -> LossStatistics:
        """Over all processes.

        Args:
            gather: gives one tensor [P, ...] of what each of P processes puts in as [1, ...], such as `Accelerator.gather`.
        """
        return LossStatistics(gather(self.sums[None]).sum(0), gather(self.highest[None]).amax(0))

    def metrics(self, algorithm: Algorithm) -> dict[str, float]:
        """What there is to log of an update.

        Returns:
            `policy_loss`; `tokens_with_loss`; `ratio_mean`, `ratio_min`, `ratio_max`, `ratio_std`, and `ratio_deviation`, the
            largest distance of a token's ratio from 1; `entropy`; `old_kl`, the mean of ``old - logprob``: an estimate of the
            KL divergence of these weights from what the engine drew from; `clip_low`, `clip_high` and `clip_dual`, shares of
            the tokens; with importance sampling instead `importance`, the mean weight, and `importance_capped`, a share; and
            `kl` with `kl_coef`.
        """
        loss, count, *sums = self.sums.tolist()
        tokens = max(count, 1.0)
        means = {name: value / tokens for name, value in zip(_MEANS, sums, strict=True)}
        high, low, deviation = self.highest.tolist() if count else (1.0, -1.0, 0.0)
        mean, off = (means["ratio"], means["ratio_off"]) if count else (1.0, 0.0)
        unused = {"importance", "importance_capped"} if algorithm.importance_sampling == "none" else {"clip_low", "clip_high"}
        unused |= set() if algorithm.clip_ratio_dual and algorithm.importance_sampling == "none" else {"clip_dual"}
        unused |= set() if algorithm.kl_coef else {"kl"}
        return {
            "policy_loss": loss,
            "tokens_with_loss": count,
            "ratio_mean": mean,
            "ratio_min": -low,
            "ratio_max": high,
            "ratio_std": math.sqrt(max(0.0, off - (mean - 1) ** 2)),
            "ratio_deviation": deviation,
            **{name: value for name, value in means.items() if name in _MEANS[2:] and name not in unused},
        }
