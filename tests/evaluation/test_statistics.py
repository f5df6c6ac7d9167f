"""Errors and intervals against closed forms, and against how often they are right when the truth is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.evaluation.statistics import (
    bootstrap,
    mean_of,
    paired,
    pass_at,
    share_of,
)

TRIALS = 500
SLACK = 3 * math.sqrt(0.95 * 0.05 / TRIALS)
"""Three standard errors of a share of 95% over that many trials."""

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


# ---- closed forms


@given(values)
def test_with_one_sample_a_question_the_error_is_the_textbook_s(sample: list[float]) -> None:
    expected = np.std(sample, ddof=1) / math.sqrt(len(sample))
    assert mean_of(sample, range(len(sample))).stderr == pytest.approx(expected, abs=1e-9)


@given(values, st.integers(2, 5))
def test_repeating_identical_samples_does_not_reduce_the_error(sample: list[float], epochs: int) -> None:
    again = mean_of(sample * epochs, [*range(len(sample))] * epochs).stderr
    assert again == pytest.approx(mean_of(sample, range(len(sample))).stderr, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.lists(st.floats(-10, 10), min_size=1, max_size=4), min_size=2, max_size=6))
def test_the_error_is_the_sum_over_pairs_within_clusters(clusters: list[list[float]]) -> None:
    flat = [value for cluster in clusters for value in cluster]
    mean, count, n = sum(flat) / len(flat), len(clusters), len(flat)
    pairs = sum((a - mean) * (b - mean) for cluster in clusters for a in cluster for b in cluster)
    expected = math.sqrt(max(0.0, pairs) * count / (count - 1)) / n
    questions = [number for number, cluster in enumerate(clusters) for _ in cluster]
    assert mean_of(flat, questions).stderr == pytest.approx(expected, abs=1e-6)


def test_the_interval_of_a_mean_is_student_s() -> None:
    estimate = mean_of([1.0, 2, 3, 4, 5], range(5))
    # t(0.975, 4) = 2.776445, s = sqrt(2.5)
    reach = 2.776445 * math.sqrt(2.5 / 5)
    assert estimate == pytest.approx((3, math.sqrt(0.5), 3 - reach, 3 + reach, 5, 5))


def test_the_interval_of_a_share_solves_wilson_s_equation() -> None:
    flags, t = [1.0] * 7 + [0.0] * 3, 2.262157  # t(0.975, 9)
    estimate = share_of(flags, range(10))
    for bound in (estimate.low, estimate.high):
        assert (0.7 - bound) ** 2 == pytest.approx(t**2 * bound * (1 - bound) / 10, rel=1e-5)


def test_a_share_of_all_or_none_still_has_an_interval() -> None:
    perfect, none = share_of([1.0] * 20, range(20)), share_of([0.0] * 20, range(20))
    assert perfect.stderr == none.stderr == 0
    assert perfect.high == 1
    assert 0.75 < perfect.low < 0.9
    assert (1 - perfect.high, 1 - perfect.low) == pytest.approx((none.low, none.high))
    # Four samples of each of five questions that are all alike are no surer than five.
    assert share_of([1.0] * 20, [*range(5)] * 4)[2:4] == pytest.approx(share_of([1.0] * 5, range(5))[2:4])


def test_one_question_has_no_standard_error() -> None:
    one = mean_of([3.0, 5.0], ["q", "q"])
    assert one.mean == 4
    assert all(math.isnan(value) for value in one[1:4])
    assert share_of([1, 0], ["q", "q"])[2:] == (0, 1, 2, 1)
    with pytest.raises(ValueError, match="no samples"):
        mean_of([], [])


def test_pass_at_k_counts_subsets() -> None:
    for n, right in ((5, 2), (8, 1), (4, 4), (4, 0)):
        for k in range(1, n + 1):
            drawn = [any(index < right for index in subset) for subset in combinations(range(n), k)]
            assert pass_at(k, n, right) == pytest.approx(float(Fraction(sum(drawn), len(drawn))))
    with pytest.raises(ValueError, match="pass@3"):
        pass_at(3, 2, 1)


# ---- coverage


def covered(trial: Callable[[np.random.Generator], tuple[float, float]], truth: float) -> float:
    random = np.random.default_rng(11)
    intervals = [trial(random) for _ in range(TRIALS)]
    return float(np.mean([low - 1e-9 <= truth <= high + 1e-9 for low, high in intervals]))


def clustered_flags(random: np.random.Generator, share: float, alike: float, count: int, epochs: int) -> np.ndarray:
    """Right or wrong, where `alike` is the correlation between samples of one question."""
    ease = random.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, size=(count, 1))
    return (random.random((count, epochs)) < ease).astype(float)


@pytest.mark.parametrize(("share", "alike", "count", "epochs"), [(0.5, 0.5, 30, 8), (0.85, 0.4, 30, 4), (0.8, 0.3, 12, 4)])
def test_intervals_of_clustered_shares_have_nominal_coverage(share: float, alike: float, count: int, epochs: int) -> None:
    questions = np.repeat(np.arange(count), epochs).tolist()

    def trial(random: np.random.Generator) -> tuple[float, float]:
        return share_of(clustered_flags(random, share, alike, count, epochs).ravel().tolist(), questions)[2:4]

    assert 0.95 - SLACK <= covered(trial, share) <= 0.95 + 2 * SLACK


def test_as_if_samples_were_independent_they_would_cover_too_little() -> None:
    def trial(random: np.random.Generator) -> tuple[float, float]:
        return share_of(clustered_flags(random, 0.5, 0.5, 30, 8).ravel().tolist(), range(240))[2:4]

    assert covered(trial, 0.5) < 0.75


def test_intervals_of_clustered_means_have_nominal_coverage() -> None:
    questions = np.repeat(np.arange(20), 4).tolist()

    def trial(random: np.random.Generator) -> tuple[float, float]:
        lengths = random.normal(200, 30, size=(20, 1)) + random.normal(0, 20, size=(20, 4))
        return mean_of(lengths.ravel().tolist(), questions)[2:4]

    assert covered(trial, 200) == pytest.approx(0.95, abs=SLACK)


def runs(random: np.random.Generator, gain: float) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Two runs over 40 questions, of different ease, asked twice in each; the second is better by `gain`."""
    ease = random.uniform(0.2, 0.8, size=(40, 1))
    sides = (ease, ease + gain)
    first, second = ((random.random((40, 2)) < side).astype(float).tolist() for side in sides)
    return dict(enumerate(first)), dict(enumerate(second))


def test_the_paired_bootstrap_s_interval_has_nominal_coverage() -> None:
    def trial(random: np.random.Generator) -> tuple[float, float]:
        return paired(*runs(random, 0.15), resamples=300)[1:3]

    assert covered(trial, 0.15) == pytest.approx(0.95, abs=SLACK)


def test_the_paired_bootstrap_s_false_positives_are_at_the_nominal_rate() -> None:
    random = np.random.default_rng(5)
    ps = np.array([paired(*runs(random, 0.0), resamples=300).p for _ in range(TRIALS)])
    for level in (0.05, 0.2):
        error = math.sqrt(level * (1 - level) / TRIALS)
        assert np.mean(ps <= level) == pytest.approx(level, abs=3 * error)
    found = np.mean([paired(*runs(random, 0.3), resamples=600).p <= 0.05 for _ in range(100)])
    assert found > 0.9


# ---- pairing


def test_only_common_questions_count_and_each_once() -> None:
    first = {"a": [1.0, 0.0], "b": [0.0], "only here": [0.0]}
    second = {"b": [1.0, 1.0, 1.0], "a": [1.0], "only there": [1.0]}
    difference = paired(first, second)
    assert (difference.mean, difference.questions) == (0.75, 2)
    assert paired(second, first).mean == -0.75


def test_a_comparison_is_the_same_each_time_and_turns_with_its_sides() -> None:
    first, second = runs(np.random.default_rng(3), 0.1)
    there, back = paired(first, second), paired(second, first)
    assert there == paired(first, second) != paired(first, second, seed=1)
    assert there.mean == -back.mean
    assert there.p == pytest.approx(back.p, abs=0.02)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.02)


def test_equal_runs_do_not_differ() -> None:
    assert bootstrap([0.0] * 10) == (0, 0, 0, 1, 10, 0)
    # Three times heads, or tails, is what a fair coin gives in a quarter of all cases.
    assert bootstrap([1.0, 2.0, 3.0]).p == bootstrap([1.0, 2.0, 3.0, 0.0]).p == 0.25
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap([1.0])


def test_the_interval_is_as_wide_as_student_s_for_few_normal_values() -> None:
    values = np.random.default_rng(2).normal(0, 1, 9).tolist()
    student, ours = mean_of(values, range(9)), bootstrap(values, resamples=40_000)
    assert ours.high - ours.low == pytest.approx(student.high - student.low, rel=0.06)
