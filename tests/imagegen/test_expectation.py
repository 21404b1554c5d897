"""What a structure promises, and that a measurement of its drawing reads it."""

from __future__ import annotations

from typing import Any

import pytest
from numpy.typing import NDArray

from imagegen.directions import dominant_directions, main_direction
from imagegen.expectation import angle_between, expected
from imagegen.luma import REC_709
from imagegen.measure import spacing_px
from imagegen.motifs import FAMILIES
from imagegen.phases import solid_fraction
from imagegen.scene import seed_picture
from imagegen.spacings import rays_of, repeat_of
from orbweave.records import Motif, Structure


def drawn(family: str, size_px: int = 256, **motif: float) -> tuple[NDArray[Any], Structure]:
    """Luma of a drawing with the family's usual thickness, and its structure."""
    thickness = sum(FAMILIES[family].thickness) / 2
    made = Motif(family=family, thickness=thickness, irregularity=0.1, **motif)
    structure = Structure(motifs=(made,), look="white on black", seed=3)
    return seed_picture(structure, size_px) / 255 @ REC_709, structure


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_states_is_possible(family: str) -> None:
    seen = FAMILIES[family].seen
    assert seen.period is None or 0.4 < seen.period < 1.4
    assert seen.repeat is None or 0.9 < seen.repeat < 2.2
    assert all(0 <= line < 180 for line in seen.lines)


@pytest.mark.parametrize(
    ("family", "turn"), [("twisted_plywood", 90.0), ("silk_bundle", 0.0), ("nacre_bricks", 0.0)]
)
def test_the_main_direction_is_that_of_the_lines_and_not_of_the_axis(
    family: str, turn: float
) -> None:
    luma, structure = drawn(family, spacing=16, direction_deg=35)
    promised, found = expected(structure, 256).direction_deg, main_direction(luma).deg
    assert promised == (35 + turn) % 180
    assert found is not None and angle_between(found, promised) < 8


@pytest.mark.parametrize("family", ["honeycomb", "wood_cells", "glass_sponge_lattice"])
def test_nets_have_the_directions_of_their_walls(family: str) -> None:
    luma, structure = drawn(family, spacing=30, direction_deg=20)
    found = dominant_directions(luma)
    for line in expected(structure, 256).directions_deg:
        assert min(angle_between(line, one) for one in found) < 4


@pytest.mark.parametrize("family", ["honeycomb", "glass_sponge_lattice"])
@pytest.mark.parametrize("size_px", [192, 256])
def test_rows_and_cells_are_both_as_promised(family: str, size_px: int) -> None:
    luma, structure = drawn(family, size_px, spacing=28)
    promised, rays = expected(structure, size_px), rays_of(luma)
    assert spacing_px(luma) == pytest.approx(promised.spacing_px, rel=0.06)
    assert rays is not None
    assert repeat_of(rays).px == pytest.approx(promised.repeat_px, rel=0.06)


def test_the_solid_fraction_is_that_of_the_drawing() -> None:
    luma, structure = drawn("turing_pattern", spacing=24)
    promised = expected(structure, 256).solid_fraction
    # The thickness of this family is its solid fraction.
    assert promised == pytest.approx(structure.motifs[0].thickness, abs=0.02)
    assert solid_fraction(luma, "bright") == pytest.approx(promised, abs=0.02)


def test_lengths_grow_with_the_picture() -> None:
    structure = drawn("honeycomb", 64, spacing=40)[1]
    small, large = expected(structure, 128), expected(structure, 512)
    assert (small.repeat_px, large.repeat_px) == (20, 80)


def test_two_motifs_promise_no_spacing_or_direction() -> None:
    motifs = (Motif(family="honeycomb"), Motif(family="silk_bundle"))
    promised = expected(Structure(motifs=motifs, combine="half"), 64)
    assert (promised.spacing_px, promised.direction_deg) == (None, None)
    assert 0 < promised.solid_fraction < 1
