"""Presets as settings, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiverse.errors import ConfigError
from multiverse.training.rl.algorithms import PRESETS, Algorithm, without_effect


def test_a_preset_gives_what_is_not_given() -> None:
    dapo = Algorithm(name="dapo")
    assert (dapo.scale_rewards, dapo.no_spread, dapo.clip_ratio_high) == ("group", "resample", 0.28)
    mixed = Algorithm(name="dapo", no_spread="skip", kl_coef=0.01)
    assert (mixed.scale_rewards, mixed.no_spread, mixed.kl_coef) == ("group", "skip", 0.01)
    # A value that is the default of another preset counts as given, too.
    assert Algorithm(name="dapo", scale_rewards="none").scale_rewards == "none"
    assert replace(mixed, kl_coef=0.0).no_spread == "skip"


def test_the_presets_are_those_of_their_sources() -> None:
    settings = {
        name: (found.scale_rewards, found.loss_aggregation, found.clip_ratio_low, found.clip_ratio_high, found.kl_coef)
        for name in PRESETS
        for found in [Algorithm(name=name)]  # type: ignore[arg-type]
    }
    assert settings == {
        "grpo": ("none", "token-mean", 0.2, 0.28, 0.0),
        "p-grpo": ("none", "token-mean", 0.2, 0.2, 0.0),
        "dapo": ("group", "token-mean", 0.2, 0.28, 0.0),
        "dr-grpo": ("none", "constant", 0.2, 0.2, 0.0),
        "npr": ("batch", "token-mean", 0.2, 0.28, 0.0),
        "apr": ("group", "branch-mean", 0.2, 0.2, 0.001),
    }
    updates = {name: Algorithm(name=name).updates_per_batch for name in PRESETS}  # type: ignore[arg-type]
    assert updates == {"grpo": 1, "p-grpo": 1, "dapo": 16, "dr-grpo": 1, "npr": 16, "apr": 2}
    assert (Algorithm(name="npr").updates(16), Algorithm(name="npr").updates(4), Algorithm().updates(4)) == (16, 4, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "ppo"}, "name='ppo' is not valid: it must be 'grpo', 'p-grpo'"),
        ({"clip_ratio_low": 1.5}, "clip_ratio_low=1.5 is not valid: it must be a number from 0 to 1"),
        ({"clip_ratio_dual": 0.5}, "clip_ratio_dual=0.5 is not valid: it must be above 1, or 0"),
        ({"kl_coef": -1.0}, "kl_coef=-1.0 is not valid: it must be a number of 0 or more"),
        ({"clip_high": 0.3}, "Algorithm has no 'clip_high'"),
    ],
)
def test_bad_settings_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        Algorithm(**values)  # type: ignore[arg-type]


def test_limits_are_taken_over_unless_set() -> None:
    bound = Algorithm(name="dr-grpo").bound(512)
    assert (bound.loss_divisor, bound.overlong_limit) == (512, 512)
    bound = Algorithm(name="dr-grpo", loss_divisor=100, overlong_limit=300).bound(512)
    assert (bound.loss_divisor, bound.overlong_limit) == (100, 300)


def test_settings_without_effect_are_known() -> None:
    assert set(without_effect(Algorithm())) == {
        "loss_divisor",
        "kl_estimator",
        "importance_sampling_cap",
        "max_resamples",
        "overlong_penalty",
        "overlong_limit",
    }
    weighted = without_effect(Algorithm(importance_sampling="token_truncate", loss_aggregation="constant", kl_coef=0.1))
    assert weighted["clip_ratio_low"] == "importance_sampling: none"
    assert not weighted.keys() & {"loss_divisor", "kl_estimator", "importance_sampling_cap"}
