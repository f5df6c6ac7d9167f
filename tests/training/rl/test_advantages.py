"""Advantages by hand: baselines, standard deviations, endings, groups without spread, resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from multiverse.errors import DataError
from multiverse.training.rl.advantages import (
    ENDINGS,
    LIMITS,
    Advantages,
    advantages,
    gather,
    has_spread,
    overlong_penalty,
    rewards_of,
)
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.rollout import Group
from tests.training.rl.made import make_group, make_rollout


def values(found: Advantages) -> list[tuple[float, ...]]:
    return [group.advantages for group in found.groups]


def close(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> bool:
    return all(one == pytest.approx(other, abs=1e-5) for one, other in zip(found, expected, strict=True))


GROUPS = [make_group([1.0, 0.0, 0.0, 0.0]), make_group([1.0, 1.0, 1.1, 1.1])]


def test_the_group_mean_alone_by_default() -> None:
    # Means are 0.25 and 1.05: a small graded term stays small.
    assert close(values(advantages(GROUPS, Algorithm())), [(0.75, -0.25, -0.25, -0.25), (-0.05, -0.05, 0.05, 0.05)])


def test_the_standard_deviation_of_the_group() -> None:
    # Of samples: sqrt(0.75 / 3) = 0.5, and sqrt(0.01 / 3) = 0.057735: the small term is blown up.
    small = 0.05 / math.sqrt(0.01 / 3)
    expected = [(1.5, -0.5, -0.5, -0.5), (-small, -small, small, small)]
    found = values(advantages(GROUPS, Algorithm(scale_rewards="group")))
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    assert found[1] == pytest.approx(expected[1], rel=1e-4)


def test_the_standard_deviation_of_the_batch_does_not_depend_on_the_order_of_groups() -> None:
    # All eight rewards: mean 0.65, squares 0.1225 + 3 * 0.4225 + 2 * 0.1225 + 2 * 0.2025 = 2.04; over 7: 0.291429.
    scale = math.sqrt(2.04 / 7)
    expected = [[value / scale for value in own] for own in ((0.75, -0.25, -0.25, -0.25), (-0.05, -0.05, 0.05, 0.05))]
    npr = Algorithm(name="npr")
    assert close(values(advantages(GROUPS, npr)), expected)
    assert close(values(advantages(GROUPS[::-1], npr)), expected[::-1])


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_a_group_without_spread_has_no_advantages(scale: str) -> None:
    # 0.1 three times has a mean that is not exactly 0.1; and one rollout that counts has no baseline.
    lone = [make_rollout(), make_rollout(finish_reason="abort")]
    groups = [make_group([0.1, 0.1, 0.1]), make_group([1.0, 0.3], lone), make_group([1.0, 0.0])]
    found = advantages(groups, Algorithm(scale_rewards=scale))  # type: ignore[arg-type]
    assert found.groups[0].advantages == (0.0, 0.0, 0.0)
    assert found.groups[1].advantages == (0.0, 0.0)
    assert [group.spread for group in found.groups] == [False, False, True]
    assert found.groups[2].advantages[0] > 0
    assert found.metrics["groups_without_spread"] == pytest.approx(2 / 3)


def test_groups_without_spread_are_kept_or_skipped() -> None:
    groups = [make_group([1.0, 1.0]), make_group([1.0, 0.0])]
    kept, skipped = (advantages(groups, Algorithm(no_spread=how)) for how in ("keep", "skip"))  # type: ignore[arg-type]
    assert [group.trained for group in kept.groups] == [(True, True), (True, True)]
    assert [group.trained for group in skipped.groups] == [(False, False), (True, True)]
    assert (kept.metrics["rollouts_without_loss"], skipped.metrics["rollouts_without_loss"]) == (0.0, 0.5)
    # Two tokens in each of four rollouts, of which two have an advantage.
    assert kept.metrics["gradient_tokens"] == skipped.metrics["gradient_tokens"] == 1.0


ENDED = [
    # ending, truncated, reward of a right answer (1) and of a wrong one (-1), counted, trained
    ("stop", "judged", (1.0, -1.0), True, True),
    ("length", "judged", (1.0, -1.0), True, True),
    ("budget", "judged", (1.0, -1.0), True, True),
    ("deadline", "judged", (1.0, -1.0), True, True),
    ("length", "failed", (0.0, -1.0), True, True),
    ("budget", "failed", (0.0, -1.0), True, True),
    ("deadline", "failed", (0.0, -1.0), True, True),
    ("length", "masked", (1.0, -1.0), True, False),
    ("stop", "masked", (1.0, -1.0), True, True),
    ("malformed", "judged", (0.0, -1.0), True, True),
    ("error", "judged", (0.0, -1.0), True, False),
    ("abort", "judged", (1.0, -1.0), False, False),
]


@pytest.mark.parametrize(("reason", "truncated", "rewards", "counted", "trained"), ENDED)
def test_every_ending_counts_by_its_rule(
    reason: str, truncated: str, rewards: tuple[float, float], counted: bool, trained: bool
) -> None:
    rollouts = [make_rollout(finish_reason=reason), make_rollout(finish_reason=reason), make_rollout(), make_rollout()]
    group = make_group([1.0, -1.0, 0.5, 0.25], rollouts)
    algorithm = Algorithm(truncated=truncated)  # type: ignore[arg-type]
    own = [*rewards, 0.5, 0.25]
    assert rewards_of(group, algorithm) == own
    found = advantages([group], algorithm)
    mean = sum(own) / 4 if counted else 0.375
    assert found.groups[0].advantages == pytest.approx([reward - mean for reward in own])
    assert found.groups[0].trained == (trained, trained, True, True)
    assert found.metrics[f"ending_{reason}"] == (1.0 if reason == "stop" else 0.5)
    assert found.metrics["rollouts_without_loss"] == (0.0 if trained else 0.5)


def test_all_endings_of_the_engine_have_a_rule_and_are_logged() -> None:
    assert {*ENDINGS, *LIMITS} == {"stop", "length", "budget", "deadline", "malformed", "error", "abort"}
    metrics = advantages([make_group([1.0, 0.0])], Algorithm()).metrics
    assert sum(value for name, value in metrics.items() if name.startswith("ending_")) == 1.0


def test_what_failed_is_rewarded_with_no_more_than_is_set() -> None:
    group = make_group([1.0, -0.5, -2.0], [make_rollout(finish_reason="malformed") for _ in range(3)])
    assert rewards_of(group, Algorithm(failure_reward=-1.0)) == [-1.0, -1.0, -2.0]


def test_the_overlong_penalty_is_dapos() -> None:
    # Limit 20,480, buffer 4,096.
    assert [overlong_penalty(tokens, 20480, 0.2) for tokens in (0, 16384, 17408, 18432, 20480, 30000)] == pytest.approx(
        [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]
    )


def test_the_overlong_penalty_lowers_rewards() -> None:
    algorithm = Algorithm(name="dapo", overlong_penalty=0.5).bound(100)
    rollouts = [make_rollout(total_tokens=tokens) for tokens in (80, 90, 100)]
    # What was closed for its length counts as if it had gone on.
    rollouts.append(make_rollout(total_tokens=95, finish_reason="length"))
    group = make_group([1.0, 1.0, 1.0, -1.0], rollouts)
    assert rewards_of(group, algorithm) == pytest.approx([1.0, 0.75, 0.5, -1.5])
    assert has_spread(group, algorithm)
    assert advantages([group], algorithm).metrics["overlong_penalty"] == pytest.approx(-(0.25 + 0.5 + 0.5) / 4)
    assert rewards_of(group, Algorithm()) == [1.0, 1.0, 1.0, -1.0]


def test_a_reward_that_is_no_number_is_named() -> None:
    with pytest.raises(DataError, match=r"rollout 1 of question 'q' has the reward nan"):
        advantages([make_group([1.0, float("nan")])], Algorithm())


def test_metrics_of_rewards_and_advantages() -> None:
    metrics = advantages(GROUPS, Algorithm()).metrics
    assert metrics["reward_mean"] == pytest.approx(0.65)
    assert metrics["reward_std"] == pytest.approx(math.sqrt(2.04 / 7))
    assert (metrics["advantage_min"], metrics["advantage_max"]) == pytest.approx((-0.25, 0.75))
    # Squares: 0.5625 + 3 * 0.0625 + 4 * 0.0025 = 0.76, of eight with mean 0.
    assert metrics["advantage_std"] == pytest.approx(math.sqrt(0.76 / 8))
    assert metrics["groups"] == 2


class Draws:
    """Groups that are drawn one after another; remembers what it was asked for."""

    def __init__(self, spreads: str) -> None:
        self.left = [make_group([1.0, float(spread == "-")], name=str(at)) for at, spread in enumerate(spreads)]
        self.asked: list[tuple[int, int]] = []

    def __call__(self, count: int, attempt: int) -> list[Group]:
        self.asked.append((count, attempt))
        given, self.left = self.left[:count], self.left[count:]
        return given


def names(groups: Sequence[Group]) -> str:
    return "".join(group.question.id for group in groups)


def test_groups_without_spread_are_resampled() -> None:
    draws = Draws("+-+-+++")  # a minus has no spread
    found = gather(draws, 4, Algorithm(no_spread="resample"))
    assert (names(found.groups), names(found.replaced), found.rounds) == ("0245", "13", 1)
    assert draws.asked == [(4, 0), (2, 1)]


def test_resampling_is_bounded_and_filled_up() -> None:
    draws = Draws("+---------")
    found = gather(draws, 3, Algorithm(no_spread="resample", max_resamples=2))
    assert (names(found.groups), names(found.replaced), found.rounds) == ("012", "3456", 2)
    assert draws.asked == [(3, 0), (2, 1), (2, 2)]


def test_resampling_ends_when_there_are_no_more_questions() -> None:
    found = gather(Draws("+-"), 2, Algorithm(no_spread="resample"))
    assert (names(found.groups), names(found.replaced), found.rounds) == ("01", "", 1)


def test_nothing_is_resampled_by_default() -> None:
    draws = Draws("----")
    assert names(gather(draws, 3, Algorithm()).groups) == "012"
    assert draws.asked == [(3, 0)]
