"""Intervals and tests against scipy, against hand-worked numbers, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orbweave.statistics import (
    mcnemar,
    mean_of_sets,
    mean_of_sets_interval,
    paired_bootstrap,
    pooled,
    relative_gain,
    wilson,
)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (40, 120), (119, 120), (7, 7), (1, 1)])
def test_the_wilson_interval_is_scipys(right, n):
    oracle = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_the_wilson_interval_follows_the_level():
    oracle = stats.binomtest(30, 100).proportion_ci(0.8, method="wilson")
    assert wilson(30, 100, level=0.8) == pytest.approx((oracle.low, oracle.high))


def test_the_wilson_interval_touches_the_ends_exactly_and_has_width():
    assert wilson(0, 5).low == 0.0 < wilson(0, 5).high
    assert wilson(5, 5).high == 1.0 > wilson(5, 5).low


@pytest.mark.parametrize(("right", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(right, n):
    with pytest.raises(ValueError, match="wanted 0 <= right <= n"):
        wilson(right, n)


def test_the_wilson_interval_covers_the_truth_about_nineteen_times_in_twenty():
    rights = np.random.default_rng(0).binomial(120, 0.33, size=2_000)
    hits = sum(
        wilson(int(right), 120).low <= 0.33 <= wilson(int(right), 120).high for right in rights
    )
    assert hits / len(rights) == pytest.approx(0.95, abs=0.02)


def test_the_two_overalls_differ_where_the_sets_differ_in_size():
    sets = [(10, 10), (0, 30)]
    assert pooled(sets) == pytest.approx(0.25)
    assert mean_of_sets(sets) == pytest.approx(0.5)


def test_one_set_alone_has_its_own_wilson_interval():
    assert mean_of_sets_interval([(13, 40)]) == pytest.approx(wilson(13, 40))


def test_the_interval_of_a_mean_of_sets_covers_the_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1_000):
        sets = [(int(rng.binomial(120, 0.3)), 120), (int(rng.binomial(40, 0.6)), 40)]
        low, high = mean_of_sets_interval(sets)
        hits += low <= 0.45 <= high
    assert hits / 1_000 == pytest.approx(0.95, abs=0.025)


def test_the_paired_bootstrap_agrees_with_scipys():
    rng = np.random.default_rng(2)
    gains = rng.choice([-1, 0, 1], p=[0.1, 0.65, 0.25], size=240)
    oracle = stats.bootstrap(
        (gains,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    found = paired_bootstrap([gains.tolist()], seed=0, n_resamples=20_000)
    assert found == pytest.approx((oracle.low, oracle.high), abs=0.006)


def test_the_paired_bootstrap_of_several_sets_draws_within_each():
    # One set is certain, so only the other's spread is left, and it counts half.
    certain, open_ = [1] * 50, [1, 0] * 100
    one = paired_bootstrap([open_], seed=0)
    both = paired_bootstrap([certain, open_], seed=0)
    assert both.low == pytest.approx((1 + one.low) / 2, abs=0.01)
    assert both.high == pytest.approx((1 + one.high) / 2, abs=0.01)


def test_the_paired_bootstrap_repeats_with_its_seed():
    gains = [1, 0, -1, 1, 0, 0, 1]
    assert paired_bootstrap([gains], seed=5) == paired_bootstrap([gains], seed=5)


def test_a_difference_of_nothing_has_no_width_and_none_at_all_is_refused():
    assert paired_bootstrap([[0, 0, 0]], seed=0) == (0.0, 0.0)
    for nothing in ([], [[]], [[1], []]):
        with pytest.raises(ValueError, match="at least one"):
            paired_bootstrap(nothing, seed=0)


def test_the_paired_bootstrap_covers_a_known_difference_about_nineteen_times_in_twenty():
    """Two simulated models: 40 % and 52 % right, on the same 240 questions."""
    rng = np.random.default_rng(4)
    hits = 0
    for run in range(400):
        drawn = rng.uniform(size=240)
        first = drawn < 0.40
        second = np.where(first, rng.uniform(size=240) < 0.8, rng.uniform(size=240) < 1 / 3)
        gains = (second.astype(int) - first.astype(int)).tolist()
        low, high = paired_bootstrap([gains], seed=run, n_resamples=1_000)
        hits += low <= 0.4 * 0.8 + 0.6 / 3 - 0.4 <= high
    assert hits / 400 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (3, 9), (12, 30), (40, 40), (0, 200)])
def test_mcnemar_is_scipys_exact_binomial_test(counts):
    lost, won = counts
    oracle = stats.binomtest(lost, lost + won).pvalue if lost + won else 1.0
    assert mcnemar(lost, won) == pytest.approx(oracle, rel=1e-9)
    assert mcnemar(won, lost) == mcnemar(lost, won)


def test_mcnemar_calls_equal_models_different_at_most_once_in_twenty():
    rng = np.random.default_rng(5)
    lost = rng.binomial(40, 0.5, size=2_000)
    assert sum(mcnemar(int(k), 40 - int(k)) < 0.05 for k in lost) / 2_000 <= 0.06


def test_a_relative_gain_is_over_the_first_and_nothing_over_zero():
    assert relative_gain(0.4, 0.5) == pytest.approx(0.25)
    assert relative_gain(0.4, 0.3) == pytest.approx(-0.25)
    assert relative_gain(0.0, 0.3) is None
