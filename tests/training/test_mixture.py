"""Epochs: every example once in each, in the form that the share gives it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.training.mixture import PAPER, parallel_shares, variants


@given(
    st.integers(0, 60), st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=5), st.integers(0, 9)
)
def test_every_example_comes_once_per_epoch_in_the_fractions_of_the_mixture(
    examples: int, shares: list[float], seed: int
) -> None:
    found = list(variants(examples, shares, seed))
    assert len(found) == examples * len(shares)
    for epoch, share in enumerate(shares):
        part = found[epoch * examples : (epoch + 1) * examples]
        assert sorted(item.example for item in part) == list(range(examples))
        assert sum(item.mode == "parallel" for item in part) == round(share * examples)
    assert found == list(variants(examples, shares, seed))


def test_the_papers_schedule_shows_each_half_once_in_each_form() -> None:
    found = list(variants(100, parallel_shares("paper"), seed=3))
    assert len(found) == 800
    halves = Counter((item.example, item.mode) for item in found[300:500])
    assert set(halves.values()) == {1}
    assert len(halves) == 200
    assert [sum(i.mode == "parallel" for i in found[p * 100 : p * 100 + 100]) for p in range(8)] == [
        0, 0, 10, 50, 50, 90, 100, 100,
    ]  # fmt: skip
    assert parallel_shares("paper") == PAPER


def test_seeds_change_the_order_and_unshuffled_keeps_it() -> None:
    assert list(variants(50, [0.5], 0)) != list(variants(50, [0.5], 1))
    plain = list(variants(50, [0.5, 0.5], 0, shuffled=False))
    assert [item.example for item in plain] == [*range(50), *range(50)]
    assert all(a.mode != b.mode for a, b in zip(plain[:50], plain[50:], strict=True))


@pytest.mark.parametrize("name", ["papre", [0.5, 1.5], []])
def test_a_mixture_that_does_not_exist_is_refused(name: str | list[float]) -> None:
    with pytest.raises(ValueError, match="mixture="):
        parallel_shares(name)


def test_constant_mixtures() -> None:
    assert parallel_shares("parallel", 3) == (1.0, 1.0, 1.0)
    assert parallel_shares("sequential", 2) == (0.0, 0.0)
    assert parallel_shares("half", 2) == (0.5, 0.5)
