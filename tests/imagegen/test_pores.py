"""Local thickness of bars and discs."""

import numpy as np
import pytest

from imagegen.pores import local_thickness, sizes

Y, X = np.mgrid[:160, :160]


@pytest.mark.parametrize("width", [3, 4, 7, 12, 25])
def test_a_bar_is_as_thick_as_it_is_wide(width: int) -> None:
    bar = (X >= 60) & (X < 60 + width)
    found = sizes(local_thickness(bar))
    assert found is not None
    assert found.median_px == pytest.approx(width, abs=0.6)


@pytest.mark.parametrize("diameter", [12, 30, 61])
def test_a_disc_is_as_wide_as_its_diameter(diameter: int) -> None:
    disc = np.hypot(X - 80, Y - 80) < diameter / 2
    found = sizes(local_thickness(disc))
    assert found is not None
    assert found.median_px == pytest.approx(diameter, rel=0.05)


def test_two_widths_are_told_apart_by_their_shares() -> None:
    bars = ((X >= 20) & (X < 25)) | ((X >= 60) & (X < 100))
    found = sizes(local_thickness(bars))
    assert found is not None
    assert (found.p10_px, found.p90_px) == pytest.approx((5, 40), abs=0.6)
    assert found.mean_px == pytest.approx((5 * 5 + 40 * 40) / 45, abs=1)


def test_nothing_has_no_size_and_everything_the_size_of_the_picture() -> None:
    assert sizes(local_thickness(np.zeros((9, 9), bool))) is None
    assert local_thickness(np.ones((9, 20), bool)).max() == 9
