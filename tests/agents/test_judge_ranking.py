from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from agents.ranking import (
    Contest,
    correlation,
    first_shown,
    rank,
    standings,
    strengths,
)

# Raw scores of Lu, Luu & Buehler (2025), Table 3: depth, creativity, clarity, quantitative.
PAPER = {
    "SmolLM-1.7B Base-CPT-SFT-DPO": (10, 10, 9, 9),
    "Llama Instruct-CPT-SFT-DPO": (9, 8, 9, 7),
    "Llama Instruct-CPT-SFT-ORPO-SLERP Var_G": (8, 9, 8, 6),
    "Mistral Base-CPT-SFT-DPO": (8, 7, 8, 7),
    "Mistral Base-CPT-SFT-SLERP": (6, 6, 7, 5),
}
CRITERIA = ("depth", "creativity", "clarity", "quantitative")


def marks_of(*values: float) -> dict[str, float]:
    return dict(zip(CRITERIA, values, strict=False))


def test_the_papers_table_follows_exactly_from_its_raw_scores():
    table = standings({model: [[marks_of(*raw)]] for model, raw in PAPER.items()})
    assert [row.model for row in table] == list(PAPER)
    assert [row.total for row in table] == [38, 33, 31, 30, 24]
    assert [row.mean for row in table] == [9.5, 8.25, 7.75, 7.5, 6.0]
    assert [round(row.normalised, 1) for row in table] == [10.0, 8.7, 8.2, 7.9, 6.3]
    assert all(row.interval is None and row.spread is None for row in table)


def test_marks_are_means_over_repeats_and_answers_and_the_spread_is_over_repeats():
    answers = [[marks_of(4, 6), marks_of(6, 8)], [marks_of(1, 1), marks_of(1, 1)]]
    (row,) = standings({"m": answers}, highest=10)
    assert row.marks == {"depth": 3.0, "creativity": 4.0}
    assert (row.n, row.total, row.mean, row.normalised) == (2, 7.0, 3.5, 10.0)
    assert row.spread == pytest.approx((math.sqrt(8) + 0) / 2)
    assert row.interval is not None
    assert 2.0 <= row.interval.low < 7.0 < row.interval.high <= 12.0


def test_the_interval_of_a_total_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        totals = rng.normal(5.0, 1.0, size=40)
        (row,) = standings({"m": [[{"x": float(t)}] for t in totals]}, seed=trial)
        assert row.interval is not None
        hits += row.interval.low <= 5.0 <= row.interval.high
    assert 0.88 <= hits / 200 <= 0.99


def contests(*rows: tuple[str, str, float]) -> list[Contest]:
    return [Contest(a, b, f"q{i}", result) for i, (a, b, result) in enumerate(rows)]


def test_wins_ties_and_losses_are_counted_for_both_sides():
    places = rank(contests(("a", "b", 1.0), ("b", "a", 0.5), ("a", "b", 0.0), ("a", "c", 1.0)))
    by_name = {place.model: place for place in places}
    assert by_name["a"][1:5] == (2, 1, 1, 0.625)
    assert by_name["b"][1:5] == (1, 1, 1, 0.5)
    assert by_name["c"][1:5] == (0, 0, 1, 0.0)
    assert [place.model for place in places] == ["a", "b", "c"]


def test_one_question_gives_no_interval_and_more_give_one_that_holds_the_rate():
    assert rank(contests(("a", "b", 1.0)))[0].interval is None
    rows = [("a", "b", 1.0)] * 6 + [("a", "b", 0.0)] * 2
    place = rank(contests(*rows))[0]
    assert place.interval is not None
    assert place.interval.low < place.win_rate == 0.75 < place.interval.high


def test_strengths_are_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(1)
    truth = {"a": 1.0, "b": 0.0, "c": -1.0}
    names = list(truth)
    rows = []
    for _ in range(300):
        i, j = rng.choice(3, size=2, replace=False)
        wins = rng.random() < expit(truth[names[i]] - truth[names[j]])
        rows.append((names[i], names[j], float(wins)))
    found = strengths(contests(*rows))

    def loss(logs: np.ndarray) -> float:
        total = 0.0
        for first, second, result in rows:
            p = expit(logs[names.index(first)] - logs[names.index(second)])
            total -= result * np.log(p) + (1 - result) * np.log(1 - p)
        # The imagined tie of each with a model of strength 1.
        return float(total - 0.5 * np.sum(np.log(expit(logs)) + np.log(expit(-logs))))

    best = minimize(loss, np.zeros(3)).x
    best = best - best.mean()
    assert [found[name] for name in names] == pytest.approx(list(best), abs=1e-3)
    assert [found[name] for name in names] == pytest.approx([1, 0, -1], abs=0.4)


def test_strength_is_finite_for_one_who_always_wins_and_symmetric():
    found = strengths(contests(*[("a", "b", 1.0)] * 10))
    assert found["a"] == pytest.approx(-found["b"])
    assert 1 < found["a"] < 5
    assert strengths([]) == {}


def test_a_judge_who_takes_the_first_is_found_out():
    pace = first_shown([[0.9, 0.8]] * 10 + [[1.0, 0.7, 0.5]] * 10 + [[0.5, 0.5]])
    assert pace is not None
    assert (pace.share, pace.n) == (1.0, 20)
    assert pace.interval.low > 0.8
    assert first_shown([[0.5, 0.5], []]) is None


def test_asking_for_the_same_pairs_again_makes_no_judge_surer_of_its_place():
    pairs = [[0.9, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]]
    once, often = first_shown(pairs), first_shown([shares * 25 for shares in pairs])
    assert once == often
    assert once is not None
    assert (once.share, once.n) == (0.75, 4)
    assert once.interval.low < 0.5 < once.interval.high


def test_the_interval_of_position_bias_covers_the_truth_when_views_hang_together():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        # Of twenty pairs some are taken for their place in all ten views, the others by merit.
        by_place = rng.random(20) < 0.4
        pairs = [[0.9] * 10 if placed else [0.9, 0.1] * 5 for placed in by_place]
        pace = first_shown(pairs)
        assert pace is not None
        hits += pace.interval.low <= 0.5 + 0.4 / 2 <= pace.interval.high
    assert 0.92 <= hits / 300 <= 0.985  # neither too narrow nor too wide


def test_the_interval_of_position_bias_is_as_worked_by_hand():
    # Of ten pairs the first was preferred both times in three, the second in one. With half a
    # pair in each of four ways: 2 of 12 lean, 1/6; their spread is (4 + 1 - 4/12) / 144, of which
    # the root is 0.18002; 1.96 of that around 1/6, halved, around a half.
    pace = first_shown([[0.9, 0.9]] * 3 + [[0.1, 0.1]] + [[0.9, 0.1], [0.1, 0.9]] * 3)
    assert pace is not None
    assert (pace.share, pace.n) == (0.6, 10)
    assert pace.interval == pytest.approx((0.4069, 0.7598), abs=1e-4)


def test_pairs_that_agree_in_both_orders_make_a_fair_judge_surer_than_single_tosses():
    pace = first_shown([[0.9, 0.1]] * 30)
    assert pace is not None
    assert pace.share == 0.5
    assert 0.44 < pace.interval.low < 0.5 < pace.interval.high < 0.56


def test_correlation_is_spearmans_and_says_nothing_of_constants():
    assert correlation([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert correlation([1, 1, 1], [1, 2, 3]) is None
    assert correlation([1, 2], [1, 2]) is None
