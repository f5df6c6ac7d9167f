"""Settings of rewards: what is refused, in which words; weights that change over the steps."""

from __future__ import annotations

import pytest

from multiverse.errors import ConfigError
from multiverse.training.rl.rewards import Judge, Reward, Rewards, advice, check_rewards
from multiverse.training.rl.rewards.functions import soft_penalty


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "acelleration"}, "name='acelleration' is no reward: did you mean 'acceleration'?"),
        ({"name": "xyz"}, "name='xyz' is no reward: use correct, acceleration"),
        ({"name": "mine.score"}, "a function of yours is module:function"),
        ({"name": "correct", "cap": 0.3}, "cap=0.3 has no effect on 'correct': it is for acceleration"),
        (
            {"name": "acceleration", "limit": 3},
            "limit=3 has no effect on 'acceleration': it is for total_tokens, critical_path, overlong",
        ),
        ({"name": "correct", "timeout": 3.0}, "timeout=3.0 has no effect on 'correct': it is for module:function"),
        ({"name": "total_tokens"}, "the reward 'total_tokens' needs limit"),
        ({"name": "judged"}, "the reward 'judged' needs judge"),
        ({"name": "acceleration", "cap": 1.5}, "cap=1.5 is not valid: it must be a number above 0 and at most 1, or None"),
        ({"name": "well_formed", "alternate": [3]}, "alternate=[3] is not valid: it must be two whole numbers n and m"),
        ({"name": "well_formed", "alternate": [3, 2]}, "alternate=[3, 2] is not valid"),
        ({"name": "correct", "right": 0.0}, "right=0 is not above wrong=0: a right answer has to be worth more"),
        ({"name": "correct", "only_if_correct": True}, "only_if_correct=True has no meaning for 'correct'"),
        ({"name": "forked", "decides": True}, "decides=True has no meaning for 'forked'"),
        ({"name": "overlong", "limit": 10, "buffer": 20}, "buffer=20 is above limit=10"),
        ({"name": "correct", "wieght": 2}, "Reward has no 'wieght': did you mean 'weight'?"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Reward(**values)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([], "rewards is empty: begin with [{name: correct}]"),
        ([Reward("correct"), Reward("correct")], "the reward 'correct' stands 2 times"),
        (
            [Reward("acceleration")],
            "the reward 'acceleration' counts for correct answers only, and none decides what is correct",
        ),
        ([Reward("correct"), Reward("a:b", decides=True)], "'correct' and 'a:b' both decide what is correct"),
        (
            [Reward("correct"), Reward("forked", weight=0.6), Reward("finished_paths", weight=0.5)],
            "being right is worth 1, and the other rewards may add 1.1 to a wrong answer and 0 to a right one",
        ),
        ([Reward("correct"), Reward("overlong", limit=10)], "a wrong answer could be worth as much as a right one"),
        ([Reward("correct"), Reward("well_formed", weight=1.5, only_if_correct=False)], "may add 1.5 to a wrong answer"),
    ],
)
def test_rewards_that_do_not_fit_together(rewards: list[Reward], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rewards(rewards)
    assert message in str(caught.value)


def test_rewards_that_do() -> None:
    # DAPO's, Parallel-R1's, PARL's.
    check_rewards([Reward("correct", right=1.0, wrong=-1.0), Reward("overlong", limit=20480, buffer=4096)])
    check_rewards([Reward("correct", wrong=-1.0), Reward("well_formed", weight=0.2, alternate=[2, 10])])
    check_rewards([Reward("correct"), Reward("forked", weight=0.1), Reward("finished_paths", weight=0.1)])
    # Acceleration that is measured but not paid; correctness that is measured but not paid.
    check_rewards([Reward("correct"), Reward("acceleration", weight=0.0)])
    check_rewards([Reward("correct", weight=0.0), Reward("forked")])


def test_advice() -> None:
    assert advice([Reward("correct"), Reward("acceleration", weight=0.5)]) == []
    (found,) = advice([Reward("correct"), Reward("acceleration", weight=1.0, cap=0.5)])
    assert "acceleration may add 0.5 (weight 1 * cap 0.5): above 0.1" in found
    (found,) = advice([Reward("correct"), Reward("well_formed")])
    assert "well_formed counts in every step" in found
    assert advice([Reward("correct"), Reward("well_formed", anneal_steps=100)]) == []


def test_weights_over_the_steps() -> None:
    annealed = Reward("well_formed", weight=0.2, anneal_steps=4)
    assert [annealed.factor(step) for step in range(6)] == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0, 0.0])
    alternating = Reward("well_formed", weight=0.2, alternate=[2, 10])
    assert [step for step in range(20) if alternating.factor(step)] == [8, 9, 18, 19]


def test_the_soft_penalty_is_dapos() -> None:
    lengths = (0, 16384, 18432, 20480, 30000)
    assert [soft_penalty(length, 20480, 4096) for length in lengths] == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_overlong_takes_its_limit_from_the_rollouts() -> None:
    rewards = [Reward("correct", wrong=-1.0), Reward("overlong")]
    with Rewards(rewards, max_tokens=100) as made:
        assert made.rewards[1].limit == 100
    with pytest.raises(ConfigError, match="the reward 'overlong' needs limit"):
        Rewards(rewards)


def test_a_judge_without_prices_has_no_limit_of_cost() -> None:
    with pytest.raises(ConfigError, match="max_cost=5 has no effect without prices: set price_in and price_out"):
        Judge(base_url="http://127.0.0.1:1/v1", model="m", max_cost=5.0)
