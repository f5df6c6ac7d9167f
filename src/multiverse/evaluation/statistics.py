"""Standard errors, confidence intervals and paired comparisons, clustered by question.

Samples of one question are not independent of each other: a hard question is hard in every epoch. So questions, not samples,
are what is drawn at random, and everything here is clustered by question: standard errors, intervals, and resampling.

Sources: Miller, *Adding Error Bars to Evals* (arXiv 2411.00640), for clustered errors and paired differences; Korn and
Graubard, *Confidence intervals for proportions with small expected number of positive counts estimated from survey data*
(Survey Methodology 24, 1998), for shares of clustered samples; Hesterberg, *What Teachers Should Know About the Bootstrap* (The
American Statistician 69, 2015), for the bootstrap with few questions; Chen et al. (arXiv 2107.03374) for pass@k.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import require

Question = TypeVar("Question", bound=Hashable)

LEVEL = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1 << 22  # random numbers drawn at a time


class Estimate(NamedTuple):
    """A mean with its error.

    Attributes:
        stderr: clustered by question; NaN for a single question.
        low, high: confidence interval at `LEVEL`.
        samples, questions: their numbers.
    """

    mean: float
    stderr: float
    low: float
    high: float
    samples: int
    questions: int


class Difference(NamedTuple):
    """Paired difference of two runs.

    Attributes:
        mean: mean over questions of the second less the first.
        low, high: confidence interval at `LEVEL`.
        p: probability of a difference as far from zero or farther if there were none.
        questions: number of common questions.
        stderr: standard error of the mean, a question counting once.
    """

    mean: float
    low: float
    high: float
    p: float
    questions: int
    stderr: float


def mean_of(values: Sequence[float], questions: Sequence[Hashable]) -> Estimate:
    """Mean of any quantity; the interval is Student's with as many degrees of freedom as there are questions less one."""
    sums, sizes = _clusters(values, questions)
    mean, stderr = sums.sum() / sizes.sum(), _stderr(sums, sizes)
    reach = _student(len(sums)) * stderr if len(sums) > 1 else math.nan
    return _estimate(mean, stderr, mean - reach, mean + reach, sizes)


def share_of(flags: Sequence[float], questions: Sequence[Hashable]) -> Estimate:
    """Share of ones among flags of 0 and 1.

    The interval is Wilson's, at the number of independent samples that would be as sure as these (n over the design effect,
    Korn and Graubard) and with Student's quantile. Student's interval and the percentile bootstrap have no width where all
    samples are right, and near 0 or 1 Student's covers less than it promises: with 30 questions of 8 samples, 92% at a share of
    0.85 and 79% at 0.97, where Wilson's covers 95% and 91%. Wilson's never leaves [0, 1].
    """
    sums, sizes = _clusters(flags, questions)
    n, count = sizes.sum(), len(sums)
    mean, stderr = sums.sum() / n, _stderr(sums, sizes)
    if count == 1:
        return _estimate(mean, stderr, 0.0, 1.0, sizes)
    most = float((sizes**2).sum() / n)  # design effect if samples of one question are all alike
    plain = mean * (1 - mean) / n
    effect = min(most, max(1.0, stderr**2 / plain)) if plain > 0 else most
    n, t = n / effect, _student(count)
    return _estimate(mean, stderr, *wilson(mean, n, t), sizes)


def wilson(mean: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval for a share `mean` of `n` independent samples; `n` need not be whole."""
    centre = (mean + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    reach = quantile * math.sqrt(mean * (1 - mean) / n + quantile**2 / (4 * n**2)) / (1 + quantile**2 / n)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def pass_at(k: int, n: int, right: int) -> float:
    """Chance that at least one of `k` samples is right, without bias from `n >= k` samples of which `right` are."""
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(f"pass@{k} of {n} samples, {right} right: k is at least 1 and at most n, and so is what was right")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def paired(
    first: Mapping[Question, Sequence[float]],
    second: Mapping[Question, Sequence[float]],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two runs on the questions they have in common, by bootstrap over questions.

    Each question counts once: the mean of its samples in `second` less that in `first`. The interval is Hesterberg's expanded
    percentile interval, which is as wide as Student's where that is exact. `p` is the share of resamples, moved so that there
    is no difference, that end as far from zero as what was measured. It is never less than what the signs of the differences
    could show, 2 to the power of 1 - n for n that are not zero: resampling a handful of values underestimates p.

    Args:
        first: under each question, the values of its samples.
        second: the same of the other run.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two questions are common to both.
    """
    common = [question for question in first if question in second]
    return bootstrap([float(np.mean(second[one]) - np.mean(first[one])) for one in common], seed=seed, resamples=resamples)


def bootstrap(differences: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """`paired`, given the difference on each question."""
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} questions are common to both runs: a comparison needs at least 2")
    mean = float(values.mean())
    means = _resampled(values, np.random.default_rng(seed), resamples)
    special = require("scipy.special", "eval")
    # Resampled means spread too little by sqrt((n - 1) / n), and the normal's tail is thinner than Student's.
    wider = math.sqrt(count / (count - 1))
    tail = float(special.ndtr(-wider * _student(count)))
    low, high = np.quantile(means, [tail, 1 - tail])
    # A tolerance, so that the order of summation does not matter.
    far = np.abs(means - mean) * wider >= abs(mean) * (1 - 1e-9) - 1e-12
    p = (1 + int(far.sum())) / (1 + resamples)
    least = min(1.0, 2.0 ** (1 - int(np.count_nonzero(values))))
    stderr = float(values.std(ddof=1)) / math.sqrt(count)
    return Difference(mean, float(low), float(high), max(p, least), count, stderr)


def _resampled(values: NDArray[np.float64], random: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    means = np.empty(resamples)
    step = max(1, _AT_ONCE // len(values))
    for start in range(0, resamples, step):
        stop = min(resamples, start + step)
        means[start:stop] = values[random.integers(len(values), size=(stop - start, len(values)))].mean(axis=1)
    return means


def _clusters(values: Sequence[float], questions: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each cluster."""
    if not len(values):
        raise ValueError("there are no samples")
    number: dict[Hashable, int] = {}
    index = [number.setdefault(question, len(number)) for question in questions]
    weights = np.asarray(values, dtype=float)
    return np.bincount(index, weights).astype(float), np.bincount(index).astype(float)


def _stderr(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """Standard error of a mean, from the sum and size of each cluster.

        sqrt(C / (C - 1) * sum over clusters of (sum of the cluster's deviations from the mean)²) / n

    Miller's equation 4 with the correction C / (C - 1) for few clusters, as inspect-ai has it. With one sample per question
    this is the textbook's s / sqrt(n).
    """
    count, n = len(sums), sizes.sum()
    if count == 1:
        return math.nan
    deviations = sums - sizes * (sums.sum() / n)
    return math.sqrt(count / (count - 1) * float((deviations**2).sum())) / float(n)


def _student(questions: int) -> float:
    """Quantile of Student's distribution for a two-sided interval at `LEVEL`."""
    return float(require("scipy.special", "eval").stdtrit(questions - 1, 0.5 + LEVEL / 2))


def _estimate(mean: float, stderr: float, low: float, high: float, sizes: NDArray[np.float64]) -> Estimate:
    return Estimate(float(mean), float(stderr), float(low), float(high), int(sizes.sum()), len(sizes))
