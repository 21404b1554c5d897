"""Citations, numbers and sentences: what a text claims and what holds it."""

from __future__ import annotations

import pytest

from agents.claims import (
    capitalised,
    check,
    cited_ids,
    claims,
    denies,
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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a net. thin lines! (soft) light?", "A net. Thin lines! (Soft) light?"),
        ("Rows, e.g. of tubes, approx. five.", "Rows, e.g. of tubes, approx. five."),
        ("3 mm apart. x^2 grows. d. h.", "3 mm apart. x^2 grows. d. h."),
        ("0.5 of it. 'quoted' too", "0.5 of it. 'Quoted' too"),
        ("", ""),
    ],
)
def test_sentences_begin_with_capitals_and_symbols_stay(text: str, wanted: str) -> None:
    assert capitalised(text) == wanted


def test_a_citation_stays_with_the_sentence_before_it() -> None:
    text = 'Walls are 0.5 µm thick. [bio-0003] "Rods lean." [bio-0004] Seen e.g. from above.'
    assert sentences(text) == (
        "Walls are 0.5 µm thick. [bio-0003]",
        '"Rods lean." [bio-0004]',
        "Seen e.g. from above.",
    )


@pytest.mark.parametrize("text", ["Lines [silk-0012].", "1. Lines\n2. Loops"])
def test_ids_and_list_numbers_are_no_claims(text: str) -> None:
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


def test_the_ends_of_a_range_must_stand_in_one_source() -> None:
    assert unsupported("10 to 50 nm", ["It is 10 nm.", "It is 50 nm."]) == ("10 to 50 nm",)


def test_each_unsupported_number_is_listed_once() -> None:
    assert unsupported("70 nm here and 70 nm there", []) == ("70 nm",)


def test_shared_words_ignore_filler_and_endings() -> None:
    assert shared_words("The veins branch into loops.", "A vein has branches and a loop.") == 3
    assert shared_words("It is made of the same.", "It is one of the same.") == 0


CUTICLE = "A waxy cuticle covers the upper side of the leaf."
WALLS = "Walls of the cells are 500 nm thick."
FACTS = {"leaf-0001": CUTICLE, "leaf-0002": WALLS}


@pytest.mark.parametrize(
    ("sentence", "verdict", "ids"),
    [
        ("Cover the upper side with a waxy cuticle. [leaf-0001]", "supported", ("leaf-0001",)),
        ("Cell walls are 0.5 µm thick.", "supported", ("leaf-0002",)),
        ("Let thick walls carry a waxy cuticle.", "supported", ("leaf-0001", "leaf-0002")),
        ("A waxy cuticle glows in a golden evening light.", "plausible", ("leaf-0001",)),
        ("Cell walls are 0.8 µm thick.", "unsupported", ()),
        ("A waxy cuticle covers 500 nm.", "unsupported", ()),
        ("No waxy cuticle covers the upper side.", "unsupported", ("leaf-0001",)),
        ("Golden light falls on a hall.", "unsupported", ()),
    ],
)
def test_a_sentence_is_supported_plausible_or_unsupported(
    sentence: str, verdict: str, ids: tuple[str, ...]
) -> None:
    found = check(sentence, FACTS)
    assert (found.verdict, found.facts) == (verdict, ids)
    assert bool(found.why) == (verdict == "unsupported")


def test_the_concept_holds_numbers_and_supports_nothing() -> None:
    asked = "a wall with cells of 9 mm"
    assert check("Draw golden halls of 9 mm.", FACTS, asked).verdict == "unsupported"
    assert check("Walls of the cells are 9 mm thick.", FACTS, asked).verdict == "supported"
    assert check("Walls of the cells are 9 mm thick.", FACTS).why == "in no fact: 9 mm"


@pytest.mark.parametrize(
    ("said", "source"),
    [
        ("so no waxy cuticle covers it", CUTICLE),
        ("The veins are not branched.", "The veins are branched in the blade."),
        ("Threads hold the load without glue.", "Threads hold the load by glue."),
        ("Let glue cover the radial threads.", "The radial threads carry no glue."),
        ("The threads don't cross the veins.", "Threads cross the veins."),
        ("Keep the veins free of loops.", "The veins form closed loops."),
        ("Take leaves, which drag most in wind.", "Leaves have the lowest drag in wind."),
        ("Make the tip the weakest point.", "The tip is the strongest point."),
    ],
)
def test_a_negation_of_the_fact_denies_it(said: str, source: str) -> None:
    assert denies(said, source)
    assert check(said, {"leaf-0001": source}).verdict == "unsupported"


@pytest.mark.parametrize(
    ("said", "source"),
    [
        (CUTICLE, CUTICLE),
        (
            "Let side veins come close to the margin without reaching it.",
            "Side veins come close to the leaf margin but do not reach it.",
        ),
        ("Carry no glue on the radial threads.", "The radial threads carry no glue."),
        ("Not only threads but glue holds the load.", "Threads and glue hold the load."),
        ("No thread of the web is without glue.", "Threads of the web carry glue."),
        ("Golden light falls, not rain.", CUTICLE),
        ("Most of the leaf's drag is low.", "The leaf's drag is the lowest."),
        ("Give the tip the lowest drag.", "Leaf tips have the lowest drag and most veins."),
    ],
)
def test_a_text_that_agrees_or_speaks_of_something_else_denies_nothing(
    said: str, source: str
) -> None:
    assert not denies(said, source)
