"""The loss by hand: clips, importance weights, KL, entropy, statistics; its gradient by finite differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.loss import LossTokens, kl_estimate, policy_loss

NEW = [math.log(ratio) - 2.0 for ratio in (1.0, 1.1, 1.5, 0.5, 1.5, 0.5, 6.0)]
ADVANTAGES = [1.0, -2.0, 1.0, 1.0, -1.0, -1.0, -1.0]


def make(advantages: Sequence[float], **changes: Any) -> LossTokens:
    count = len(advantages)
    values: dict[str, Any] = {
        "old_T": torch.full((count,), -2.0),
        "advantage_T": torch.tensor(advantages),
        "weight_T": torch.full((count,), 1 / max(count, 1)),
        "rollout_T": torch.zeros(count, dtype=torch.long),
    }
    return LossTokens(**values | changes)


def run(
    logprobs: Sequence[float], tokens: LossTokens, algorithm: Algorithm, entropy: Sequence[float] | None = None
) -> tuple[float, list[float], dict[str, float]]:
    """Loss, its gradient by log-probability, and the metrics."""
    logprob_T = torch.tensor(logprobs, requires_grad=True)
    entropy_T = torch.tensor(entropy if entropy is not None else [0.0] * len(logprobs), requires_grad=True)
    loss, statistics = policy_loss(logprob_T, entropy_T, tokens, algorithm)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logprob_T.grad is not None
    return loss.item(), logprob_T.grad.tolist(), statistics.metrics(algorithm)


def test_on_policy_the_gradient_is_the_advantage() -> None:
    loss, gradient, metrics = run([-2.0, -2.0], make([0.5, -1.5]), Algorithm())
    assert loss == pytest.approx(0.5)
    assert gradient == pytest.approx([-0.25, 0.75])
    assert (metrics["ratio_mean"], metrics["ratio_min"], metrics["ratio_max"], metrics["ratio_deviation"]) == (1, 1, 1, 0)


def test_clips_are_apart() -> None:
    # Ratios 1, 1.1, 1.5, 0.5, 1.5, 0.5, 6 with clip 0.8 to 1.28: each token's objective, and where it has a gradient.
    objective = [1.0, -2.2, 1.28, 0.5, -1.5, -0.8, -6.0]
    gradient = [1.0, -2.2, 0.0, 0.5, -1.5, 0.0, -6.0]
    loss, found, metrics = run(NEW, make(ADVANTAGES), Algorithm())
    assert loss == pytest.approx(-sum(objective) / 7)
    assert found == pytest.approx([-value / 7 for value in gradient], abs=1e-6)
    assert (metrics["clip_low"], metrics["clip_high"]) == pytest.approx((1 / 7, 1 / 7))
    assert "clip_dual" not in metrics
    assert metrics["ratio_mean"] == pytest.approx(12.1 / 7)
    assert (metrics["ratio_min"], metrics["ratio_max"], metrics["ratio_deviation"]) == pytest.approx((0.5, 6.0, 5.0))
    assert metrics["tokens_with_loss"] == 7
    assert metrics["policy_loss"] == pytest.approx(loss)


def test_the_dual_clip_bounds_what_a_negative_advantage_costs() -> None:
    loss, found, metrics = run(NEW, make(ADVANTAGES), Algorithm(clip_ratio_dual=3.0))
    assert loss == pytest.approx(-sum([1.0, -2.2, 1.28, 0.5, -1.5, -0.8, -3.0]) / 7)
    assert found[-1] == 0.0
    assert metrics["clip_dual"] == pytest.approx(1 / 7)


def test_importance_weights_of_tokens() -> None:
    ratios = [1.0, 1.1, 1.5, 0.5, 1.5, 0.5, 2.0]
    weights = {"token_truncate": ratios, "token_mask": [*ratios[:6], 0.0]}
    for mode, expected in weights.items():
        algorithm = Algorithm(importance_sampling=mode)  # type: ignore[arg-type]
        loss, gradient, metrics = run(NEW, make(ADVANTAGES), algorithm)
        terms = [weight * advantage / 7 for weight, advantage in zip(expected, ADVANTAGES, strict=True)]
        assert loss == pytest.approx(-sum(terms))
        assert gradient == pytest.approx([-term for term in terms])
        assert metrics["importance"] == pytest.approx(sum(expected) / 7)
        assert metrics["importance_capped"] == pytest.approx(1 / 7)
        assert "clip_low" not in metrics
        assert metrics["ratio_max"] == pytest.approx(6.0)


def test_importance_weights_of_rollouts() -> None:
    # Two rollouts: ratios 1.2 * 1.5 = 1.8, and 1.5 * 2 = 3, which is above the cap.
    logprobs = [math.log(ratio) - 2.0 for ratio in (1.2, 1.5, 1.5, 2.0)]
    tokens = make([1.0, -1.0, 1.0, 2.0], rollout_T=torch.tensor([0, 1, 0, 1]))
    for mode, weights in {"sequence_truncate": [1.8, 2.0, 1.8, 2.0], "sequence_mask": [1.8, 0.0, 1.8, 0.0]}.items():
        loss, gradient, _ = run(logprobs, tokens, Algorithm(importance_sampling=mode))  # type: ignore[arg-type]
        terms = [weight * advantage / 4 for weight, advantage in zip(weights, [1.0, -1.0, 1.0, 2.0], strict=True)]
        assert loss == pytest.approx(-sum(terms))
        assert gradient == pytest.approx([-term for term in terms])


def test_kl_and_entropy_are_added() -> None:
    reference_T = torch.tensor([-2.0, -1.0])
    algorithm = Algorithm(kl_coef=0.1, entropy_coef=0.5)
    loss, gradient, metrics = run([-2.0, -2.0], make([0.0, 0.0], reference_T=reference_T), algorithm, [0.3, 0.7])
    k3 = math.e - 1 - 1
    assert loss == pytest.approx((0.1 * k3 - 0.5 * 1.0) / 2)
    # d/dlogprob of exp(x) - 1 - x with x = reference - logprob is 1 - exp(x).
    assert gradient == pytest.approx([0.0, 0.1 * (1 - math.e) / 2])
    assert (metrics["kl"], metrics["entropy"]) == pytest.approx((k3 / 2, 0.5))
    k2 = kl_estimate(torch.tensor([-2.0, -2.0]), reference_T, Algorithm(kl_estimator="k2"))
    assert k2.tolist() == [0.0, 0.5]


SETTINGS = [
    Algorithm(),
    Algorithm(clip_ratio_dual=3.0),
    Algorithm(kl_coef=0.3, entropy_coef=0.2),
    Algorithm(kl_coef=0.3, kl_estimator="k2"),
]


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_the_gradient_is_that_of_finite_differences(algorithm: Algorithm) -> None:
    generator = torch.Generator().manual_seed(3)
    count = 40
    draw = lambda: torch.randn(count, generator=generator, dtype=torch.double)  # noqa: E731
    tokens = LossTokens(
        old_T=draw() - 2,
        advantage_T=draw(),
        weight_T=draw().abs(),
        rollout_T=torch.arange(count) // 5,
        reference_T=draw() - 2,
    )
    logprob_T = (tokens.old_T + 0.3 * draw()).requires_grad_()
    entropy_T = draw().requires_grad_()

    def loss(logprob_T: Tensor, entropy_T: Tensor) -> Tensor:
        return policy_loss(logprob_T, entropy_T, tokens, algorithm)[0]

    assert torch.autograd.gradcheck(loss, (logprob_T, entropy_T))  # type: ignore[no-untyped-call]


def test_statistics_of_parts_add_up() -> None:
    whole, parts = make(ADVANTAGES), [make(ADVANTAGES[:3]), make(ADVANTAGES[3:]), make([])]
    new, zeros = torch.tensor(NEW), torch.zeros(7)
    algorithm = Algorithm()
    expected = policy_loss(new, zeros, whole, algorithm)[1].metrics(algorithm)
    cuts = [slice(0, 3), slice(3, 7), slice(7, 7)]
    found = [policy_loss(new[cut], zeros[cut], part, algorithm)[1] for cut, part in zip(cuts, parts, strict=True)]
    total = (found[0] + found[1] + found[2]).metrics(algorithm)
    assert {name: value for name, value in total.items() if name != "policy_loss"} == pytest.approx(
        {name: value for name, value in expected.items() if name != "policy_loss"}
    )

    # Two processes.
    def gather(mine: Tensor) -> Tensor:
        other = found[1].sums if mine.shape[1] == len(found[1].sums) else found[1].highest
        return torch.cat([mine, other[None]])

    assert found[0].reduced(gather).metrics(algorithm) == (found[0] + found[1]).metrics(algorithm)


def test_no_token_at_all() -> None:
    loss, gradient, metrics = run([], make([]), Algorithm())
    assert (loss, gradient) == (0.0, [])
    assert (metrics["ratio_mean"], metrics["ratio_deviation"], metrics["tokens_with_loss"]) == (1.0, 0.0, 0)
    for mode in ("token_truncate", "sequence_mask"):
        assert run([], make([]), Algorithm(importance_sampling=mode))[0] == 0.0  # type: ignore[arg-type]
