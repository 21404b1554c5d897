"""Families are found by their names, and by words for them."""

import pytest

from imagegen.motifs import FAMILIES
from imagegen.names import WORDS, clauses_of, named, places


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_names_its_family_alone(family: str) -> None:
    assert {name: list(named(f"a golden {name}")) for name in FAMILIES[family].names} == {
        name: [family] for name in FAMILIES[family].names
    }


def test_words_for_a_family_stand_for_one_that_is_there() -> None:
    assert set(WORDS.values()) <= set(FAMILIES)
    assert {word: list(named(f"golden {word} lines")) for word in WORDS} == {
        word: [family] for word, family in WORDS.items()
    }


def test_a_longer_name_hides_a_shorter_one_of_another_family() -> None:
    assert list(named("green parallel leaf veins")) == ["parallel_veins"]
    assert list(named("spinodal foam")) == ["trabecular_foam"]


@pytest.mark.parametrize("clause", ["an orb web of spider silk", "spider silk orb web"])
def test_a_web_of_silk_is_a_web(clause: str) -> None:
    assert list(named(clause)) == ["orb_web"]


def test_a_leaf_with_straight_veins_has_no_net_of_them() -> None:
    assert list(named("a maize leaf whose veins are straight")) == ["parallel_veins"]


def test_silk_beside_a_web_is_silk() -> None:
    found = places(clauses_of("spider silk and an orb web"))
    assert sorted(found, key=lambda name: found[name]) == ["silk_bundle", "orb_web"]


def test_places_are_in_the_order_of_the_words() -> None:
    found = places(clauses_of("Coral, then a honeycomb over nacre; more coral"))
    assert sorted(found, key=lambda name: found[name]) == [
        "branching_coral", "honeycomb", "nacre_bricks",
    ]  # fmt: skip
