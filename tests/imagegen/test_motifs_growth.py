"""Growing patterns and shaped surfaces are what their names say, by counting and measuring."""

import re

import numpy as np
import pytest
from scipy.ndimage import center_of_mass, distance_transform_edt, label
from scipy.spatial import cKDTree

from imagegen.canvas import Relief, canvas
from imagegen.looks import parse_look
from imagegen.measure import main_direction, spacing_px
from imagegen.motifs import FAMILIES
from imagegen.motifs.growth import GROWTH
from imagegen.motifs.surfaces import SURFACES
from orbweave.records import Motif

NEW = GROWTH | SURFACES


def draw(family: str, seed: int = 1, size: int = 256, /, **parameters: float) -> Relief:
    motif = Motif(family=family, **parameters)
    return NEW[family].draw(canvas(size), motif, np.random.default_rng(seed))


def solid(family: str, seed: int = 1, **parameters: float) -> np.ndarray:
    return draw(family, seed, **parameters).cover > 0.5


def words(name: str) -> set[str]:
    return {w[:-1] if w.endswith("s") and len(w) > 3 else w for w in re.findall("[a-z]+", name)}


@pytest.mark.parametrize("family", NEW)
def test_a_family_has_names_descriptions_and_looks(family: str) -> None:
    f = NEW[family]
    assert (len(f.names), len(f.plain), len(f.looks)) == (4, 3, 3)
    assert all(parse_look(look).name == look for look in f.looks)


@pytest.mark.parametrize("family", NEW)
def test_no_name_contains_the_name_of_another_family(family: str) -> None:
    mine = [words(n.lower()) for n in NEW[family].names]
    for other, f in (FAMILIES | NEW).items():
        theirs = [words(n.lower()) for n in f.names]
        assert other == family or not any(a <= b or b <= a for a in mine for b in theirs)


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize(("size", "extent"), [(128, 128.0), (64, 256.0), (96, 256.0)])
def test_small_fields_and_few_pixels_are_drawn_too(family: str, size: int, extent: float) -> None:
    f = NEW[family]
    for spacing in (0.75 * f.spacing[0], f.spacing[1]):
        motif = Motif(family=family, spacing=spacing, thickness=f.thickness[0], direction_deg=70)
        relief = f.draw(canvas(size, extent), motif, np.random.default_rng(2))
        for part in relief:
            assert part.shape == (size, size)
            assert np.isfinite(part).all()
        assert 0.1 < relief.cover.mean() < 0.95


@pytest.mark.parametrize("family", NEW)
def test_a_larger_picture_shows_the_same_structure(family: str) -> None:
    small, large = (draw(family, 3, size, spacing=24, thickness=0.4).cover for size in (128, 256))
    shrunk = large.reshape(128, 2, 128, 2).mean((1, 3))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("thickness", [0.25, 0.4, 0.55])
@pytest.mark.parametrize("spacing", [14.0, 28.0])
def test_pigment_covers_its_share_and_repeats_at_the_spacing(
    thickness: float, spacing: float
) -> None:
    cover = draw("turing_pattern", spacing=spacing, thickness=thickness).cover
    assert cover.mean() == pytest.approx(thickness, abs=0.03)
    assert spacing_px(cover.astype(np.float64)) == pytest.approx(spacing, rel=0.07)


def test_little_pigment_makes_round_spots_and_much_of_it_long_stripes() -> None:
    few = label(solid("turing_pattern", spacing=18, thickness=0.24, irregularity=0.1))
    many = label(solid("turing_pattern", spacing=18, thickness=0.5, irregularity=0.1))
    # A triangular lattice with rows 18 px apart has 256^2 / (1.15 * 18^2) = 175 places.
    assert few[1] > 120
    assert many[1] < 0.35 * few[1]


@pytest.mark.parametrize("irregularity", [0.1, 0.7])
def test_a_foam_has_one_closed_bubble_for_each_cell(irregularity: float) -> None:
    spacing = 32.0
    film = draw("voronoi_foam", spacing=spacing, thickness=0.06, irregularity=irregularity)
    bubbles = label(film.height < 0.05)[0]
    sizes = np.bincount(bubbles.ravel())[1:]
    expected = 256**2 / (0.87 * spacing**2)
    assert (sizes > 20).sum() == pytest.approx(expected, rel=0.3)
    assert sizes.max() < 5 * spacing**2


def test_films_of_a_foam_thicken_where_they_meet() -> None:
    cover = draw("voronoi_foam", spacing=40, thickness=0.08, irregularity=0.3).height > 0.05
    inside = distance_transform_edt(cover)
    middle = inside[(inside >= 1.5)]
    assert inside.max() > 1.8 * np.median(middle)


def test_a_coral_is_one_piece_with_branches_a_spacing_apart() -> None:
    for spacing in (24.0, 40.0):
        apart = []
        for seed in range(4):
            cover = solid("branching_coral", seed, spacing=spacing, thickness=0.4)
            sizes = np.bincount(label(cover)[0].ravel())[1:]
            assert sizes.max() > 0.85 * sizes.sum()
            # Length of lines per area is pi / 2 times their crossings per test line.
            crossings = [(np.diff(c.astype(int), axis=0) == 1).sum() for c in (cover, cover.T)]
            apart.append(256**2 / (np.pi / 2 * np.mean(crossings)))
        assert np.mean(apart) == pytest.approx(spacing, rel=0.25)


@pytest.mark.parametrize("direction", [20.0, 90.0, 150.0])
def test_a_coral_grows_along_its_direction(direction: float) -> None:
    turns = []
    for seed in range(6):
        cover = draw("branching_coral", seed, spacing=26, thickness=0.45, direction_deg=direction)
        found = main_direction(cover.cover.astype(np.float64)).deg
        assert found is not None
        turns.append(np.exp(2j * np.deg2rad(found - direction)))
    assert abs(np.rad2deg(np.angle(np.mean(turns)) / 2)) < 8


def test_florets_follow_each_other_by_the_golden_angle() -> None:
    relief = draw("phyllotaxis", 5, 512, spacing=20, thickness=0.7, irregularity=0)
    pieces, n = label(relief.cover > 0.5)
    rows, cols = np.array(center_of_mass(pieces > 0, pieces, np.arange(1, n + 1))).T
    cx, cy = np.random.default_rng(5).uniform(-0.12, 0.12, 2) * 256
    x, y = (cols + 0.5) / 2 - 128 - cx, 128 - (rows + 0.5) / 2 - cy
    order = np.argsort(np.hypot(x, y))[:25]
    steps = np.diff(np.rad2deg(np.arctan2(y, x))[order]) % 360
    assert np.median(np.minimum(steps, 360 - steps)) == pytest.approx(137.5, abs=2)


@pytest.mark.parametrize("spacing", [13.0, 22.0])
def test_neighbouring_florets_lie_a_spacing_apart(spacing: float) -> None:
    pieces, n = label(solid("phyllotaxis", spacing=spacing, thickness=0.68, irregularity=0.2))
    at = np.array(center_of_mass(pieces > 0, pieces, np.arange(1, n + 1)))
    nearest = np.asarray(cKDTree(at).query(at, k=2)[0])[:, 1]
    assert np.median(nearest) == pytest.approx(spacing, rel=0.15)


def test_florets_are_larger_outwards() -> None:
    pieces, n = label(solid("phyllotaxis", 5, spacing=16, thickness=0.75, irregularity=0))
    at = np.array(center_of_mass(pieces > 0, pieces, np.arange(1, n + 1)))
    area = np.bincount(pieces.ravel())[1:]
    cx, cy = np.random.default_rng(5).uniform(-0.12, 0.12, 2) * 256
    r = np.hypot(at[:, 1] - 128 - cx, 128 - at[:, 0] - cy)
    assert area[(r > 70) & (r < 100)].mean() > 1.15 * area[r < 35].mean()


@pytest.mark.parametrize("spacing", [16.0, 28.0])
def test_slanting_rows_of_a_cone_lie_a_spacing_apart(spacing: float) -> None:
    relief = draw("pine_cone_scales", spacing=spacing, thickness=0.85, irregularity=0.1)
    assert spacing_px(relief.cover.astype(np.float64)) == pytest.approx(spacing, rel=0.12)


def test_a_cone_stands_along_its_direction_against_the_ground() -> None:
    upright = draw("pine_cone_scales", spacing=20, thickness=0.9, direction_deg=90).cover
    assert upright[:, [0, -1]].max() == 0
    assert upright[[0, -1], 100:156].mean() > 0.5
    lying = draw("pine_cone_scales", spacing=20, thickness=0.9, direction_deg=0).cover
    assert np.corrcoef(upright.ravel() > 0.5, np.rot90(lying).ravel() > 0.5)[0, 1] > 0.9


@pytest.mark.parametrize("direction", [10.0, 75.0, 140.0])
@pytest.mark.parametrize("spacing", [14.0, 26.0])
def test_pleats_lie_a_spacing_apart_and_point_along_the_midrib(
    direction: float, spacing: float
) -> None:
    relief = draw(
        "corrugated_leaf", spacing=spacing, thickness=0.5, direction_deg=direction, irregularity=0.2
    )
    luma = relief.cover.astype(np.float64)
    found = main_direction(luma).deg
    assert found is not None
    assert abs((found - direction + 90) % 180 - 90) < 8
    assert spacing_px(luma) == pytest.approx(spacing, rel=0.1)


def test_pleats_of_the_two_halves_of_a_leaf_are_mirror_images() -> None:
    cover = draw("corrugated_leaf", spacing=18, thickness=0.5, irregularity=0.1).cover
    upper = main_direction(cover[30:110, 30:-30].astype(np.float64)).deg
    lower = main_direction(cover[-110:-30, 30:-30].astype(np.float64)).deg
    assert upper is not None
    assert lower is not None
    assert 20 < upper < 45
    assert upper == pytest.approx(180 - lower, abs=4)


def test_the_same_generator_state_draws_the_same_relief() -> None:
    for family in NEW:
        first, second = (draw(family, 9, 96, spacing=20, thickness=0.4) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
