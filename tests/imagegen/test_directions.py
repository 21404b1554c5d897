"""Line directions and order of patterns made for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imagegen.directions import dominant_directions, order

Y, X = np.mgrid[:240, :240]


def lines(deg: float, period: float = 16) -> Any:
    a = np.deg2rad(deg)
    return ((-X * np.sin(a) - Y * np.cos(a)) / period % 1 < 0.25) * 1.0


def off(found: float, wanted: float) -> float:
    return abs((found - wanted + 90) % 180 - 90)


@pytest.mark.parametrize("first", [0, 20, 75])
def test_one_two_and_three_sets_of_lines_have_as_many_directions(first: int) -> None:
    for wanted in ([first], [first, first + 90], [first, first + 60, first + 120]):
        found = dominant_directions(np.max([lines(deg) for deg in wanted], axis=0))
        assert len(found) == len(wanted)
        assert max(min(off(f, w) for f in found) for w in wanted) < 3


def test_the_stronger_of_two_directions_comes_first() -> None:
    found = dominant_directions(np.maximum(lines(30, 10), lines(120, 40)))
    assert off(found[0], 30) < 3


def test_rings_noise_and_flat_pictures_have_no_direction() -> None:
    r = np.hypot(X - 120, Y - 120)
    rings = np.where(r < 110, 0.5 + 0.5 * np.sin(r / 3), 0.5)  # all ways alike, no corners
    noise = np.random.default_rng(0).uniform(size=(240, 240))
    for luma in (rings, noise, noise * 0, noise[:9]):
        assert dominant_directions(luma) == ()


def test_rays_rings_and_parallels_are_told_apart() -> None:
    phi, r = np.arctan2(Y - 90, X - 140), np.hypot(Y - 90, X - 140)
    rays, rings = order(0.5 + 0.5 * np.sin(24 * phi)), order(0.5 + 0.5 * np.sin(r / 3))
    assert rays.radial > 0.95 and rays.polar > 0.9
    assert rings.radial < -0.95 and rings.polar > 0.9
    assert rays.centre == pytest.approx((140.5, 90.5), abs=2)
    assert rings.centre == pytest.approx((140.5, 90.5), abs=2)
    straight = order(lines(30))
    assert straight.parallel > 0.98
    assert abs(straight.radial) < 0.1 and abs(straight.polar) < 0.1


def test_a_web_of_rays_and_rings_has_polar_but_no_radial_order() -> None:
    phi, r = np.arctan2(Y - 119.5, X - 119.5), np.hypot(Y - 119.5, X - 119.5)
    from_ray = r * np.abs(np.sin(10 * phi)) / 10
    web = order(((from_ray < 1.5) | (r % 18 < 3)) * 1.0)
    assert web.polar > 0.6
    assert abs(web.radial) < 0.5
