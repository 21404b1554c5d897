"""Skeletons of drawings whose graph is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imagegen.skeleton import lines_of, skeleton

Y, X = np.mgrid[:200, :200]


def bar(ax: float, ay: float, bx: float, by: float, width: float = 7) -> Any:
    """A round-ended bar between two points."""
    length2 = (bx - ax) ** 2 + (by - ay) ** 2
    t = np.clip(((X - ax) * (bx - ax) + (Y - ay) * (by - ay)) / length2, 0, 1)
    return np.hypot(X - ax - t * (bx - ax), Y - ay - t * (by - ay)) < width / 2


def test_a_bar_is_one_segment_with_two_ends() -> None:
    found = skeleton(lines_of(bar(40, 100, 160, 100)))
    assert (found.branch_points, found.end_points, found.segments) == (0, 2, 1)


def test_a_fork_has_one_branch_point_and_three_arms() -> None:
    fork = bar(100, 100, 100, 20) | bar(100, 100, 30, 150) | bar(100, 100, 170, 150)
    found = skeleton(lines_of(fork))
    assert (found.branch_points, found.end_points, found.segments) == (1, 3, 3)
    assert found.total_px == pytest.approx(80 + 2 * np.hypot(70, 50), rel=0.06)


@pytest.mark.parametrize("deg", [0, 10, 22.5, 35, 45, 60, 80])
def test_a_line_through_the_picture_is_as_long_as_drawn(deg: float) -> None:
    dx, dy = 60 * np.cos(np.deg2rad(deg)), 60 * np.sin(np.deg2rad(deg))
    found = skeleton(lines_of(bar(100 - dx, 100 - dy, 100 + dx, 100 + dy, 3)))
    assert found.total_px == pytest.approx(120, rel=0.07)


def test_a_grid_has_a_branch_point_at_each_crossing_and_no_ends_at_the_border() -> None:
    grid = (X % 40 < 5) & (X > 20) | (Y % 40 < 5) & (Y > 20)
    found = skeleton(lines_of(grid))
    # Four lines each way, at 40, 80, 120 and 160.
    assert (found.branch_points, found.end_points) == (16, 0)
    assert found.segments == 2 * 4 * 5
    assert found.median_segment_px == pytest.approx(40 * 0.948, rel=0.05)


def test_a_rough_edge_grows_no_spurs() -> None:
    rng = np.random.default_rng(0)
    top, bottom = (100 + side * (8 + rng.integers(0, 3, 200)) for side in (-1, 1))
    found = skeleton(lines_of((top < Y) & (bottom > Y)))
    assert (found.branch_points, found.segments) == (0, 1)


def test_nothing_and_everything_have_no_skeleton() -> None:
    for solid in (np.zeros((30, 30), bool), np.ones((30, 30), bool)):
        found = skeleton(lines_of(solid))
        assert (found.segments, found.mean_segment_px) == (0, None)
