"""From judged groups to an advantage of every rollout: how endings count, baselines, groups without spread. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev, stdev
from typing import NamedTuple

from ...errors import DataError
from .algorithms import Algorithm
from .rollout import Group, Rollout

_SPREAD = 1e-9
"""Rewards that differ by no more are equal."""
_EPSILON = 1e-6
"""Added to a standard deviation before dividing by it."""


class Ending(NamedTuple):
    """How a rollout counts that ended in some way.

    Attributes:
        failed: its reward is at most `Algorithm.failure_reward`; otherwise it is as judged.
        counted: whether its reward is part of the mean and standard deviation of its group.
        trained: whether its tokens have loss.
    """

    failed: bool
    counted: bool
    trained: bool


_AS_JUDGED = Ending(failed=False, counted=True, trained=True)
_FAILED = Ending(failed=True, counted=True, trained=True)
ENDINGS = {
    "stop": _AS_JUDGED,
    "malformed": _FAILED,  # the model broke the grammar: its own tokens did that
    "error": Ending(failed=True, counted=True, trained=False),  # its log-probabilities are not finite
    "abort": Ending(failed=False, counted=False, trained=False),  # somebody else ended it: it says nothing about the model
}
"""How rollouts count, by `Generation.finish_reason`."""
TRUNCATED = {
    "judged": _AS_JUDGED,  # near a limit the model is made to answer: that answer counts
    "failed": _FAILED,
    "masked": Ending(failed=False, counted=True, trained=False),
}
"""How rollouts count that a limit ended, by `Algorithm.truncated`."""
LIMITS = ("length", "budget", "deadline")


@dataclass(frozen=True)
class TrainingGroup:
    """A judged group as it goes into the update.

    Attributes:
        rewards: of each rollout: as judged, unless its ending or its length says otherwise.
        advantages: of each rollout.
        trained: whether each rollout's tokens have loss.
        spread: whether the rewards that count differ.
    """

    group: Group
    rewards: tuple[float, ...]
    advantages: tuple[float, ...]
    trained: tuple[bool, ...]
    spread: bool

    @property
    def num_trained_tokens(self) -> int:
        """Tokens with loss."""
        return sum(rollout.num_sampled for rollout, trained in zip(self.group.rollouts, self.trained, strict=True) if trained)


class Advantages(NamedTuple):
    """All groups of a batch as they go into the update, and what there is to log of them.

    Attributes:
        metrics: `reward_mean` and `reward_std` over the rewards that count; `advantage_std`, `advantage_min` and
            `advantage_max` over rollouts with loss; `groups`; `groups_without_spread`, a share; `ending_...`, the share of the
            rollouts that ended so; `rollouts_without_loss`, a share; `gradient_tokens`, tokens with loss and an advantage other
            than 0, per rollout; and with an overlong penalty its mean, `overlong_penalty`.
    """

    groups: list[TrainingGroup]
    metrics: dict[str, float]


def ending(rollout: Rollout, algorithm: Algorithm) -> Ending:
    """How this rollout counts."""
    reason = rollout.generation.finish_reason
    return TRUNCATED[algorithm.truncated] if reason in LIMITS else ENDINGS[reason]


def overlong_penalty(tokens: int, limit: int, buffer: float) -> float:
    """DAPO's soft overlong penalty (arXiv 2503.14476, equation 13), from 0 to -1.

    It is 0 up to the beginning of the buffer, the last `buffer` of the limit as a share, and falls linearly to -1 at the limit.
    """
    width = buffer * limit
    over = tokens - (limit - width)
    return -min(over / width, 1.0) if over > 0 else 0.0


def _penalty(rollout: Rollout, algorithm: Algorithm) -> float:
    if not algorithm.overlong_buffer:
        return 0.0
    assert algorithm.overlong_limit is not None, "Algorithm.bound says what the limit is"
    # What was closed for its length would have gone on, however many tokens it was given for closing.
    tokens = rollout.generation.usage.total_tokens
    if rollout.generation.finish_reason == "length":
        tokens = max(tokens, algorithm.overlong_limit)
    penalty = overlong_penalty(tokens, algorithm.overlong_limit, algorithm.overlong_buffer)
    return algorithm.overlong_penalty * penalty


def rewards_of(group: Group, algorithm: Algorithm) -> list[float]:
    """The reward of each rollout: as judged, at most `failure_reward` if it failed, and with the overlong penalty.

    Raises:
        DataError: a total is no finite number.
    """
    assert len(group.scores) == len(group.rollouts), "a group is judged before its advantages are computed"
    rewards = []
    for number, (rollout, scores) in enumerate(zip(group.rollouts, group.scores, strict=True)):
        if not math.isfinite(scores.total):
            raise DataError(
                f"rollout {number} of question {group.question.id!r} has the reward {scores.total}: no finite number"
            )
        reward = min(scores.total, algorithm.failure_reward) if ending(rollout, algorithm).failed else scores.total
        rewards.append(reward + _penalty(rollout, algorithm))
    return rewards


def has_spread(group: Group, algorithm: Algorithm) -> bool:
    """Whether the rewards of a group differ, among the rollouts that count: without, there is nothing to learn from it."""
    return _differ(_counted(group, rewards_of(group, algorithm), algorithm))


def _counted(group: Group, rewards: Sequence[float], algorithm: Algorithm) -> list[float]:
    return [reward for rollout, reward in zip(group.rollouts, rewards, strict=True) if ending(rollout, algorithm).counted]


def _differ(rewards: Sequence[float]) -> bool:
    return bool(rewards) and max(rewards) - min(rewards) > _SPREAD


def advantages(groups: Sequence[Group], algorithm: Algorithm) -> Advantages:
    """The advantage of every rollout: its reward minus the mean of its group, divided by a standard deviation if so set.

    Standard deviations are those of samples (of n values, the sum of squares over n - 1). A group whose rewards are equal, or
    in which a single rollout counts, has advantages of 0.

    Args:
        groups: all judged groups of the batch, those of other processes included: `scale_rewards: batch` is over all of them.

    Raises:
        DataError: a reward is no finite number.
    """
    rewards = [rewards_of(group, algorithm) for group in groups]
    counted = [_counted(group, own, algorithm) for group, own in zip(groups, rewards, strict=True)]
    everything = [reward for own in counted for reward in own]
    whole = stdev(everything) if len(everything) > 1 else 0.0
    made = []
    for group, own, kept in zip(groups, rewards, counted, strict=True):
        spread = _differ(kept)
        scale = 1.0
        if spread and algorithm.scale_rewards != "none":
            scale = _EPSILON + (stdev(kept) if algorithm.scale_rewards == "group" else whole)
        mean = fmean(kept) if kept else 0.0
        skipped = algorithm.no_spread == "skip" and not spread
        made.append(
            TrainingGroup(
                group=group,
                rewards=tuple(own),
                advantages=tuple((reward - mean) / scale if spread else 0.0 for reward in own),
                trained=tuple(ending(rollout, algorithm).trained and not skipped for rollout in group.rollouts),
                spread=spread,
            )
        )
    return Advantages(made, _metrics(made, everything, algorithm))


def _metrics(groups: Sequence[TrainingGroup], rewards: Sequence[float], algorithm: Algorithm) -> dict[str, float]:
    """As in `Advantages`."""
    rollouts = [rollout for group in groups for rollout in group.group.rollouts]
    trained = [one for group in groups for one in group.trained]
    values = [value for group in groups for value in group.advantages]
    learned = [value for value, one in zip(values, trained, strict=True) if one] or [0.0]
    tokens = sum(
        rollout.num_sampled for rollout, value, one in zip(rollouts, values, trained, strict=True) if one and value != 0.0
    )
    count = max(len(rollouts), 1)
    found = {
        "reward_mean": fmean(rewards) if rewards else 0.0,
        "reward_std": stdev(rewards) if len(rewards) > 1 else 0.0,
        "advantage_std": pstdev(learned),
        "advantage_min": min(learned),
        "advantage_max": max(learned),
        "groups": float(len(groups)),
        "groups_without_spread": sum(not group.spread for group in groups) / max(len(groups), 1),
        "rollouts_without_loss": trained.count(False) / count,
        "gradient_tokens": tokens / count,
    }
    ended = Counter(rollout.generation.finish_reason for rollout in rollouts)
    found |= {f"ending_{reason}": ended[reason] / count for reason in (*ENDINGS, *LIMITS)}
    if algorithm.overlong_buffer:
        found["overlong_penalty"] = sum(_penalty(rollout, algorithm) for rollout in rollouts) / count
    return found


class Gathered(NamedTuple):
    """Groups for one step.

    Attributes:
        replaced: groups without spread that were drawn and left out, since others came in their place.
        rounds: how often more was drawn.
    """

    groups: list[Group]
    replaced: list[Group]
    rounds: int


def gather(draw: Callable[[int, int], Sequence[Group]], wanted: int, algorithm: Algorithm) -> Gathered:
    """Groups of one step: with ``no_spread: resample``, groups without spread are replaced by others.

    After `Algorithm.max_resamples` further rounds, groups without spread fill what is still open, the earliest first.

    Args:
        draw: gives that many judged groups, of questions that it has not given in this step; its second argument is the number
            of the round, from 0. It may give fewer when it has no more questions.
    """
    drawn = list(draw(wanted, 0))
    if algorithm.no_spread != "resample":
        return Gathered(drawn, [], 0)
    usable = [group for group in drawn if has_spread(group, algorithm)]
    rest = [group for group in drawn if not has_spread(group, algorithm)]
    rounds = 0
    while len(usable) < wanted and rounds < algorithm.max_resamples:
        rounds += 1
        more = draw(wanted - len(usable), rounds)
        if not more:
            break
        for group in more:
            (usable if has_spread(group, algorithm) else rest).append(group)
    filling = max(0, wanted - len(usable))
    return Gathered([*usable, *rest[:filling]], rest[filling:], rounds)
