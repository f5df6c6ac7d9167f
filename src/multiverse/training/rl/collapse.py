"""When a run is ended early: what it has learned is lost, or what it learns from is wrong. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from ...errors import MultiverseError
from ...options import Options, option


class CollapseError(MultiverseError):
    """A run was ended early; the message says why, and which checkpoint it leaves."""


@dataclass(frozen=True)
class EarlyStopping(Options):
    """What ends a run early. Each is compared with the mean of the last `patience` steps; None never ends a run."""

    patience: int = option(10, "Steps over which a figure is averaged before it may end the run.", ge=1)
    entropy: float | None = option(
        None, "End the run when the entropy of the distributions that tokens are drawn from is below this, in nats.", ge=0
    )
    forked: float | None = option(
        0.1,
        "End the run when the share of rollouts that fork is below this fraction of what it was in the first steps; a model "
        "that does not fork at the beginning is not watched.",
        ge=0,
        le=1,
    )
    reward: float | None = option(
        0.2,
        "End the run when the mean reward is below this fraction of the highest that it has been, if that is above 0.",
        ge=0,
        le=1,
    )
    malformed: float | None = option(0.9, "End the run when more than this share of the rollouts is malformed.", ge=0, le=1)
    ratio: float | None = option(
        0.5,
        "End the run when trainer and engine disagree: when the standard deviation over tokens of the ratio of their "
        "probabilities, at the first update on new rollouts, is above this.",
        ge=0,
    )


RATIO, ENTROPY = "first_ratio_std", "entropy"


class CollapseDetector:
    """Decides after each step whether a run has to end.

    Args:
        limits: below or above which the run ends.
    """

    def __init__(self, limits: EarlyStopping) -> None:
        self.limits = limits
        self._last: dict[str, deque[float]] = {}
        self._first: list[float] = []
        self._best = 0.0

    def feed(self, metrics: Mapping[str, float]) -> str | None:
        """Take the figures of a step; returns why the run has to end, or `None`."""
        limits = self.limits
        for name in (ENTROPY, "forked", "reward", "malformed", RATIO):
            if name in metrics:
                self._last.setdefault(name, deque(maxlen=limits.patience)).append(metrics[name])
        if "forked" in metrics and len(self._first) < limits.patience:
            self._first.append(metrics["forked"])
        means = {name: fmean(values) for name, values in self._last.items() if len(values) == limits.patience}
        self._best = max(self._best, means.get("reward", 0.0))
        steps = f"the mean of the last {limits.patience} steps"
        entropy, malformed, ratio = means.get(ENTROPY), means.get("malformed"), means.get(RATIO)
        if limits.entropy is not None and entropy is not None and entropy < limits.entropy:
            return (
                f"the entropy is {entropy:.4g} ({steps}), below early_stopping.entropy={limits.entropy}: "
                f"the rollouts are all alike"
            )
        if limits.malformed is not None and malformed is not None and malformed > limits.malformed:
            return (
                f"{malformed:.0%} of the rollouts are malformed ({steps}), more than "
                f"early_stopping.malformed={limits.malformed}"
            )
        if limits.ratio is not None and ratio is not None and ratio > limits.ratio:
            return (
                f"the ratio between trainer and engine has a standard deviation of {ratio:.3g} ({steps}), more than "
                f"early_stopping.ratio={limits.ratio}: what is trained is not what was rolled out"
            )
        return self._forked(means, steps) or self._reward(means, steps)

    def _forked(self, means: Mapping[str, float], steps: str) -> str | None:
        limit = self.limits.forked
        if limit is None or "forked" not in means:
            return None
        before, now = fmean(self._first), means["forked"]
        if now >= limit * before:
            return None
        return (
            f"{now:.1%} of the rollouts fork ({steps}), and {before:.0%} did at first: "
            f"less than early_stopping.forked={limit} of that"
        )

    def _reward(self, means: Mapping[str, float], steps: str) -> str | None:
        limit = self.limits.reward
        if limit is None or "reward" not in means or self._best <= 0 or means["reward"] >= limit * self._best:
            return None
        now, best = means["reward"], self._best
        return f"the reward is {now:.4g} ({steps}), and has been {best:.4g}: less than early_stopping.reward={limit} of that"
