"""Figures: what is drawn is what was handed in, and every one can be written."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from merging.synergy import Merge, Results, synergies
from merging.synergy_pattern_views import (
    cluster_map,
    correlation_map,
    dendrogram_view,
    density_map,
)
from merging.synergy_patterns import correlations, group, merge_correlations
from merging.synergy_views import (
    Point,
    accuracy_over_t,
    expected_against_actual,
    save,
    sorted_deviations,
)
from orbweave.errors import OutputError, UsageError

N = 200
SHARES = {"slerp-a": 0.62, "slerp-b": 0.48, "slerp-c": 0.2, "slerp-d": 0.55, "slerp-e": 0.51}


@pytest.fixture(scope="module")
def rows():
    """Five merges, each of a parent of its own and a shared one: a clear gain, a clear loss."""
    rng = np.random.default_rng(0)
    names, right, merges = ["instruct"], [rng.random(N) < 0.45], []
    for i, (name, share) in enumerate(SHARES.items()):
        parent = f"cpt-{name[-1]}"
        names += [parent, name]
        right += [rng.random(N) < 0.36 + 0.03 * i, rng.random(N) < share]
        merges.append(Merge(name, ("instruct", parent), 0.1 + 0.02 * i**2, {"sft": float(i % 2)}))
    return synergies(Results(tuple(names), tuple(map(str, range(N))), np.array(right)), merges)


def drawn(axes, label):
    """Return the points of the error bars of that label, shape (n, 2)."""
    (bars,) = [c for c in axes.containers if c.get_label() == label]
    return bars.lines[0].get_xydata()


def texts(figure):
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [*legends, *(text.get_text() for axes in figure.axes for text in axes.texts)]


def test_the_scatter_has_expected_and_actual_of_every_merge_and_the_diagonal(rows):
    figure = expected_against_actual(rows)
    (axes,) = figure.axes
    shown = np.concatenate([bars.lines[0].get_xydata() for bars in axes.containers])
    wanted = [(100 * row.expected, 100 * row.actual) for row in rows]
    assert sorted(map(tuple, shown.round(9))) == sorted(
        (round(x, 9), round(y, 9)) for x, y in wanted
    )
    (diagonal,) = [line for line in axes.lines if line.get_label() == "mean of the parents"]
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all()
    assert "% right" in axes.get_xlabel() and "% right" in axes.get_ylabel()


def test_a_few_merges_are_numbered_and_many_are_named_in_the_sorted_figure_alone(rows):
    many = [row.model_copy(update={"name": f"{row.name} {i}"}) for row in rows for i in range(6)]
    assert "slerp-a" in "".join(texts(expected_against_actual(rows)))
    assert not any("slerp" in text for text in texts(expected_against_actual(many)))
    (axes,) = sorted_deviations(many).axes
    assert len(axes.get_yticklabels()) == 30


def test_deviations_are_sorted_and_signed(rows):
    figure = sorted_deviations(rows)
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [row.name for row in sorted(rows, key=lambda row: row.improvement)]
    gain = drawn(axes, "gain over the better parent")
    assert [names[int(y)] for y in gain[:, 1]] == ["slerp-a"]
    assert (gain[:, 0] > 0).all()
    loss = drawn(axes, "worse than the better parent")
    assert [names[int(y)] for y in loss[:, 1]] == ["slerp-c"]
    assert (loss[:, 0] < 0).all()
    assert "points" in axes.get_xlabel()


def test_the_curve_shows_both_ways_the_parents_and_the_profiles():
    places = [0.0, 0.5, 1.0, "paper"]
    points = [
        Point(way, place, 0.5 + 0.1 * i, 0.4, 0.8)
        for way in ("slerp", "lerp")
        for i, place in enumerate(places)
    ]
    figure = accuracy_over_t(points, {"base": 0.5, "silk": 0.55}, n=120, chosen=points[1])
    curve, beside = figure.axes
    line = drawn(curve, "SLERP")
    assert line[:, 0] == pytest.approx([0, 0.5, 1], abs=0.01)
    assert line[:, 1] == pytest.approx([50, 60, 70])
    assert [label.get_text() for label in beside.get_xticklabels()] == ["paper"]
    assert len(beside.containers) == 2
    assert {"SLERP", "LERP", "base, 50.0 %", "silk, 55.0 %", "chosen"} == set(texts(figure))
    (alone,) = accuracy_over_t(points[:3], {"a": 0.5, "b": 0.5}, n=9).axes
    assert alone.get_xlabel() == "t, the share of b (0 to 1)"


def test_the_heat_map_writes_every_correlation_and_marks_what_is_undefined(rows):
    found = merge_correlations(rows)
    figure = correlation_map(found)
    pearson, spearman, _ = figure.axes
    k = len(found.columns)
    numbers = [text.get_text() for text in pearson.texts]
    assert numbers == [f"{r:+.2f}" for r in found.pearson.ravel()]
    assert len(spearman.texts) == k * k
    constant = correlations({"x": [1, 2, 4], "gap": [1, 1, 1]})
    marks = [text.get_text() for text in correlation_map(constant).axes[0].texts]
    assert marks == ["+1.00", "–", "–", "–"]


def test_groups_are_drawn_with_all_their_merges(rows):
    found = group(rows, 2)
    figure = cluster_map(found)
    (axes,) = figure.axes
    clouds = {c.get_label(): c.get_offsets() for c in axes.collections}
    assert len(clouds["group 1"]) + len(clouds["group 2"]) == len(rows)
    assert np.asarray(clouds["centroids"]) == pytest.approx(found.centroids)
    assert any("slerp-a" in text for text in texts(figure))


def test_the_density_is_left_out_where_there_is_none(rows):
    assert len(density_map(group(rows, 2)).axes) == 2  # with its colour bar
    flat = [
        row.model_copy(update={"expected": x, "actual": x})
        for row, x in zip(rows, (0.1, 0.2, 0.4, 0.5, 0.7), strict=True)
    ]
    (axes,) = density_map(group(flat, 2)).axes
    assert axes.get_title(loc="left") == "No density: the merges lie on one line"


def test_the_tree_has_every_merge_as_a_leaf(rows):
    found = group(rows, 2)
    (axes,) = dendrogram_view(found).axes
    leaves = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(leaves) == sorted(SHARES)
    assert max(line.get_xdata().max() for line in axes.lines) == pytest.approx(found.tree[-1, 2])


def test_a_chart_is_written_by_its_suffix_and_twice_the_same(rows, tmp_path):
    for suffix in (".png", ".svg", ".pdf"):
        for name in ("one", "two"):  # a figure that was drawn once is laid out anew
            save(sorted_deviations(rows), tmp_path / f"{name}{suffix}")
        one, two = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two
    with Image.open(tmp_path / "one.png") as image:
        assert image.width > 800


def test_only_known_formats_and_no_file_twice(rows, tmp_path):
    figure = sorted_deviations(rows)
    with pytest.raises(UsageError, match=r"ending in .png, .svg, .pdf, got 'x.jpg'"):
        save(figure, tmp_path / "x.jpg")
    save(figure, tmp_path / "x.png")
    with pytest.raises(OutputError, match="exists already"):
        save(figure, tmp_path / "x.png", force=False)
