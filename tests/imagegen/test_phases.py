"""Solid and void: how much, how firm, how connected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imagegen.phases import connectivity, euler_number, phases_of


def mask(*rows: str) -> Any:
    return np.array([[c == "#" for c in row] for row in rows])


def test_the_band_is_narrow_for_sharp_edges_and_wide_for_soft_ones() -> None:
    x = np.linspace(0, 1, 200)[None].repeat(200, 0)
    sharp, soft = phases_of((x > 0.7) * 1.0), phases_of(x)
    assert sharp.band == (sharp.fraction, sharp.fraction)
    assert soft.band == pytest.approx((0.45, 0.55), abs=0.01)
    assert soft.threshold == pytest.approx(0.5, abs=0.01)


def test_the_band_holds_the_fraction_on_either_side() -> None:
    x = np.linspace(0, 1, 300)[None].repeat(30, 0) ** 2
    for side in ("bright", "dark"):
        phases = phases_of(x, side)  # type: ignore[arg-type]
        assert phases.band[0] < phases.fraction < phases.band[1]
        assert phases.side == side


def test_parts_that_touch_at_a_corner_are_one_solid_but_two_voids() -> None:
    corner = mask("#..", ".#.", "..#")
    assert connectivity(corner, corners=True).n_parts == 1
    assert connectivity(corner, corners=False).n_parts == 3
    assert connectivity(~corner, corners=False).n_parts == 2


def test_a_bar_percolates_along_itself_only() -> None:
    found = connectivity(mask("....", "####", "...."), corners=True)
    assert (found.percolates_across, found.percolates_down) == (True, False)


def test_two_halves_of_a_bar_do_not_percolate() -> None:
    found = connectivity(mask("##.#", "##.#"), corners=True)
    assert not found.percolates_across
    assert found.percolates_down
    assert found.largest_share == pytest.approx(4 / 6)


def test_an_empty_phase_has_no_parts() -> None:
    found = connectivity(mask("..", ".."), corners=True)
    assert (found.n_parts, found.largest_share) == (0, 0.0)


def test_the_euler_number_is_parts_minus_holes() -> None:
    rings = mask("###..###", "#.#..#.#", "###..###", "........", "#.......")
    assert euler_number(rings) == 3 - 2


def _bars(width_px: float, period_px: int, noise: float = 0.0) -> Any:
    """Bars along the grid; the pixel that an edge runs through is as bright as it is covered."""
    y = np.arange(256)[:, None] % period_px
    covered = np.clip(width_px - y, 0, 1) * np.ones(256)
    return np.clip(covered + noise * np.random.default_rng(0).normal(size=(256, 256)), 0, 1)


@pytest.mark.parametrize("width_px", [1.6, 2.5, 5.6, 6.3])
@pytest.mark.parametrize("side", ["bright", "dark"])
def test_of_two_tones_an_edge_counts_as_far_as_it_covers_a_pixel(
    width_px: float, side: Any
) -> None:
    phases = phases_of(_bars(width_px, 8), side)
    share = width_px / 8 if side == "bright" else 1 - width_px / 8
    assert phases.fraction == pytest.approx(share, abs=0.002)
    assert abs(phases.solid.mean() - share) > 0.035
    assert phases.band[0] <= phases.fraction <= phases.band[1]


def test_of_many_tones_pixels_are_counted_whole() -> None:
    phases = phases_of(_bars(5.6, 8, noise=0.1), "bright")
    assert phases.fraction == phases.solid.mean()
