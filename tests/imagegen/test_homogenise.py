"""Effective constants against what is known exactly, and against bounds nothing may break."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from imagegen.homogenise import ASSUMPTIONS, Homogenised, homogenise
from orbweave.errors import UsageError

NU = 0.3


def holes(fraction: float, n: int = 64) -> Any:
    """A square cell with one round hole in its middle."""
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    return np.hypot(x, y) >= n * np.sqrt(fraction / np.pi)


@cache
def hexagonal(fraction: float, width: int = 60) -> tuple[Homogenised, float]:
    """Round holes on a hexagonal lattice, and the share of solid; isotropic by symmetry."""
    height = round(width * 3**0.5)
    y, x = np.mgrid[:height, :width] + 0.5
    radius = np.sqrt(fraction * height * width / 2 / np.pi)
    solid = np.ones((height, width), bool)
    for cx in (0, width / 2, width):
        for cy in (height / 2,) if cx == width / 2 else (0, height):
            solid &= np.hypot(x - cx, y - cy) >= radius
    return homogenise(solid, poisson=NU, check=False), float(solid.mean())


def test_a_full_solid_is_itself() -> None:
    found = homogenise(np.ones((16, 24), bool), young=7.0, poisson=NU)
    assert found.moduli.ex == pytest.approx(7)
    assert found.moduli.ey == pytest.approx(7)
    assert found.moduli.gxy == pytest.approx(7 / (2 * (1 + NU)))
    assert found.moduli.nu_xy == pytest.approx(NU)
    assert np.array(found.diffusivity_solid) == pytest.approx(np.eye(2))
    assert np.abs(found.diffusivity_void).max() < 1e-5
    assert found.seam == 0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_laminate_has_the_exact_constants_of_its_layers(share: float, turned: bool) -> None:
    layers = np.zeros((16, 12), bool)
    layers[: round(16 * share)] = True
    ratio = 0.1
    found = homogenise(layers.T if turned else layers, poisson=NU, void_ratio=ratio, check=False)
    along, across = (found.moduli.ey, found.moduli.ex) if turned else found.moduli[:2]
    d = np.diag(found.diffusivity_solid)
    voigt = share + (1 - share) * ratio
    reuss = 1 / (share + (1 - share) / ratio)
    assert tuple(d[::-1] if turned else d) == pytest.approx((voigt, reuss))
    # Equal Poisson's ratios: along the layers Voigt; shear Reuss; and across, from the layers'
    # common strain along: 1/c_yy = <1/q>, q = E / (1 - nu^2), with c_xy / c_yy = nu.
    assert along == pytest.approx(voigt)
    assert found.moduli.gxy == pytest.approx(reuss / (2 * (1 + NU)))
    cyy = reuss / (1 - NU**2)
    cxx = voigt + NU**2 * cyy  # <q> - nu^2 <q> + nu^2 / <1/q>
    assert across == pytest.approx(cyy - (NU * cyy) ** 2 / cxx)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3])
def test_diffusion_round_square_holes_agrees_with_rayleigh(fraction: float) -> None:
    solid = holes(fraction)
    f = 1 - solid.mean()
    # Rayleigh (1892), insulating cylinders on a square lattice.
    wanted = 1 - 2 * f / (1 + f - 0.305827 * f**4)
    found = homogenise(solid, check=False)
    assert np.diag(found.diffusivity_solid) == pytest.approx([wanted] * 2, rel=0.02)


def test_a_dilute_hole_softens_by_three_times_its_share() -> None:
    solid = holes(0.02)
    f = 1 - solid.mean()
    found = homogenise(solid, poisson=NU, check=False)
    assert found.moduli.ex == pytest.approx(1 / (1 + 3 * f), rel=0.02)


@pytest.mark.parametrize("fraction", [0.1, 0.2])
def test_hexagonal_holes_lie_at_the_hashin_shtrikman_bound(fraction: float) -> None:
    found, share = hexagonal(fraction)
    f = 1 - share
    # Upper bound of a sheet with holes, E (1 - f) / (1 + 2 f); Maxwell for diffusion.
    assert found.moduli.ex == pytest.approx((1 - f) / (1 + 2 * f), rel=0.02)
    assert found.moduli.ex <= (1 - f) / (1 + 2 * f)
    assert np.diag(found.diffusivity_solid) == pytest.approx([(1 - f) / (1 + f)] * 2, rel=0.02)


def test_hexagonal_holes_leave_the_sheet_isotropic() -> None:
    m = hexagonal(0.2)[0].moduli
    assert m.ex == pytest.approx(m.ey, rel=0.01)
    assert m.gxy == pytest.approx(m.ex / (2 * (1 + m.nu_xy)), rel=0.01)


def test_turning_the_picture_turns_the_constants() -> None:
    solid = np.random.default_rng(1).uniform(size=(20, 28)) < 0.8
    a, b = (homogenise(s, check=False).moduli for s in (solid, np.rot90(solid)))
    assert (a.ex, a.ey, a.gxy) == pytest.approx((b.ey, b.ex, b.gxy))


def test_a_slanted_laminate_couples_as_its_slant() -> None:
    y, x = np.mgrid[:32, :32]
    rising = (x + y) % 16 < 8  # bands that rise to the right
    found = homogenise(rising, void_ratio=0.01, check=False)
    assert found.diffusivity_solid[0][1] > 0.1
    assert found.stiffness[0][2] > 0.01
    fallen = homogenise(rising[::-1], void_ratio=0.01, check=False)
    assert fallen.diffusivity_solid[0][1] == pytest.approx(-found.diffusivity_solid[0][1])


def test_the_void_carries_what_the_solid_does_not() -> None:
    layers = np.zeros((16, 16), bool)
    layers[:4] = True
    found = homogenise(layers, check=False)
    assert found.diffusivity_void[0][0] == pytest.approx(0.75, abs=1e-4)
    assert found.diffusivity_void[1][1] < 1e-4


def test_a_result_tells_its_assumptions_seam_and_convergence() -> None:
    found = homogenise(holes(0.3, 48))
    assert found.assumptions == ASSUMPTIONS
    assert "a model of the picture" in ASSUMPTIONS[0]
    assert 0 < found.change_from_half < 0.05
    assert found.seconds > 0
    half = np.zeros((16, 16), bool)
    half[:, :8] = True
    assert homogenise(half, check=False).seam == pytest.approx(0.5)


def test_numbers_out_of_range_are_refused_in_words() -> None:
    solid = np.ones((16, 16), bool)
    for wrong in ({"young": 0.0}, {"young": np.inf}, {"poisson": 0.6}, {"void_ratio": 0.0}):
        with pytest.raises(UsageError, match="wanted young > 0"):
            homogenise(solid, **wrong)
    with pytest.raises(UsageError, match="8 to 512 pixels"):
        homogenise(np.ones((4, 16), bool))
