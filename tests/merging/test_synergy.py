"""Merges against their parents, checked by hand-worked cases, laws and simulations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from merging.synergy import (
    Merge,
    Results,
    against_the_mean,
    choose,
    compare,
    halves,
    holm,
    mean_difference,
    mean_interval,
    points,
    synergies,
    verdict,
)
from merging.synergy_patterns import (
    correlations,
    density,
    group,
    merge_correlations,
    z_scores,
)
from orbweave.errors import UsageError


def results(**rows: str) -> Results:
    """Answers written as 1 and 0, one character a question."""
    right = np.array([[c == "1" for c in row] for row in rows.values()])
    return Results(tuple(rows), tuple(f"q{i}" for i in range(right.shape[1])), right)


BY_HAND = results(
    a="1111000000",  # 4 of 10
    b="1110111000",  # 6 of 10
    m="1100111110",  # 7 of 10
)
MERGE = Merge("m", ("a", "b"), distance=0.25, traits={"sft": 1})


def test_every_number_of_a_merge_is_as_worked_out_by_hand():
    (row,) = synergies(BY_HAND, [MERGE])
    assert (row.actual, row.parent_accuracies, row.better) == (0.7, (0.4, 0.6), "b")
    assert row.expected == pytest.approx(0.5)
    assert row.excess == pytest.approx(0.2)
    assert row.improvement == pytest.approx(0.1)
    assert row.score_gap == pytest.approx(0.2)
    assert (row.only_better, row.only_merge) == (1, 2)  # question 3; questions 8 and 9
    assert row.p_value == 1.0  # 2 * (1 + 3) / 2**3
    assert row.disagreement == pytest.approx(0.4)  # questions 4 to 7
    assert (row.n_new, row.n_lost) == (2, 1)  # 8 and 9; 3
    assert (row.distance, row.traits, row.n) == (0.25, {"sft": 1.0}, 10)
    assert row.low == pytest.approx(0.3968, abs=1e-4)  # Wilson, 7 of 10
    assert row.high == pytest.approx(0.8922, abs=1e-4)


def test_the_expected_score_is_the_mean_of_the_parents_and_the_excess_their_mean_difference():
    rng = np.random.default_rng(0)
    answers = Results(tuple("abcm"), tuple(map(str, range(200))), rng.random((4, 200)) < 0.5)
    two, three = synergies(answers, [Merge("m", ("a", "b")), Merge("m", ("a", "b", "c"))])
    by_parent = [compare(answers, parent, "m").gain for parent in "abc"]
    assert two.excess == pytest.approx(np.mean(by_parent[:2]))
    assert three.excess == pytest.approx(np.mean(by_parent))
    assert two.improvement == pytest.approx(min(by_parent[:2]))


def test_the_sign_is_positive_where_the_merge_is_better():
    rows = synergies(
        results(a="1100", b="1000", up="1110", down="0000"),
        [Merge("up", ("a", "b")), Merge("down", ("a", "b"))],
    )
    assert [row.improvement for row in rows] == [0.25, -0.5]
    assert [row.excess for row in rows] == [0.375, -0.375]


def test_the_bar_may_be_decided_elsewhere():
    (row,) = synergies(BY_HAND, [MERGE], better={"m": "a"})
    assert row.better == "a"
    assert row.improvement == pytest.approx(0.3)


def test_the_interval_of_the_excess_is_that_of_a_mean():
    """Against the textbook's standard error, for many questions."""
    rng = np.random.default_rng(1)
    answers = Results(tuple("abm"), tuple(map(str, range(2000))), rng.random((3, 2000)) < 0.6)
    (row,) = synergies(answers, [Merge("m", ("a", "b"))])
    a, b, m = answers.right.astype(float)
    error = np.std(m - (a + b) / 2) / np.sqrt(2000)
    assert row.excess_low == pytest.approx(row.excess - 1.96 * error, abs=0.1 * error)
    assert row.excess_high == pytest.approx(row.excess + 1.96 * error, abs=0.1 * error)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Merges that are as good as both parents by construction: 5 in 100 may seem different."""
    rng = np.random.default_rng(2)
    missed = []
    for trial in range(100):
        ability = rng.random(120)
        answers = Results(
            tuple("abm"), tuple(map(str, range(120))), rng.random((3, 120)) < 0.3 + 0.4 * ability
        )
        found = compare(answers, "a", "m", seed=trial)
        missed.append(not found.low <= 0 <= found.high)
    assert 0.01 <= np.mean(missed) <= 0.11


@pytest.mark.parametrize(
    ("p_values", "wanted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm 1979, worked by hand
        ([0.9, 0.8], [1.0, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holm_is_as_worked_out_by_hand(p_values, wanted):
    assert holm(p_values) == pytest.approx(wanted)


def test_every_merge_of_a_table_is_corrected_for_all_of_them():
    rng = np.random.default_rng(3)
    names = ["a", "b", *(f"m{i}" for i in range(5))]
    answers = Results(tuple(names), tuple(map(str, range(100))), rng.random((7, 100)) < 0.5)
    rows = synergies(answers, [Merge(name, ("a", "b")) for name in names[2:]])
    assert [row.p_holm for row in rows] == holm([row.p_value for row in rows])
    assert {row.n_merges for row in rows} == {5}


def test_the_verdict_says_plainly_that_nothing_can_be_claimed():
    (row,) = synergies(BY_HAND, [MERGE])
    row = row.model_copy(
        update={"improvement": 0.012, "improvement_low": -0.021, "improvement_high": 0.046}
    )
    assert verdict(row) == (
        "no gain over the better parent can be claimed: +1.2 points, 95 % -2.1 to +4.6 "
        "(McNemar p = 1)"
    )


@pytest.mark.parametrize(
    ("n_won", "n_lost", "claim"),
    [
        (30, 2, "a gain over the better parent can be claimed: +28.0 points"),
        (2, 30, "worse than the better parent: -28.0 points"),
        (6, 5, "no gain over the better parent can be claimed: +1.0 points"),
    ],
)
def test_a_claim_needs_the_interval_and_the_test(n_won, n_lost, claim):
    n = 100
    a = np.array([False] * n_won + [True] * n_lost + [True] * (n - n_won - n_lost))
    m = np.array([True] * n_won + [False] * n_lost + [True] * (n - n_won - n_lost))
    answers = Results(("a", "b", "m"), tuple(map(str, range(n))), np.array([a, ~a & a, m]))
    (row,) = synergies(answers, [Merge("m", ("a", "b"))])
    assert verdict(row).startswith(claim)


def test_a_gain_among_many_merges_is_not_claimed_where_the_correction_takes_it():
    n = 100
    a = np.array([False] * 14 + [True] * 4 + [True] * 82)
    m = np.array([True] * 14 + [False] * 4 + [True] * 82)
    right = np.array([a, np.zeros(n, bool), m, *[a] * 9])
    names = ("a", "b", "m", *(f"other{i}" for i in range(9)))
    answers = Results(names, tuple(map(str, range(n))), right)
    alone, *_ = synergies(answers, [Merge("m", ("a", "b"))])
    among, *_ = synergies(answers, [Merge(name, ("a", "b")) for name in names[2:]])
    assert alone.is_gain and not among.is_gain
    assert "after Holm over 10 merges" in verdict(among)


def test_beating_the_mean_of_the_parents_is_called_a_low_bar():
    """A weak parent pulls the mean down; the merge only equals the good one."""
    n = 60
    good = np.arange(n) < 50
    answers = Results(
        ("good", "weak", "m"), tuple(map(str, range(n))), np.array([good, np.arange(n) < 10, good])
    )
    (row,) = synergies(answers, [Merge("m", ("good", "weak"))])
    assert against_the_mean(row).startswith("above the mean of the parents, a low bar: +33.3")
    assert verdict(row).startswith("no gain over the better parent can be claimed: +0.0 points")


@pytest.mark.parametrize(("n", "is_claimed"), [(2, False), (5, False), (6, True)])
def test_a_few_questions_that_are_all_won_do_not_beat_the_mean(n, is_claimed):
    """Their interval has no width; the sign test's p is 2 / 2**n."""
    (row,) = synergies(results(a="0" * n, b="0" * n, m="1" * n), [Merge("m", ("a", "b"))])
    assert (row.excess_low, row.excess_p) == (1.0, 2 / 2**n)
    assert against_the_mean(row).startswith("above the mean") == is_claimed
    assert ("not to be told from the mean" in against_the_mean(row)) != is_claimed


def test_the_sign_test_of_the_excess_is_as_worked_out_by_hand():
    (row,) = synergies(BY_HAND, [MERGE])  # below on questions 3 and 4, above on 5 to 9
    assert row.excess_p == pytest.approx(2 * (1 + 7 + 21) / 2**7)


def test_thirds_that_cancel_are_no_gain():
    """Four losses of two thirds and a gain: the upper bound is 0, and not 2e-13 below."""
    bounds = mean_interval(np.array([-2 / 3] * 4 + [1 / 3] + [0.0] * 5), seed=0)
    assert bounds == (pytest.approx(-7 / 15), 0.0)


def test_points_have_no_negative_zero():
    assert [points(x) for x in (0.012, -0.0001, 0.0, -0.05)] == ["+1.2", "+0.0", "+0.0", "-5.0"]


def test_the_mean_difference_of_pairs_is_that_of_their_accuracies():
    rng = np.random.default_rng(4)
    answers = Results(tuple("abcd"), tuple(map(str, range(300))), rng.random((4, 300)) < 0.5)
    mean, bounds = mean_difference(answers, [("a", "b"), ("c", "d")])
    gains = [answers.accuracy(y) - answers.accuracy(x) for x, y in ("ab", "cd")]
    assert mean == pytest.approx(np.mean(gains))
    assert bounds.low < mean < bounds.high


# ---------------------------------------------------------------- choosing


def test_halves_are_even_in_every_stratum_and_follow_the_seed():
    strata = ["silk"] * 7 + ["leaf"] * 11 + ["bone"] * 4
    first, second = halves(strata, seed=1)
    assert sorted(first + second) == list(range(22))
    assert abs(len(first) - len(second)) <= 1
    for stratum in set(strata):
        counts = [sum(strata[i] == stratum for i in half) for half in (first, second)]
        assert abs(counts[0] - counts[1]) <= 1
    assert halves(strata, seed=1) == (first, second)
    assert halves(strata, seed=2) != (first, second)


def test_the_best_is_chosen_on_one_half_and_measured_on_the_other():
    strata = ["x"] * 40
    choosing, reporting = halves(strata, seed=0)
    right = np.zeros((4, 40), dtype=bool)
    right[1, choosing[:10]] = True  # b: the better parent where the choice is made
    right[0, reporting[:5]] = True  # a: the better one on the other half
    right[2, choosing[:15]] = True  # lucky: chosen, and worth nothing elsewhere
    right[3, reporting] = True
    answers = Results(("a", "b", "lucky", "good"), tuple(map(str, range(40))), right)
    choice = choose(answers, [Merge("lucky", ("a", "b")), Merge("good", ("a", "b"))], strata)
    assert choice.best.name == "lucky"
    assert choice.best.better == "b"
    assert (choice.best.actual, choice.best.n) == (0.0, 20)
    assert choice.chosen_by["lucky"] == 0.75
    assert [row.name for row in choice.table] == ["lucky", "good"]


def test_choosing_among_equal_merges_is_no_longer_flattered():
    """The best of 12 merges of no merit looks good where it was chosen and not on the rest."""
    rng = np.random.default_rng(5)
    chosen, reported = [], []
    names = ("a", "b", *(f"m{i}" for i in range(12)))
    for seed in range(5):
        answers = Results(names, tuple(map(str, range(400))), rng.random((14, 400)) < 0.5)
        merges = [Merge(name, ("a", "b")) for name in names[2:]]
        choice = choose(answers, merges, ["x"] * 400, seed=seed)
        chosen.append(choice.chosen_by[choice.best.name])
        reported.append(choice.best.actual)
    assert np.mean(chosen) > 0.54
    assert np.mean(reported) == pytest.approx(0.5, abs=0.025)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: results(a="10", b="01").row("c"), "wanted the answers of 'c', found a, b"),
        (lambda: Results(("a", "a"), ("q",), np.zeros((2, 1), bool)), "got 'a' twice"),
        (lambda: Results(("a",), ("q", "q"), np.zeros((1, 2), bool)), "every question once"),
        (lambda: Results(("a",), ("q",), np.zeros((1, 1))), "got float64 of shape"),
        (lambda: Results((), (), np.zeros((0, 0), bool)), "at least one of each"),
        (lambda: synergies(BY_HAND, []), "at least one merge"),
        (lambda: synergies(BY_HAND, [Merge("m", ("a",))]), "two different parents of 'm', got a"),
        (lambda: halves(["x"] * 3, 0), "at least 4 questions"),
        (lambda: mean_difference(BY_HAND, []), "at least one pair"),
        (lambda: correlations({"x": [1, 2], "y": [2, 1]}), "at least 3 merges"),
        (lambda: correlations({}), "got none"),
        (lambda: group([], 2), "2 groups of 0 different"),
    ],
)
def test_what_cannot_be_judged_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


# ---------------------------------------------------------------- patterns


def test_correlations_equal_an_independent_computation():
    rng = np.random.default_rng(6)
    columns = {name: rng.normal(size=12) for name in "xyz"}
    columns["w"] = np.round(columns["x"])  # with ties
    found = correlations(columns)
    for (i, x), (j, y) in itertools.product(enumerate(columns.values()), repeat=2):
        assert found.pearson[i, j] == pytest.approx(pearsonr(x, y).statistic)
        assert found.spearman[i, j] == pytest.approx(spearmanr(x, y).statistic)
    # Where |r| begins to be significant, the p-value is 0.05.
    r, n = found.sure_above, 12
    t = r * np.sqrt((n - 2) / (1 - r * r))
    assert t == pytest.approx(2.228139, abs=1e-5)  # Student's table, 10 degrees of freedom


def test_a_constant_column_is_told_and_correlates_with_nothing():
    found = correlations({"x": [1, 2, 3, 5], "gap": [0.1] * 4, "y": [2, 1, 4, 3]})
    assert np.isnan(found.pearson[1]).all() and np.isnan(found.spearman[:, 1]).all()
    assert found.warnings == ("gap is the same for every merge, so nothing correlates with it",)
    assert found.document()["pearson"][1] == [None] * 3
    assert found.document()["pearson"][0][0] == pytest.approx(1.0)
    varying = found.varying()
    assert varying.columns == ("x", "y") and varying.warnings == found.warnings
    assert varying.pearson[0, 1] == found.pearson[0, 2]
    assert varying.spearman[0, 1] == found.spearman[0, 2]


def test_columns_that_say_the_same_are_told():
    x = np.array([0.1, 0.4, 0.2, 0.9, 0.3])
    found = correlations({"x": x, "minus": 1 - 2 * x, "other": [1, 3, 2, 2, 5]})
    assert found.warnings == ("x and minus say the same (r = -1.000); read only one of them",)


def test_columns_bound_by_a_sum_are_told_by_name():
    rng = np.random.default_rng(7)
    actual, expected, other = rng.normal(size=(3, 9))
    columns = {"actual": actual, "other": other, "expected": expected, "sum": actual - expected}
    (warning,) = correlations(columns).warnings
    assert warning.startswith("actual, expected, sum are bound by arithmetic")


def test_more_columns_than_merges_are_told():
    rng = np.random.default_rng(8)
    found = correlations(dict(zip("wxyz", rng.normal(size=(4, 4)), strict=True)))
    assert "4 merges for 4 columns" in found.warnings[-1]


def test_a_shared_parent_and_repeated_pairs_are_told():
    rng = np.random.default_rng(9)
    names = ("instruct", "a", "b", "m1", "m2", "m3")
    answers = Results(names, tuple(map(str, range(80))), rng.random((6, 80)) < 0.5)
    merges = [
        Merge("m1", ("instruct", "a"), 0.1, {"sft": 0}),
        Merge("m2", ("instruct", "b"), 0.2, {"sft": 1}),
        Merge("m3", ("b", "instruct"), 0.2, {"sft": 1, "orpo": 1}),
    ]
    found = merge_correlations(synergies(answers, merges))
    assert found.columns[-3:] == ("weight distance", "sft", "orpo")
    assert any(w.startswith("every merge has the parent instruct") for w in found.warnings)
    assert any(w.startswith("3 merges come from 2 pairs of parents") for w in found.warnings)
    some = [merges[0]._replace(distance=None), *merges[1:]]
    without = merge_correlations(synergies(answers, some))
    assert "weight distance" not in without.columns
    assert any("is known of 2 of 3 merges only, so it is left out" in w for w in without.warnings)


def test_z_scores_have_mean_0_and_deviation_1():
    scores = z_scores([0.3, 0.5, 0.9, 0.4])
    assert scores.mean() == pytest.approx(0)
    assert scores.std() == pytest.approx(1)
    assert z_scores([0.7] * 3).tolist() == [0, 0, 0]


def rows_at(expected, actual):
    """Merges of given expected and actual accuracies."""
    (row,) = synergies(BY_HAND, [MERGE])
    pairs = enumerate(zip(expected, actual, strict=True))
    return [
        row.model_copy(update={"name": f"m{i}", "expected": e, "actual": a}) for i, (e, a) in pairs
    ]


def test_known_groups_are_recovered():
    rng = np.random.default_rng(10)
    low = rng.normal(0.4, 0.01, size=(8, 2))
    high = rng.normal(0.7, 0.01, size=(6, 2))
    found = group(rows_at(*np.concatenate([low, high]).T))
    assert found.labels == (1,) * 8 + (0,) * 6  # the group of higher scores comes first
    assert found.silhouette > 0.9
    for label in (0, 1):
        own = found.points[np.array(found.labels) == label]
        assert found.centroids[label] == pytest.approx(own.mean(axis=0))
    assert found.tree[-1, 2] > 5 * found.tree[-2, 2]  # Ward's last join is the far one
    assert found.tree[-1, 3] == 14


def test_the_silhouette_is_as_worked_out_by_hand():
    """z-scores of two pairs at -1 and 1 in both directions: within 0, across sqrt(8)."""
    found = group(rows_at([0.4, 0.4, 0.6, 0.6], [0.5, 0.5, 0.7, 0.7]))
    assert found.silhouette == pytest.approx(1.0)
    lone = group(rows_at([0.4, 0.6, 0.6], [0.5, 0.7, 0.7]))
    assert lone.silhouette == pytest.approx(2 / 3)  # the lone one counts 0


def test_grouping_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(11)
    rows = rows_at(*rng.random((2, 15)))
    assert group(rows, 3, seed=4).labels == group(rows, 3, seed=4).labels


def test_the_density_integrates_to_one_and_needs_a_plane():
    rng = np.random.default_rng(12)
    points_ = rng.normal(size=(20, 2))
    axis = np.linspace(-8, 8, 161)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    heights = density(points_, grid)
    assert heights is not None
    assert heights.sum() * 0.1**2 == pytest.approx(1, abs=1e-3)
    assert density(np.array([[0, 0], [1, 1], [2, 2.0]]), grid) is None
