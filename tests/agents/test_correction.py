"""Where to draw next, against lines whose crossing is known."""

from __future__ import annotations

import pytest

from agents.correction import Point, next_drawn, vain


def _after(rounds: int, miss_of: float, slope: float, start: float = 0.0) -> list[Point]:
    """Versions of a picture that misses by `miss_of` at 0 and by `slope` more per step."""
    tried = [Point(start, miss_of + slope * start)]
    for _ in range(rounds):
        drawn = next_drawn(tried)
        tried.append(Point(drawn, miss_of + slope * drawn))
    return tried


def test_what_one_version_missed_is_taken_back() -> None:
    assert next_drawn([Point(0.05, 0.16)]) == pytest.approx(-0.11)


def test_between_two_versions_the_straight_line_decides() -> None:
    # Drawn .62 thick .475 solid, drawn .50 thick .410: .44 lies at .555.
    thick = [Point(0.62, 0.475 - 0.44), Point(0.50, 0.410 - 0.44)]
    assert next_drawn(thick) == pytest.approx(0.5554, abs=1e-4)
    assert next_drawn(thick[::-1]) == next_drawn(thick)


def test_of_many_versions_the_nearest_on_either_side_count() -> None:
    far = [Point(0.9, 0.4), Point(0.1, -0.5)]
    near = [Point(0.6, 0.1), Point(0.4, -0.1)]
    assert next_drawn([far[0], *near, far[1]]) == pytest.approx(0.5)


@pytest.mark.parametrize("slope", [0.6, 1.0, 1.6])
def test_a_steady_line_is_met_by_the_third_version(slope: float) -> None:
    assert _after(2, 0.16, slope)[-1].missed == pytest.approx(0.0, abs=1e-9)


def test_a_flat_line_leads_no_further_than_twice_the_miss() -> None:
    first, second = Point(0.0, 0.16), Point(-0.16, 0.155)
    assert next_drawn([first, second]) == pytest.approx(-0.16 - 2 * 0.155)


def test_of_a_step_that_came_no_nearer_half_is_made_and_then_a_quarter() -> None:
    best, worse = Point(0.0, 0.06), Point(-0.06, 0.5)
    assert vain([best, worse]) == [worse]
    assert next_drawn([best, worse]) == pytest.approx(-0.03)
    assert next_drawn([best, worse, Point(-0.03, 0.2)]) == pytest.approx(-0.015)


def test_where_no_rising_line_leads_through_two_sides_the_middle_is_tried() -> None:
    assert next_drawn([Point(0.0, 0.1), Point(-0.1, 0.4), Point(0.2, -0.3)]) == pytest.approx(0.1)


def test_an_overshot_target_is_no_step_in_vain() -> None:
    assert vain([Point(0.0, 0.1), Point(-0.1, -0.3)]) == []


def test_a_target_that_is_met_is_drawn_as_it_was() -> None:
    assert next_drawn([Point(0.2, 0.0), Point(0.3, 0.1)]) == 0.2
