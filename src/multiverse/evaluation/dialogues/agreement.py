"""Agreement of two judges: Cohen's kappa on the items that both have judged, with an interval over dialogues.

    kappa = (p_o - p_e) / (1 - p_e)

p_o is the share of items on which both say the same, p_e that share if each said yes as often as it does, but independently of
the other (Cohen, *A coefficient of agreement for nominal scales*, 1960). Items of one dialogue are not independent, so
dialogues are what is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import require
from ..statistics import LEVEL

RESAMPLES = 4000


class Agreement(NamedTuple):
    """How far two judges agree.

    Attributes:
        kappa: NaN if both always say the same one thing.
        low, high: interval at `LEVEL`; NaN for a single dialogue, or where most resamples have no kappa.
        same: share of items on which they agree.
        first_met, second_met: share of items that each finds met.
        items, dialogues: their numbers.
    """

    kappa: float
    low: float
    high: float
    same: float
    first_met: float
    second_met: float
    items: int
    dialogues: int

    def to_json(self) -> dict[str, Any]:
        """As JSON; NaN is null."""
        values = self._asdict().items()
        return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values}


def agreement(
    first: Sequence[bool], second: Sequence[bool], dialogues: Sequence[Hashable], *, seed: int = 0, resamples: int = RESAMPLES
) -> Agreement:
    """Agreement of two judges on the same items.

    Args:
        first, second: the verdicts.
        dialogues: which dialogue each item belongs to.
        seed: of the resampling.

    Raises:
        ValueError: there are no items.
    """
    if not len(first):
        raise ValueError("there are no items that both have judged")
    number: dict[Hashable, int] = {}
    clusters = [number.setdefault(one, len(number)) for one in dialogues]
    # Legend: C dialogues, K the four outcomes (neither, second only, first only, both), R resamples.
    tables_CK = np.zeros((len(number), 4))
    np.add.at(tables_CK, (clusters, 2 * np.asarray(first, dtype=int) + np.asarray(second, dtype=int)), 1)
    table_K = tables_CK.sum(axis=0)
    low = high = math.nan
    count = len(number)
    if count > 1:
        weights_RC = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        drawn_R = _kappas(weights_RC @ tables_CK)
        drawn_R = drawn_R[~np.isnan(drawn_R)]
        if 2 * len(drawn_R) > resamples:
            low, high = (float(value) for value in np.quantile(drawn_R, _tails(count)))
    items = float(table_K.sum())
    return Agreement(
        float(_kappas(table_K[None])[0]),
        low,
        high,
        float(table_K[0] + table_K[3]) / items,
        float(table_K[2] + table_K[3]) / items,
        float(table_K[1] + table_K[3]) / items,
        int(items),
        count,
    )


def _kappas(tables_RK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of each table; NaN where chance alone would agree always."""
    n_R = tables_RK.sum(axis=1)
    same_R = (tables_RK[:, 0] + tables_RK[:, 3]) / n_R
    first_R, second_R = (tables_RK[:, 2] + tables_RK[:, 3]) / n_R, (tables_RK[:, 1] + tables_RK[:, 3]) / n_R
    chance_R = first_R * second_R + (1 - first_R) * (1 - second_R)
    left_R = 1 - chance_R
    return np.where(left_R > 1e-12, (same_R - chance_R) / np.where(left_R > 1e-12, left_R, 1.0), np.nan)


def _tails(count: int) -> tuple[float, float]:
    """Quantiles of resampled values for an interval as wide as Student's, see `statistics.paired`."""
    special = require("scipy.special", "eval")
    reach = math.sqrt(count / (count - 1)) * float(special.stdtrit(count - 1, 0.5 + LEVEL / 2))
    tail = float(special.ndtr(-reach))
    return tail, 1 - tail
