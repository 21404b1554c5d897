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
