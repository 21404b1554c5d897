"""Periods, repeats and symmetry of lattices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imagegen.spacings import rays_of, repeat_of, spectrum_of, symmetry


def dots(a: float, deg: float, rows: float, n: int = 256) -> Any:
    """Discs of 30 % of the area on a lattice of distance a; rows sqrt(3)/2 apart: hexagonal."""
    y, x = np.mgrid[:n, :n]
    t = np.deg2rad(deg)
    u, v = x * np.cos(t) - y * np.sin(t), -y * np.cos(t) - x * np.sin(t)
    near = np.full(x.shape, 9e9)
    for step in (0, 1):
        row = np.floor(v / (rows * a)) + step
        shift = (row % 2) * a / 2 if rows < 1 else 0
        du = (u - shift) - np.round((u - shift) / a) * a
        near = np.minimum(near, np.hypot(du, v - row * rows * a))
    return np.clip(a * np.sqrt(0.3 * rows / np.pi) - near + 0.5, 0, 1)


HEXAGONAL, SQUARE = 3**0.5 / 2, 1.0


@pytest.mark.parametrize("a", [14.0, 22.0, 33.0])
@pytest.mark.parametrize("deg", [0, 13, 40])
def test_hexagonal_dots_repeat_at_their_distance_and_their_rows_are_nearer(
    a: float, deg: int
) -> None:
    luma = dots(a, deg, HEXAGONAL)
    rays, spectrum = rays_of(luma), spectrum_of(luma)
    assert rays is not None and spectrum is not None
    repeat = repeat_of(rays)
    assert repeat.px == pytest.approx(a, rel=0.02)
    assert repeat.deg is not None and abs((repeat.deg - deg + 30) % 60 - 30) < 3
    assert repeat.periodicity > 0.9
    assert spectrum.periods()[0] == pytest.approx(a * HEXAGONAL, rel=0.03)


def test_square_dots_repeat_along_both_sides() -> None:
    rays = rays_of(dots(20, 25, SQUARE))
    assert rays is not None
    repeat = repeat_of(rays)
    assert repeat.px == pytest.approx(20, rel=0.02)
    assert repeat.deg is not None and abs((repeat.deg - 25 + 45) % 90 - 45) < 3


@pytest.mark.parametrize("duty", [0.2, 0.5, 0.7])
def test_the_period_of_narrow_stripes_is_their_distance_and_no_harmonic(duty: float) -> None:
    fine = (np.arange(1024) + 0.5) / 4  # drawn four times finer and averaged
    x, y = np.meshgrid(fine, fine)
    stripes = (x + y) / np.sqrt(2) / 8 % 1 < duty
    spectrum = spectrum_of(stripes.reshape(256, 4, 256, 4).mean((1, 3)))
    assert spectrum is not None
    assert spectrum.periods()[0] == pytest.approx(8, rel=0.02)


def test_stripes_repeat_across_themselves() -> None:
    y, x = np.mgrid[:256, :256]
    a = np.deg2rad(35)
    rays = rays_of(0.5 + 0.5 * np.sin(2 * np.pi * (x * np.sin(a) + y * np.cos(a)) / 18))
    assert rays is not None
    repeat = repeat_of(rays)
    assert repeat.px == pytest.approx(18, rel=0.02)
    assert repeat.deg == pytest.approx(125, abs=4)


def test_noise_white_or_blurred_does_not_repeat() -> None:
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(2)
    for sigma in (0, 1, 2, 3):
        luma = gaussian_filter(rng.normal(size=(256, 256)), sigma)
        rays = rays_of(luma)
        assert rays is not None and repeat_of(rays).px is None


def test_periods_can_be_asked_for_in_one_direction() -> None:
    y, x = np.mgrid[:256, :256]
    cross = 0.5 + 0.25 * np.sin(2 * np.pi * x / 12) + 0.25 * np.sin(2 * np.pi * y / 29)
    spectrum = spectrum_of(cross)
    assert spectrum is not None
    assert spectrum.periods(across_deg=0) == pytest.approx((12,), rel=0.02)
    assert spectrum.periods(across_deg=90) == pytest.approx((29,), rel=0.02)
    assert sorted(spectrum.periods()) == pytest.approx([12, 29], rel=0.02)


def test_lattices_have_the_symmetry_of_their_kind() -> None:
    hexagonal, square = dots(20, 13, HEXAGONAL), dots(20, 13, SQUARE)
    six, four = symmetry(hexagonal, rays_of(hexagonal)), symmetry(square, rays_of(square))
    assert six.lattice_sixth_turn > 0.9 and six.lattice_quarter_turn < 0.5
    assert four.lattice_quarter_turn > 0.9 and four.lattice_sixth_turn < 0.5
    assert six.half_turn > 0.9


def test_a_mirrored_picture_is_its_own_mirror_wherever_the_axis_lies() -> None:
    half = np.random.default_rng(0).uniform(size=(128, 64))
    luma = np.roll(np.concatenate([half, half[:, ::-1]], 1), 17, axis=1)
    found = symmetry(luma, rays_of(luma))
    assert found.mirror_left_right == pytest.approx(1)
    assert found.mirror_up_down < 0.2 and found.half_turn < 0.2


def test_small_and_flat_pictures_have_neither_spectrum_nor_repeat() -> None:
    for luma in (np.zeros((64, 64)), np.random.default_rng(0).uniform(size=(9, 200))):
        assert spectrum_of(luma) is None and rays_of(luma) is None
        assert symmetry(luma, None).half_turn == 0
