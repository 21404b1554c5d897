"""Motifs: every family draws what its parameters say."""

import numpy as np
import pytest
from numpy.typing import NDArray

from imagegen.canvas import Relief, canvas, cells, ridge
from imagegen.looks import parse_look
from imagegen.measure import main_direction, solid_fraction, spacing_px
from imagegen.motifs import FAMILIES, draw_motif, random_motif
from imagegen.scene import seed_picture
from orbweave.records import Motif, Structure

C = canvas(128)


def draw(family: str, **parameters: float) -> Relief:
    return draw_motif(C, Motif(family=family, **parameters), np.random.default_rng(3))


def test_there_are_at_least_the_thirteen_promised_families() -> None:
    assert len(FAMILIES) >= 13


@pytest.mark.parametrize("family", FAMILIES)
def test_a_relief_holds_finite_values_between_zero_and_one(family: str) -> None:
    relief = draw_motif(C, random_motif(family, np.random.default_rng(1)), np.random.default_rng(2))
    for part in relief:
        assert part.shape == (128, 128)
        assert np.isfinite(part).all()
        assert part.min() >= 0
        assert part.max() <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_more_thickness_means_more_material(family: str) -> None:
    thin, thick = FAMILIES[family].thickness
    spacing = float(np.mean(FAMILIES[family].spacing))
    cover = [draw(family, spacing=spacing, thickness=t).cover.mean() for t in (thin, thick)]
    assert cover[1] > cover[0] + 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_generator_state_draws_the_same_relief(family: str) -> None:
    motif = random_motif(family, np.random.default_rng(1))
    first, second = (draw_motif(C, motif, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first.height, second.height)


@pytest.mark.parametrize("spacing", [12.0, 24.0, 48.0])
def test_strands_repeat_at_the_spacing(spacing: float) -> None:
    motif = Motif(family="silk_bundle", spacing=spacing, thickness=0.6, irregularity=0)
    cover = draw_motif(canvas(256), motif, np.random.default_rng(0)).cover
    column = cover[:, 128] > 0.5
    rises = np.flatnonzero(np.diff(column.astype(int)) == 1)
    assert np.mean(np.diff(rises)) == pytest.approx(spacing, rel=0.15)


def test_trabecular_thickness_is_the_solid_fraction() -> None:
    cover = draw("trabecular_foam", spacing=20, thickness=0.4).cover
    assert cover.mean() == pytest.approx(0.4, abs=0.05)


def test_a_regular_lattice_has_hexagons_of_the_right_size() -> None:
    lattice = cells(C.x, C.y, 20.0, 0.0, np.random.default_rng(0))
    # The farthest point of a hexagon from its middle is its corner, spacing / sqrt(3).
    assert lattice.centre.max() == pytest.approx(20 / np.sqrt(3), rel=0.05)
    assert lattice.edge.max() == pytest.approx(10, rel=0.1)


def test_a_ridge_is_as_wide_as_asked_for() -> None:
    cover, _ = ridge(np.abs(C.y), 5.0, C.pixel)
    assert cover[:, 0].sum() * C.pixel == pytest.approx(10, abs=0.1)


def test_direction_turns_anticlockwise_from_horizontal() -> None:
    relief = draw("silk_bundle", spacing=16, thickness=0.5, direction_deg=90, irregularity=0.05)
    across, along = np.diff(relief.cover, axis=1), np.diff(relief.cover, axis=0)
    assert np.abs(across).sum() > 3 * np.abs(along).sum()


def luma_of(family: str, **parameters: float) -> NDArray[np.float64]:
    motif = Motif(family=family, irregularity=0.1, **parameters)
    picture = seed_picture(Structure(motifs=(motif,), look="white on black", seed=2), 256)
    luma: NDArray[np.float64] = picture / 255 @ np.array([0.2126, 0.7152, 0.0722])
    return luma


def test_no_two_families_share_a_name() -> None:
    names = [name for family in FAMILIES.values() for name in family.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_usual_looks_of_a_family_exist(family: str) -> None:
    assert [parse_look(look).name for look in FAMILIES[family].looks]


@pytest.mark.parametrize("family", ["gecko_setae", "shark_denticles"])
@pytest.mark.parametrize(("spacing", "direction"), [(24, 0), (30, 30), (36, 110)])
def test_tufts_and_scales_measure_as_asked(family: str, spacing: float, direction: float) -> None:
    luma = luma_of(family, spacing=spacing, thickness=0.75, direction_deg=direction)
    found = main_direction(luma).deg
    assert found is not None
    assert abs((found - direction + 90) % 180 - 90) < 8
    assert spacing_px(luma) == pytest.approx(spacing, rel=0.1)


@pytest.mark.parametrize("spacing", [18, 24, 30])
def test_stereom_measures_as_asked(spacing: float) -> None:
    luma = luma_of("sea_urchin_stereom", spacing=spacing, thickness=0.5, direction_deg=20)
    assert spacing_px(luma) == pytest.approx(spacing, rel=0.05)
    assert solid_fraction(luma) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("spacing", [7, 9, 11])
def test_lamellae_of_osteons_measure_as_asked(spacing: float) -> None:
    luma = luma_of("osteons", spacing=spacing, thickness=0.7)
    assert spacing_px(luma) == pytest.approx(spacing, rel=0.12)


@pytest.mark.parametrize("spacing", [20, 26])
def test_barbs_measure_as_asked(spacing: float) -> None:
    luma = luma_of("feather_barbs", spacing=spacing, thickness=0.6, direction_deg=60)
    assert spacing_px(luma) == pytest.approx(spacing, rel=0.1)


def test_every_second_window_of_the_glass_sponge_is_open() -> None:
    motif = Motif(family="glass_sponge_lattice", spacing=32, thickness=0.1, irregularity=0)
    cover = draw_motif(canvas(256), motif, np.random.default_rng(0)).cover
    # The struts cross where rows and columns are fullest; middles lie half a window on.
    row, column = (int(cover.sum(axis)[:32].argmax()) + 16 for axis in (1, 0))
    windows = [
        [cover[y - 6 : y + 7, x - 6 : x + 7].mean() for x in range(column, 250, 32)]
        for y in range(row, 250, 32)
    ]
    is_open = np.array(windows) == 0
    assert is_open.mean() == pytest.approx(0.5, abs=0.05)
    assert (is_open[:, 1:] != is_open[:, :-1]).all()
    assert (is_open[1:] != is_open[:-1]).all()
