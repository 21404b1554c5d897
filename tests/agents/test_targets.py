"""Distances to targets, and seeds that come nearer to them round by round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from agents.roles import StopRule
from agents.targets import (
    UNMEASURED,
    Geometry,
    Seed,
    Trial,
    distance,
    first_seed,
    geometry_of,
    next_seed,
    off,
)
from orbweave.records import Motif, Structure, Targets

RULE = StopRule(solid_fraction=0.05, direction_deg=10, spacing=0.1)


@dataclass
class Plain:
    """A geometry whose bare picture measures just its numbers: solid is the thickness."""

    strength: float = 0.6
    dressed: list[str] = field(default_factory=list)

    def nearest(self, words: str, wanted: Targets) -> Mapping[str, str]:
        return {}

    def look(self, family: str) -> str:
        return ""

    def choose(self, words: str, seed: int, family: str | None) -> Structure | None:
        motif = Motif(family=family or "leaf_veins", spacing=20, thickness=0.3, direction_deg=30)
        return Structure(motifs=(motif,), seed=seed)

    def measure(self, structure: Structure) -> Targets:
        (motif,) = structure.motifs
        return Targets(
            solid_fraction=motif.thickness,
            direction_deg=motif.direction_deg,
            spacing_px=motif.spacing,
        )

    def lasting(self, structure: Structure) -> Targets:
        return self.measure(structure)

    def fit(self, structure: Structure, aims: Targets) -> Structure:
        names = {"thickness": "solid_fraction", "direction_deg": "direction_deg",
                 "spacing": "spacing_px"}  # fmt: skip
        set_to = {f: getattr(aims, n) for f, n in names.items() if getattr(aims, n) is not None}
        return structure.model_copy(
            update={"motifs": (structure.motifs[0].model_copy(update=set_to),)}
        )

    def dress(self, structure: Structure, words: str) -> Structure:
        self.dressed.append(words)
        return structure


class Blurred(Plain):
    """One whose drawings show no period."""

    def measure(self, structure: Structure) -> Targets:
        return Targets(solid_fraction=structure.motifs[0].thickness)


def _numbers(seed: Seed) -> tuple[float, float, float]:
    assert seed.structure is not None
    (motif,) = seed.structure.motifs
    return motif.thickness, motif.direction_deg, motif.spacing


@pytest.mark.parametrize(
    ("name", "wanted", "got", "tolerances"),
    [
        ("solid_fraction", 0.4, 0.5, 2.0),
        ("direction_deg", 5.0, 175.0, 1.0),
        ("spacing_px", 20.0, 25.0, 2.5),
        ("spacing_px", 20.0, None, UNMEASURED),
        ("direction_deg", 0.0, 90.0, 9.0),
    ],
)
def test_a_miss_is_counted_in_tolerances(
    name: str, wanted: float, got: float | None, tolerances: float
) -> None:
    assert off(name, wanted, got, RULE) == pytest.approx(tolerances)


def test_the_distance_is_the_mean_miss_over_the_targets() -> None:
    targets = Targets(solid_fraction=0.4, direction_deg=5.0)
    assert distance(targets, {"solid_fraction": 0.5, "direction_deg": 175.0}, RULE) == 1.5
    assert distance(targets, {"solid_fraction": 0.4, "direction_deg": 5.0}, RULE) == 0.0


def test_without_targets_there_is_no_distance() -> None:
    assert distance(Targets(), {"solid_fraction": 0.5}, RULE) is None


def test_the_first_targets_are_the_persons_and_else_what_the_bare_structure_measures() -> None:
    seed = first_seed(Plain(), "words", 7, Targets(solid_fraction=0.5), "orb_web")
    assert seed.targets == Targets(solid_fraction=0.5, direction_deg=30, spacing_px=20)
    assert seed.structure is not None
    assert (seed.structure.seed, seed.structure.motifs[0].family) == (7, "orb_web")
    assert _numbers(seed)[0] == 0.5


def test_the_seed_is_stated_in_words() -> None:
    assert first_seed(Plain(), "words", 0, Targets()).text == (
        "Structure: leaf veins, spacing 20.0 px, thickness 0.30 of it, direction 30 degrees.\n"
        "To measure: solid fraction 0.30, direction 30 degrees, spacing 20.0 px."
    )


def test_each_number_is_corrected_by_what_the_picture_missed() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    measured = {"solid_fraction": 0.4, "direction_deg": 42.0, "spacing_px": 25.0}
    seed = next_seed(Plain(), "words", first, measured, RULE)
    assert _numbers(seed) == pytest.approx((0.2, 18.0, 16.0))
    assert seed.changes == (
        "Thickness from 0.30 to 0.20 of the spacing: the picture measured solid fraction 0.40 "
        "where solid fraction 0.30 is wanted.",
        "Direction from 30 to 18 degrees: the picture measured direction 42 degrees where "
        "direction 30 degrees is wanted.",
        "Spacing from 20.0 to 16.0 px: the picture measured spacing 25.0 px where "
        "spacing 20.0 px is wanted.",
    )
    assert seed.strength is None


def test_targets_stay_what_they_were_at_first() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    seed = next_seed(Plain(), "words", first, {"solid_fraction": 0.4}, RULE)
    assert seed.targets == first.targets


def test_a_steady_error_of_the_renderer_is_gone_after_one_correction() -> None:
    geometry = Plain()
    first = first_seed(geometry, "words", 0, Targets(solid_fraction=0.4))
    seed = next_seed(geometry, "words", first, _rendered(first), RULE)
    before = distance(first.targets, _rendered(first), RULE)
    after = distance(seed.targets, _rendered(seed), RULE)
    assert before is not None and before > 1
    assert after == pytest.approx(0, abs=1e-3)


def _rendered(seed: Seed) -> dict[str, float | None]:
    """A renderer that draws all 0.1 too solid and 12 degrees too far anticlockwise."""
    solid, direction, spacing = _numbers(seed)
    return {"solid_fraction": solid + 0.1, "direction_deg": direction + 12, "spacing_px": spacing}


def _tried(seed: Seed, solid: float, **numbers: float | str) -> Trial:
    """A version with other numbers that came out so solid."""
    assert seed.structure is not None
    look = {key: numbers.pop(key) for key in ("look", "light") if key in numbers}
    motif = seed.structure.motifs[0].model_copy(update=numbers)
    structure = seed.structure.model_copy(update={"motifs": (motif,), **look})
    return Trial(structure, seed.strength, {"solid_fraction": solid})


def test_of_a_correction_that_made_it_worse_half_is_made() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    worse = [_tried(first, 0.5, thickness=0.2)]
    seed = next_seed(Plain(), "words", first, {"solid_fraction": 0.4}, RULE, worse)
    assert _numbers(seed)[0] == pytest.approx(0.25)


def test_between_a_version_too_solid_and_one_too_open_the_target_is_interpolated() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    for order in (1, -1):
        others = [_tried(first, 0.1, thickness=0.1), _tried(first, 0.02, thickness=0.05)][::order]
        seed = next_seed(Plain(), "words", first, {"solid_fraction": 0.4}, RULE, others)
        assert _numbers(seed)[0] == pytest.approx(0.1 + 0.2 * 2 / 3)


def test_versions_in_other_colours_or_at_another_strength_tell_nothing() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    measured = {"solid_fraction": 0.4}
    alone = next_seed(Plain(), "words", first, measured, RULE)
    redder, softer = _tried(first, 0.1, thickness=0.1, look="red on black"), _tried(first, 0.1)
    others = [redder, softer._replace(strength=0.3)]
    assert next_seed(Plain(), "words", first, measured, RULE, others) == alone


class Redressed(Plain):
    """One that dresses in what the words say."""

    def dress(self, structure: Structure, words: str) -> Structure:
        return structure.model_copy(update={"look": words})


def test_in_new_colours_the_target_itself_is_drawn() -> None:
    first = first_seed(Redressed(), "words", 0, Targets(solid_fraction=0.4))
    measured = {"solid_fraction": 0.6, "direction_deg": 42.0, "spacing_px": 20.0}
    seed = next_seed(Redressed(), "red on black", first, measured, RULE)
    assert _numbers(seed) == pytest.approx((0.4, 30.0, 20.0))
    known = _tried(first, 0.45, thickness=0.35, look="red on black")
    seed = next_seed(Redressed(), "red on black", first, measured, RULE, [known])
    assert _numbers(seed)[0] == pytest.approx(0.3)  # 0.1 too solid there


def test_what_is_near_enough_is_left_alone() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    measured = {"solid_fraction": 0.31, "direction_deg": 32.0, "spacing_px": 20.3}
    seed = next_seed(Plain(), "words", first, measured, RULE)
    assert (seed.structure, seed.changes) == (first.structure, ())


def test_what_is_met_is_left_alone_while_something_else_is_missed() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    met = {"direction_deg": 38.0, "spacing_px": 21.8}
    seed = next_seed(Plain(), "words", first, {"solid_fraction": 0.4, **met}, RULE)
    assert _numbers(seed) == pytest.approx((0.2, 30.0, 20.0))
    seed = next_seed(Plain(), "words", first, {"solid_fraction": 0.32, **met}, RULE)
    assert _numbers(seed) == pytest.approx((0.28, 22.0, 20 / 1.09))


def test_a_picture_that_left_its_geometry_is_rendered_at_less_strength() -> None:
    first = first_seed(Plain(), "words", 0, Targets())
    measured = {"solid_fraction": 0.3, "direction_deg": 75.0, "spacing_px": None}
    seed = next_seed(Plain(), "words", first, measured, RULE)
    assert seed.strength == pytest.approx(0.39)
    assert seed.structure == first.structure
    assert seed.changes == (
        "Render strength from 0.60 down to 0.39: the picture left its geometry "
        "(direction and spacing).",
    )


def test_a_second_motif_that_hides_a_target_is_left_out() -> None:
    motifs = (Motif(family="silk_bundle"), Motif(family="cobweb"))
    both = Structure(motifs=motifs, combine="overlay")
    seed = next_seed(Blurred(), "words", Seed(both, Targets(spacing_px=30.0)), {}, RULE)
    assert seed.structure is not None
    assert [motif.family for motif in seed.structure.motifs] == ["silk_bundle"]
    assert seed.structure.motifs[0].spacing == 30.0
    assert seed.changes == ("Without cobweb: the picture did not show the spacing wanted.",)


def test_lines_too_fine_to_be_rendered_are_drawn_coarser() -> None:
    structure = Structure(motifs=(Motif(family="pavement_stomata", spacing=20.0),))
    last = Seed(structure, Targets(solid_fraction=0.7))
    by_numbers = next_seed(Plain(), "words", last, {"solid_fraction": 0.5}, RULE)
    assert by_numbers.structure is not None
    assert by_numbers.structure.motifs[0].spacing == 20.0
    vain = [Trial(structure.model_copy(update={"motifs": (
        structure.motifs[0].model_copy(update={"thickness": 0.9}),
    )}), None, {"solid_fraction": 0.0})]  # fmt: skip
    seed = next_seed(Plain(), "words", last, {"solid_fraction": 0.0}, RULE, vain)
    assert seed.structure is not None
    assert seed.structure.motifs[0].spacing == pytest.approx(28.0)
    assert seed.changes == (
        "Spacing from 20.0 to 28.0 px: lines too fine to be rendered hide the solid fraction.",
    )


def test_a_spacing_that_is_wanted_is_never_drawn_coarser() -> None:
    structure = Structure(motifs=(Motif(family="voronoi_foam", spacing=20.0, thickness=0.3),))
    last = Seed(structure, Targets(solid_fraction=0.3, spacing_px=20.0))
    measured = {"solid_fraction": 0.5, "spacing_px": 20.0}
    worse = [_tried(last, 0.55, thickness=0.1)]
    seed = next_seed(Plain(), "words", last, measured, RULE, worse)
    assert seed.structure is not None
    assert seed.structure.motifs[0].spacing == 20.0
    assert seed.structure.motifs[0].thickness == pytest.approx(0.2)


def test_the_strength_falls_no_further_than_a_rendering_needs() -> None:
    seed = first_seed(Plain(strength=0.35), "words", 0, Targets())
    measured = {"solid_fraction": 0.3, "direction_deg": 75.0, "spacing_px": 20.0}
    for _ in range(3):
        seed = next_seed(Plain(strength=0.35), "words", seed, measured, RULE)
    assert (seed.strength, seed.changes) == (0.3, ())


def test_the_revised_words_decide_the_colours() -> None:
    geometry = Plain()
    first = first_seed(geometry, "gold", 0, Targets())
    next_seed(geometry, "blue", first, {"solid_fraction": 0.3}, RULE)
    assert geometry.dressed == ["blue"]


def test_without_a_structure_only_the_words_change() -> None:
    wanted = Targets(solid_fraction=0.2)
    seed = first_seed(geometry_of(lambda words, seed: None), "words", 0, wanted)
    assert seed == Seed(targets=wanted)
    assert next_seed(Plain(), "words", seed, {"solid_fraction": 0.9}, RULE) == seed


def test_a_plain_function_is_a_geometry_that_measures_nothing() -> None:
    structure = Structure(motifs=(Motif(family="orb_web"),))
    geometry = geometry_of(lambda words, seed: structure)
    assert isinstance(geometry, Geometry)
    assert first_seed(geometry, "words", 0, Targets()) == Seed(structure)
