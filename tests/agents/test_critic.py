"""The critic: what it says of a measurement, which version is best, and when to stop."""

from __future__ import annotations

import math
from typing import Any

import pytest

from agents.critic import Standing, best_of, is_faint, measured_means, misses, stop_reason
from agents.roles import StopRule
from orbweave.records import Measurement, Targets

RULE = StopRule(solid_fraction=0.08, direction_deg=15, spacing=0.2)


def _measured(**fields: Any) -> Measurement:
    values = {"solid_fraction": 0.5, "direction_deg": None, "spacing_px": None} | fields
    return Measurement(picture="0.png", anisotropy=0.1, contrast=0.2, **values)


def _at(*distances: float | None, score: float = 3.0, missed: str = "spacing_px") -> list[Standing]:
    return [Standing(score, distance, (missed,)) for distance in distances]


def test_directions_are_averaged_on_the_half_circle() -> None:
    means = measured_means([_measured(direction_deg=170.0), _measured(direction_deg=20.0)])
    assert means["direction_deg"] == pytest.approx(5.0)
    assert measured_means([_measured()])["direction_deg"] is None


def test_of_crossing_lines_the_one_nearest_to_the_wanted_direction_counts() -> None:
    crossed = _measured(direction_deg=150.0, directions_deg=(150.0, 62.0))
    assert measured_means([crossed])["direction_deg"] == 150.0
    assert measured_means([crossed], Targets(direction_deg=60.0))["direction_deg"] == 62.0
    assert measured_means([_measured()], Targets(direction_deg=60.0))["direction_deg"] is None


@pytest.mark.parametrize(
    ("targets", "measured", "missed"),
    [
        (Targets(), {}, set()),
        (Targets(solid_fraction=0.4), {"solid_fraction": 0.45}, set()),
        (Targets(solid_fraction=0.4), {"solid_fraction": 0.55}, {"solid_fraction"}),
        (Targets(direction_deg=5.0), {"direction_deg": 175.0}, set()),
        (Targets(direction_deg=5.0), {"direction_deg": 90.0}, {"direction_deg"}),
        (Targets(spacing_px=20.0), {"spacing_px": 30.0}, {"spacing_px"}),
        (Targets(spacing_px=20.0), {"spacing_px": None}, {"spacing_px"}),
    ],
)
def test_a_target_is_missed_outside_its_tolerance(
    targets: Targets, measured: dict[str, float | None], missed: set[str]
) -> None:
    assert set(misses(targets, measured, RULE)) == missed


@pytest.mark.parametrize(
    ("targets", "measured", "told"),
    [
        (
            Targets(solid_fraction=0.4),
            {"solid_fraction": 0.2},
            "Measured solid fraction 0.20, wanted about 0.40; make lines thicker and gaps smaller.",
        ),
        (
            Targets(direction_deg=170.0),
            {"direction_deg": 20.0},
            "Dominant direction 20 degrees, wanted 170 degrees; turn the lines clockwise.",
        ),
        (
            Targets(spacing_px=20.0),
            {"spacing_px": 40.0},
            "Measured spacing 40 px, wanted about 20; set the lines closer together.",
        ),
        (
            Targets(direction_deg=90.0),
            {},
            "No dominant direction, wanted 90 degrees; draw parallel lines.",
        ),
    ],
)
def test_a_miss_is_told_as_the_engineer_was_trained_to_hear_it(
    targets: Targets, measured: dict[str, float | None], told: str
) -> None:
    (miss,) = misses(targets, measured, RULE).values()
    assert miss.told == told


def test_directions_are_told_from_0_to_179_and_one_degree_is_one() -> None:
    (miss,) = misses(Targets(direction_deg=90.0), {"direction_deg": 179.9}, RULE).values()
    assert miss.told.startswith("Dominant direction 0 degrees, wanted 90 degrees; ")
    (miss,) = misses(Targets(direction_deg=1.2), {"direction_deg": 90.0}, RULE).values()
    assert miss.drawn == "All lines run 1 degree from the horizontal."


def test_the_nearest_version_is_the_best_whatever_its_score() -> None:
    history = [Standing(5.0, 2.0), Standing(3.0, 0.5), Standing(4.0, 1.0)]
    assert best_of(history, RULE) == 1


def test_without_targets_the_best_judged_version_is_the_best() -> None:
    assert best_of([Standing(3.0, None), Standing(3.6, None), Standing(3.5, None)], RULE) == 1


def test_a_gain_below_the_least_one_takes_no_place() -> None:
    assert best_of(_at(1.0, 0.96), RULE) == 0
    assert best_of(_at(1.0, 0.95), RULE) == 1


def test_versions_before_a_persons_remark_are_no_longer_the_best() -> None:
    assert best_of(_at(0.1, 2.0, 1.0), RULE, since=1) == 2
    assert best_of(_at(0.1, 2.0), RULE, since=2) == 0


def test_it_stops_once_the_targets_are_met_even_if_the_score_is_low() -> None:
    history = [*_at(3.0), Standing(1.0, 0.4)]
    assert stop_reason(history, RULE, rounds=9) == "the measured targets are met"


def test_a_high_score_does_not_excuse_a_missed_target() -> None:
    assert stop_reason(_at(3.0, score=5.0), RULE, rounds=5) == ""


def test_without_targets_a_high_score_is_enough() -> None:
    reason = stop_reason([Standing(4.5, None)], RULE, rounds=5)
    assert reason == "the critic's mean score 4.50 reached 4.20"


def test_one_round_without_a_gain_is_forgiven_and_two_are_not() -> None:
    assert stop_reason(_at(1.0, 2.0), RULE, rounds=9) == ""
    assert stop_reason(_at(1.0, 2.0, 1.5), RULE, rounds=9) == (
        "no improvement in 2 rounds: version 0 is still the best, 1.00 tolerances from its targets"
    )


def test_at_the_bound_it_says_what_is_missing_and_which_version_is_the_best() -> None:
    assert stop_reason(_at(1.5, 2.0), RULE, rounds=2) == (
        "the bound of 2 rounds was reached; still off target: spacing_px; version 0 is the best"
    )


def test_a_picture_is_faint_whose_two_shades_lie_near_each_other() -> None:
    def shades(solid: float, dark: float, light: float) -> Measurement:
        deviation = math.sqrt(solid * (1 - solid)) * (light - dark)
        return _measured(solid_fraction=solid).model_copy(update={"contrast": deviation})

    assert is_faint([shades(0.4, 0.3, 0.55)])
    assert not is_faint([shades(0.4, 0.2, 0.55)])
    assert not is_faint([shades(0.05, 0.2, 0.55)])  # few lines, and clear ones
    assert not is_faint([shades(1.0, 0.5, 0.5)])  # nothing to tell apart
    assert not is_faint([])
