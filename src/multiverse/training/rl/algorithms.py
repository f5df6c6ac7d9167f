"""The policy-gradient algorithm as settings over one loss (`loss.policy_loss`), and presets of published ones. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from ...errors import ConfigError
from ...options import Options, option

Aggregation = Literal["token-mean", "constant", "sequence-mean", "branch-mean"]
ImportanceSampling = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {},
    "p-grpo": {"clip_ratio_high": 0.2, "truncated": "failed"},
    "dapo": {"scale_rewards": "group", "no_spread": "resample", "overlong_buffer": 0.2, "updates_per_batch": 16},
    "dr-grpo": {"loss_aggregation": "constant", "clip_ratio_high": 0.2},
    "npr": {"scale_rewards": "batch", "updates_per_batch": 16},
    "apr": {
        "scale_rewards": "group",
        "loss_aggregation": "branch-mean",
        "clip_ratio_high": 0.2,
        "kl_coef": 0.001,
        "updates_per_batch": 2,
    },
}
"""What each preset changes in the defaults of `Algorithm`.

- ``grpo``: our defaults. The group mean as baseline (GRPO, arXiv 2402.03300) without its division by the group's standard
  deviation (Dr. GRPO), the token mean and the wider upper clip of DAPO.
- ``p-grpo``: ThreadWeaver (arXiv 2512.07843). The group mean, no standard deviation, one update a batch: with the graded reward
  for acceleration, the standard deviation of a group that is all right would blow that small term up to unit size. A cut-off
  thread voids the answer.
- ``dapo``: DAPO (arXiv 2503.14476). Upper clip 0.28, groups without spread are resampled, token mean, soft overlong penalty
  over the last fifth of the limit (4,096 of 20,480), 16 updates a batch. It uses a reward of +1 or -1.
- ``dr-grpo``: Dr. GRPO (arXiv 2503.20783). No standard deviation, and a constant divisor in place of the length.
- ``npr``: the third stage of Native Parallel Reasoner (arXiv 2512.07461): the group mean over the standard deviation of the
  whole batch, 16 updates a batch. Two things differ from its published code: the standard deviation is that of the unchanged
  rewards (there, groups that were centred already enter it, so it depends on their order), and the ratio of updates after the
  first is against the policy that wrote the rollouts (there it is 1 at every update, so nothing is ever clipped).
- ``apr``: Adaptive Parallel Reasoning (arXiv 2504.15466). Group mean and standard deviation, KL 0.001, two updates a batch; the
  sequences of a rollout (its branches) count alike, each with the mean over its tokens. There, the KL term alone is not divided
  by the number of sequences; here, it is.
"""


@dataclass(frozen=True)
class Algorithm(Options):
    """Settings of the policy-gradient algorithm. What is not given is as in the preset `name`.

    Raises:
        ConfigError: a value is not valid.
    """

    name: Literal["grpo", "p-grpo", "dapo", "dr-grpo", "npr", "apr"] = option(
        "grpo", "Preset from which the settings are taken that are not given."
    )
    scale_rewards: Literal["none", "group", "batch"] = option(
        "none",
        "Standard deviation by which advantages (rewards minus the mean of their group) are divided: none, that of the group, "
        "or that of all rewards of the batch.",
    )
    loss_aggregation: Aggregation = option(
        "token-mean",
        "How tokens are weighted: alike over the whole batch (token-mean); alike, with the sum divided by rollouts times "
        "loss_divisor (constant); each rollout alike (sequence-mean); or in each rollout each branch alike (branch-mean).",
    )
    loss_divisor: int | None = option(
        None, "With constant: tokens by which the sum over a rollout is divided; None is the limit on its tokens.", ge=1
    )
    clip_ratio_low: float = option(0.2, "The ratio is clipped below 1 minus this.", ge=0, le=1)
    clip_ratio_high: float = option(0.28, "The ratio is clipped above 1 plus this.", ge=0)
    clip_ratio_dual: float = option(
        0.0, "Dual clip: where the advantage is negative, the ratio counts at most this; 0 is off.", ge=0
    )
    updates_per_batch: int = option(
        1, "Updates for each batch of rollouts, each on an equal share of its questions; at most one a question.", ge=1
    )
    kl_coef: float = option(0.0, "Coefficient of the KL divergence from the model at the start of the run.", ge=0)
    kl_estimator: Literal["k2", "k3"] = option(
        "k3", "Estimator of the KL divergence: k3 (exp(x) - 1 - x, as in GRPO) or k2 (x squared over 2)."
    )
    importance_sampling: ImportanceSampling = option(
        "none",
        "Correction in place of clipping, where rollouts come from other numbers than the trainer's (bf16) or from older "
        "weights: a token weighs the ratio, its own or its rollout's, truncated at the cap, or masked (0) above it.",
    )
    importance_sampling_cap: float = option(2.0, "Cap of importance_sampling.", gt=0)
    entropy_coef: float = option(0.0, "Coefficient of the entropy bonus.", ge=0)
    no_spread: Literal["keep", "skip", "resample"] = option(
        "keep",
        "Groups whose rewards are all equal, and which have no gradient: keep them in the means, skip them, or draw other "
        "questions in their place.",
    )
    max_resamples: int = option(
        4, "With resample: most further rounds of drawing in one step; then groups without spread are kept.", ge=1
    )
    truncated: Literal["judged", "failed", "masked"] = option(
        "judged",
        "Rollouts that a limit ended: rewarded as judged, as failed, or left out of the loss (but not of the group's mean).",
    )
    failure_reward: float = option(0.0, "Most that a failed rollout is rewarded with, such as a malformed one.")
    overlong_buffer: float = option(
        0.0,
        "Share of the limit on tokens, at its end, in which a rollout's reward falls linearly by overlong_penalty; 0 is off.",
        ge=0,
        le=1,
    )
    overlong_penalty: float = option(1.0, "Penalty of a rollout that reaches the limit.", ge=0)
    overlong_limit: int | None = option(None, "That limit; None is the limit on tokens of a rollout.", ge=1)
    _named: ClassVar[frozenset[str]] = frozenset()  # of an object: the fields that were given when it was made

    def __new__(cls, *args: object, **values: object) -> Self:
        made = super().__new__(cls, *args, **values)
        object.__setattr__(made, "_named", frozenset(values))
        return made

    def __post_init__(self) -> None:
        for name, value in PRESETS.get(self.name, {}).items():
            if name not in self._named:
                object.__setattr__(self, name, value)
        super().__post_init__()
        if 0 < self.clip_ratio_dual <= 1:
            raise ConfigError(f"clip_ratio_dual={self.clip_ratio_dual} is not valid: it must be above 1, or 0 (off)")

    def unless_given(self, **values: Any) -> Algorithm:
        """These settings with other values of those that were not given when they were made."""
        missing = {name: value for name, value in values.items() if name not in self._named}
        return replace(self, **missing) if missing else self

    def bound(self, max_tokens: int) -> Algorithm:
        """These settings with the limit on a rollout's tokens, where they say that it is to be taken."""
        return replace(
            self,
            loss_divisor=max_tokens if self.loss_divisor is None else self.loss_divisor,
            overlong_limit=max_tokens if self.overlong_limit is None else self.overlong_limit,
        )

    def updates(self, questions: int) -> int:
        """Number of updates for a batch of rollouts of so many questions."""
        return min(self.updates_per_batch, questions)


def without_effect(algorithm: Algorithm) -> dict[str, str]:
    """Settings that have no effect beside the others, by name: what they need."""
    clips = algorithm.importance_sampling == "none"
    rules = {
        "clip_ratio_low": (clips, "importance_sampling: none"),
        "clip_ratio_high": (clips, "importance_sampling: none"),
        "clip_ratio_dual": (clips, "importance_sampling: none"),
        "loss_divisor": (algorithm.loss_aggregation == "constant", "loss_aggregation: constant"),
        "kl_estimator": (algorithm.kl_coef > 0, "kl_coef above 0"),
        "importance_sampling_cap": (not clips, "importance_sampling"),
        "max_resamples": (algorithm.no_spread == "resample", "no_spread: resample"),
        "overlong_penalty": (algorithm.overlong_buffer > 0, "overlong_buffer above 0"),
        "overlong_limit": (algorithm.overlong_buffer > 0, "overlong_buffer above 0"),
    }
    return {name: needs for name, (used, needs) in rules.items() if not used}
