"""What ends a run early, from its figures alone."""

from __future__ import annotations

import pytest

from multiverse.training.rl.collapse import CollapseDetector, EarlyStopping

GOOD = {"entropy": 1.0, "forked": 0.8, "reward": 0.5, "malformed": 0.0, "first_ratio_std": 1e-6}


def fed(limits: EarlyStopping, *steps: dict[str, float]) -> list[str | None]:
    detector = CollapseDetector(limits)
    return [detector.feed({**GOOD, **step}) for step in steps]


@pytest.mark.parametrize(
    ("limits", "change", "words"),
    [
        (EarlyStopping(patience=2, entropy=0.1), {"entropy": 0.01}, "the entropy is 0.01"),
        (
            EarlyStopping(patience=2),
            {"forked": 0.01},
            "1.0% of the rollouts fork (the mean of the last 2 steps), and 80% did at first",
        ),
        (EarlyStopping(patience=2), {"reward": 0.05}, "the reward is 0.05 (the mean of the last 2 steps), and has been 0.5"),
        (EarlyStopping(patience=2), {"malformed": 1.0}, "100% of the rollouts are malformed"),
        (EarlyStopping(patience=2), {"first_ratio_std": 0.6}, "what is trained is not what was rolled out"),
    ],
)
def test_each_collapse_has_its_reason_once_it_has_lasted(limits: EarlyStopping, change: dict[str, float], words: str) -> None:
    *before, last = fed(limits, {}, {}, {}, change, change)
    assert before == [None] * 4
    assert last is not None
    assert words in last


def test_a_single_bad_step_ends_nothing() -> None:
    bad = {"entropy": 0.0, "forked": 0.0, "malformed": 1.0}
    assert fed(EarlyStopping(patience=3, entropy=0.1), {}, {}, {}, bad, {}, {}, {}) == [None] * 7


def test_what_was_never_there_cannot_be_lost() -> None:
    """A model that is asked to think in a line, and rewards that begin at 0 or below."""
    never = {"forked": 0.0, "reward": -1.0}
    assert fed(EarlyStopping(patience=1), never, never, never) == [None] * 3


def test_no_limit_never_ends_a_run() -> None:
    off = EarlyStopping(patience=1, entropy=None, forked=None, reward=None, malformed=None, ratio=None)
    bad = {"entropy": 0.0, "forked": 0.0, "reward": 0.0, "malformed": 1.0, "first_ratio_std": 9.0}
    assert fed(off, {}, bad, bad) == [None] * 3
