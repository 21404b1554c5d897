"""Structures fitted to a measure, against pictures drawn and measured apart from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagegen import Renderer
from imagegen.assembly import WEIGHTS
from imagegen.captions import describe
from imagegen.fit import _fitted, _worst, errors, fit, lasting, measure_drawn
from imagegen.luma import REC_709
from imagegen.measure import main_direction, measure, solid_fraction, spacing_px
from imagegen.scene import seed_picture
from orbweave.records import Motif, RenderRequest, Structure, Targets


def _of(family: str, **numbers: float) -> Structure:
    motif = Motif.model_validate({"family": family, "spacing": 20, "thickness": 0.3} | numbers)
    return Structure(motifs=(motif,), look="white on black", seed=3)


def _flat(structure: Structure) -> np.ndarray:
    return seed_picture(structure, 256) / 255 @ REC_709


def test_a_drawing_is_measured_as_a_rendering_would_be() -> None:
    structure = _of("parallel_veins", direction_deg=30)
    drawn = measure_drawn(structure)
    direction = main_direction(_flat(structure)).deg
    assert drawn.solid_fraction == pytest.approx(solid_fraction(_flat(structure)), abs=1e-3)
    assert direction is not None
    assert drawn.direction_deg == pytest.approx(direction, abs=0.1)
    assert drawn.spacing_px == pytest.approx(spacing_px(_flat(structure)), abs=0.01)


def test_the_spacing_is_in_pixels_of_the_picture() -> None:
    structure = _of("honeycomb")
    small, large = (measure_drawn(structure, (n, n)).spacing_px for n in (256, 512))
    assert small is not None and large is not None
    assert large == pytest.approx(2 * small, abs=0.02)


def test_a_direction_that_cannot_be_seen_and_a_period_of_chance_are_no_targets() -> None:
    assert measure_drawn(_of("honeycomb")).direction_deg is None
    assert measure_drawn(_of("cobweb", spacing=32)).spacing_px is None


def test_a_solid_fraction_that_hangs_on_the_light_is_no_target() -> None:
    steady = _of("honeycomb")
    shaded = _of("silk_bundle", thickness=0.55, spacing=14).model_copy(
        update={"look": "red on navy"}
    )
    assert lasting(steady) == measure_drawn(steady)
    assert lasting(shaded).solid_fraction is None
    assert lasting(shaded).direction_deg == measure_drawn(shaded).direction_deg
    assert measure_drawn(shaded).solid_fraction is not None


@pytest.mark.parametrize("family", ["honeycomb", "leaf_veins", "parallel_veins", "nacre_bricks"])
@pytest.mark.parametrize("wanted", [0.35, 0.5])
def test_a_thickness_is_found_for_a_solid_fraction(family: str, wanted: float) -> None:
    fitted = fit(_of(family), Targets(solid_fraction=wanted))
    assert solid_fraction(_flat(fitted)) == pytest.approx(wanted, abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(
    not (WEIGHTS / "unet.safetensors").exists(), reason="the image model is not trained yet"
)
def test_a_rendering_keeps_a_solid_fraction_whatever_its_light(tmp_path: Path) -> None:
    foam = _of("voronoi_foam", spacing=28, thickness=0.14).model_copy(
        update={"look": "lime on green", "light": "raking"}
    )
    fitted = fit(foam, Targets(solid_fraction=0.2))
    request = RenderRequest(prompt=describe(fitted), structure=fitted, seeds=(3,))
    (picture,) = Renderer().render(request, tmp_path)
    assert measure(Path(picture.path)).solid_fraction == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("family", ["parallel_veins", "corrugated_leaf", "silk_bundle"])
def test_a_structure_is_turned_until_it_measures_the_direction(family: str) -> None:
    fitted = fit(_of(family), Targets(direction_deg=120.0))
    direction = main_direction(_flat(fitted)).deg
    assert direction is not None
    assert abs((direction - 120 + 90) % 180 - 90) < 4


@pytest.mark.parametrize("family", ["parallel_veins", "honeycomb", "phyllotaxis"])
def test_a_structure_is_scaled_until_it_measures_the_spacing(family: str) -> None:
    fitted = fit(_of(family), Targets(spacing_px=15.0))
    assert spacing_px(_flat(fitted)) == pytest.approx(15.0, rel=0.06)


def test_all_at_once_is_met_as_well() -> None:
    wanted = Targets(solid_fraction=0.4, direction_deg=60.0, spacing_px=16.0)
    drawn = measure_drawn(fit(_of("parallel_veins"), wanted))
    assert drawn.solid_fraction == pytest.approx(0.4, abs=0.02)
    assert drawn.direction_deg == pytest.approx(60.0, abs=3)
    assert drawn.spacing_px == pytest.approx(16.0, rel=0.06)


def test_what_cannot_be_reached_stays_within_the_ranges_of_a_motif() -> None:
    (motif,) = fit(_of("orb_web"), Targets(solid_fraction=1.0, spacing_px=500.0)).motifs
    assert motif == Motif.model_validate(motif.model_dump())
    assert motif.thickness > 0.5
    assert motif.spacing == 96


def test_aims_that_hang_on_accidents_are_met_by_others() -> None:
    start = _of("pavement_stomata")
    fitted = fit(start, Targets(spacing_px=31.0))
    assert fitted.seed != start.seed
    assert fitted.motifs[0].irregularity == start.motifs[0].irregularity
    assert spacing_px(_flat(fitted)) == pytest.approx(31.0, rel=0.06)


def test_aims_that_no_seed_meets_are_met_by_other_numbers_of_the_motif() -> None:
    start = _of("feather_barbs", direction_deg=30)
    fitted = fit(start, Targets(spacing_px=31.0))
    assert fitted.motifs[0].irregularity != start.motifs[0].irregularity
    assert fitted.motifs[0].direction_deg == 30
    assert spacing_px(_flat(fitted)) == pytest.approx(31.0, rel=0.06)
    assert fit(start, Targets(spacing_px=31.0)) == fitted


def test_what_no_numbers_meet_leaves_the_seed_as_it_was() -> None:
    start = _of("branching_coral")
    fitted = fit(start, Targets(spacing_px=31.0))
    assert measure_drawn(fitted).spacing_px is None
    assert (fitted.seed, fitted.motifs[0].irregularity) == (3, start.motifs[0].irregularity)


def test_of_what_misses_its_aims_the_nearest_is_returned() -> None:
    aims = Targets(solid_fraction=0.02, spacing_px=12.0)
    start = _of("voronoi_foam", spacing=12)
    alone = _fitted(start, aims, (256, 256))  # the first of those tried
    near, first = (_worst(errors(aims, measure_drawn(s))) for s in (fit(start, aims), alone))
    assert 1 < near < first


@pytest.mark.parametrize(("thickness", "seen"), [(0.73, True), (0.93, False)])
def test_a_period_that_a_rendering_would_drown_is_no_target(thickness: float, seen: bool) -> None:
    scales = _of("shark_denticles", spacing=33, thickness=thickness).model_copy(
        update={"look": "pink on white", "seed": 7}
    )
    assert spacing_px(_flat(scales)) is not None
    assert (measure_drawn(scales).spacing_px is not None) == seen


def test_a_period_that_light_changes_is_none_that_lasts() -> None:
    numbers = {"spacing": 48.32, "thickness": 0.159, "irregularity": 0.066, "direction_deg": 105.4}
    lattice = _of("glass_sponge_lattice", **numbers).model_copy(
        update={"look": "teal on navy", "light": "backlit", "seed": 166293744}
    )
    assert measure_drawn(lattice).spacing_px is not None
    assert lasting(lattice).spacing_px is None


def test_what_is_not_aimed_at_stays() -> None:
    structure = _of("parallel_veins", direction_deg=30)
    assert fit(structure, Targets()) == structure
    (motif,) = fit(structure, Targets(solid_fraction=0.5)).motifs
    assert (motif.spacing, motif.direction_deg) == (20, 30)
