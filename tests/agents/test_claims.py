"""Citations and numbers: what a text claims and what holds it."""

from __future__ import annotations

import pytest

from agents.claims import (
    cited_ids,
    claims,
    sentences,
    shared_words,
    unsupported,
    without_citations,
)


def test_cited_ids_come_in_order_and_once() -> None:
    text = "Lines [silk-0012, leaf-0003]. More [silk-0012]. Not an id [12] or [silk-12]."
    assert cited_ids(text) == ("silk-0012", "leaf-0003")


def test_without_citations_leaves_the_prose() -> None:
    assert (
        without_citations("Thin lines [silk-0012]. Gaps [a-0001, b-0002].") == "Thin lines. Gaps."
    )


def test_a_citation_stays_with_the_sentence_before_it() -> None:
    text = 'Walls are 0.5 µm thick. [bio-0003] "Rods lean." [bio-0004] Seen e.g. from above.'
    assert sentences(text) == (
        "Walls are 0.5 µm thick. [bio-0003]",
        '"Rods lean." [bio-0004]',
        "Seen e.g. from above.",
    )


@pytest.mark.parametrize(
    ("text", "values", "kind"),
    [
        ("500 nm", (5e-7,), "m"),
        ("0.5 µm thick", (5e-7,), "m"),
        ("about 16 to 35 micrometres", (16e-6, 35e-6), "m"),
        ("10-50 nm", (1e-8, 5e-8), "m"),
        ("1.5 GPa", (1.5e9,), "Pa"),
        ("an angle of 53°", (53.0,), "deg"),
        ("13 degrees", (13.0,), "deg"),
        ("1,350 facts", (1350.0,), ""),
        ("12 loops", (12.0,), ""),
        ("40 %", (40.0,), "%"),
        ("a 40-fold rise", (40.0,), "times"),
        ("3 million cells", (3e6,), ""),
        ("a 90 degree turn", (90.0,), "deg"),
    ],
)
def test_a_number_is_read_with_its_unit(text: str, values: tuple[float, ...], kind: str) -> None:
    (claim,) = claims(text)
    assert claim.values == pytest.approx(values)
    assert claim.kind == kind


@pytest.mark.parametrize(
    "text",
    ["3D printed", "a 2-D drawing", "2 sets of lines", "[silk-0012]", "six sides", "1. Lines"],
)
def test_names_and_small_counts_are_no_claims(text: str) -> None:
    assert claims(text) == ()


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("0.5 µm plates", "Plates are 500 nm thick."),
        ("walls of 16 µm", "Walls are 16.2 µm thick."),
        ("13 degrees", "Tubes tilt by 13°."),
        ("20 to 60 nm", "Fibrils of 20-60 nm."),
        ("a strength of 1500 MPa", "It bears 1.5 GPa."),
        ("2.8 square metres", "Webs of up to 2.8 m^2."),
        ("120 angles", "Walls meet at 120 degrees."),
    ],
)
def test_a_number_is_held_in_any_unit_of_its_kind(said: str, source: str) -> None:
    assert unsupported(said, [source]) == ()


@pytest.mark.parametrize(
    ("said", "source", "loose"),
    [
        ("plates of 0.8 µm", "Plates are 500 nm thick.", "0.8 µm"),
        ("13 nm", "Tubes tilt by 13 degrees.", "13 nm"),
        ("10-70 nm", "Clusters of 10-50 nm.", "10-70 nm"),
        ("40 % thinner", "Nothing is said of numbers.", "40 %"),
        ("1.5 MPa", "It bears 1.5 GPa.", "1.5 MPa"),
    ],
)
def test_a_number_no_source_holds_is_unsupported(said: str, source: str, loose: str) -> None:
    assert unsupported(said, [source]) == (loose,)


def test_each_unsupported_number_is_listed_once() -> None:
    assert unsupported("70 nm here and 70 nm there", []) == ("70 nm",)


def test_shared_words_ignore_filler_and_endings() -> None:
    assert shared_words("The veins branch into loops.", "A vein has branches and a loop.") == 3
    assert shared_words("It is made of the same.", "It is one of the same.") == 0
