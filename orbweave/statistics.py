"""How sure a number is: intervals of accuracies, of their differences, and a paired test.

All take counts or per-question results, so that they can be checked by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

__all__ = [
    "LEVEL",
    "Interval",
    "mcnemar",
    "mean_of_sets",
    "mean_of_sets_interval",
    "paired_bootstrap",
    "pooled",
    "relative_gain",
    "wilson",
]

LEVEL = 0.95
"""Confidence level of every interval, in (0, 1)."""
_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A lower and an upper bound."""

    low: float
    high: float


def pooled(sets: Sequence[tuple[int, int]]) -> float:
    """Return overall accuracy as all right answers over all questions: large sets count more."""
    return sum(right for right, _ in sets) / sum(n for _, n in sets)


def mean_of_sets(sets: Sequence[tuple[int, int]]) -> float:
    """Return overall accuracy as the mean of the sets' accuracies: every set counts the same."""
    return sum(right / n for right, n in sets) / len(sets)


def wilson(right: float, n: int, level: float = LEVEL) -> Interval:
    """Return the score interval of an accuracy, within [0, 1] and never of no width.

    Args:
        right: Right answers; half ones count as halves.
        n: Answers.
        level: Confidence level, in (0, 1).

    Raises:
        ValueError: n is below 1, or right not in [0, n].

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927) 209; without continuity correction.
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"wanted 0 <= right <= n and n >= 1, got right={right}, n={n}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding must not push a bound past the end it reaches exactly at p = 0 and p = 1.
    return Interval(
        0.0 if right == 0 else max(0.0, middle - half),
        1.0 if right == n else min(1.0, middle + half),
    )


def mean_of_sets_interval(sets: Sequence[tuple[int, int]], level: float = LEVEL) -> Interval:
    """Return the interval of `mean_of_sets`, put together from the sets' Wilson intervals.

    Source: Zou and Donner, Stat. Med. 27 (2008) 1693 (method of variance estimates recovery).
    """
    middle, k = mean_of_sets(sets), len(sets)
    bounds = [(right / n, wilson(right, n, level)) for right, n in sets]
    below = math.sqrt(sum((p - bound.low) ** 2 for p, bound in bounds)) / k
    above = math.sqrt(sum((bound.high - p) ** 2 for p, bound in bounds)) / k
    return Interval(middle - below, middle + above)


def paired_bootstrap(
    sets: Sequence[Sequence[int]],
    *,
    seed: int,
    level: float = LEVEL,
    n_resamples: int = _RESAMPLES,
) -> Interval:
    """Return the percentile interval of a difference of two accuracies on the same questions.

    Args:
        sets: For each set and question 1 where only the second model is right, -1 where only
            the first is, 0 else. One set gives the difference of pooled accuracies, several
            the mean of their differences; questions are drawn anew within each set.
        seed: The same seed gives the same interval.
        level: Confidence level, in (0, 1).
        n_resamples: Draws.

    Raises:
        ValueError: there is no set, or one has no question.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    if not sets or not all(sets):
        raise ValueError("wanted at least one set with at least one question in each")
    rng = np.random.default_rng(seed)
    total = np.zeros(n_resamples)
    for gains in sets:
        n = len(gains)
        # Drawing n questions with replacement is drawing how many of each value came up.
        shares = [gains.count(value) / n for value in (-1, 0, 1)]
        drawn = rng.multinomial(n, shares, size=n_resamples)  # (n_resamples, 3)
        total += (drawn[:, 2] - drawn[:, 0]) / n
    low, high = np.quantile(total / len(sets), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value that both models are equally good.

    Args:
        only_first: Questions that only the first model got right.
        only_second: Questions that only the second model got right.

    Source: McNemar, Psychometrika 12 (1947) 153; the exact binomial form.
    """
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << n))


def relative_gain(first: float, second: float) -> float | None:
    """Return (second - first) / first; None where the first is 0 and nothing can be said."""
    return (second - first) / first if first else None
