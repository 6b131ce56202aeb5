"""Whether paired differences are more than chance: signed ranks, bootstrap, many tests at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from hil.history import Column

LEVEL = 0.05
"""Probability of finding anything significant in a comparison although nothing has changed."""

PAIRS_MIN = 6
"""Fewer pairs can never be significant: five have a probability of 2/2⁵ > 5 % at the least."""

_RESAMPLES = 9999


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def differences(a: Sequence[float], b: Sequence[float]) -> Column:
    """B minus A per pair; what differs in the last digits only does not differ."""
    before, after = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    found = after - before
    noise = 1e-12 * np.maximum(np.abs(before), np.abs(after))
    return np.where(np.abs(found) <= noise, 0.0, found)


def signed_rank(difference: Column) -> float | None:
    """Two-sided probability of such differences, or larger ones, if their signs were chance.

    The Wilcoxon signed-rank test (Biometrics Bulletin 1(6), 1945): zeros are left out, equal sizes
    share their mean rank, and the distribution is exact with ties, too: all 2ⁿ choices of signs
    are counted, by convolution over the ranks.

    Returns:
        The probability, or None where fewer than `PAIRS_MIN` pairs differ.
    """
    moved = difference[difference != 0.0]
    if moved.size < PAIRS_MIN:
        return None
    # Mean ranks are multiples of a half, so twice a rank is a whole number.
    ranks = np.rint(2 * rankdata(np.abs(moved))).astype(int)
    chance = np.zeros(int(ranks.sum()) + 1)
    chance[0] = 1.0
    for rank in ranks.tolist():
        chance *= 0.5
        chance[rank:] += chance[:-rank].copy()
    total = int(ranks[moved > 0].sum())
    tail = min(float(chance[: total + 1].sum()), float(chance[total:].sum()))
    return min(1.0, 2.0 * tail)


def bootstrap_interval(difference: Column) -> Interval | None:
    """Percentile interval of the mean difference, from resampled pairs; the same at every call.

    Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Of few pairs it is
    rather too narrow; None with fewer than `PAIRS_MIN`.
    """
    n = difference.size
    if n < PAIRS_MIN:
        return None
    chosen = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    low, high = np.quantile(difference[chosen].mean(axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))


def holm(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Probabilities adjusted for testing all of them at once.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6 (1979): the smallest is multiplied by their number, the next one by one less, and
    none becomes smaller than one before it.
    """
    count = len(probabilities)
    adjusted = [0.0] * count
    reached = 0.0
    for place, index in enumerate(sorted(range(count), key=lambda i: probabilities[i])):
        reached = max(reached, min(1.0, (count - place) * probabilities[index]))
        adjusted[index] = reached
    return tuple(adjusted)


def pairs_needed(tests: int) -> int:
    """Pairs with which the clearest result of that many tests at once can be significant."""
    return max(PAIRS_MIN, ceil(1 + log2(max(1, tests) / LEVEL)))
