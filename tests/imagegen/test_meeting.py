"""How two motifs meet, and which of them lies on top or within the other."""

import pytest

from imagegen.captions import JOINS
from imagegen.meeting import joined, meeting
from imagegen.names import clauses_of, places

WEB, VEINS = "orb_web", "leaf_veins"


def met(text: str) -> tuple[list[str], str]:
    found = places(clauses_of(text))
    assert len(found) == 2, found
    return meeting(text, found, "half")


@pytest.mark.parametrize(
    ("text", "top"),
    [
        ("a spider web over leaf veins", WEB),
        ("a spider web on top of leaf veins", WEB),
        ("leaf veins above a spider web", VEINS),
        ("leaf veins under a spider web", WEB),
        ("leaf veins crossed by a spider web", WEB),
        ("leaf veins overlaid with a spider web", WEB),
        ("spider web beneath the leaf veins", VEINS),
    ],
)
def test_of_an_overlay_the_first_lies_on_top(text: str, top: str) -> None:
    names, combine = met(text)
    assert (names[0], combine) == (top, "overlay")


@pytest.mark.parametrize(
    ("text", "island"),
    [
        ("spider web embedded in leaf veins", WEB),
        ("leaf veins with an embedded spider web", WEB),
        ("an island of spider web in leaf veins", WEB),
        ("leaf veins around an oval patch of spider web", WEB),
        ("leaf veins surrounded by spider web", VEINS),
        ("a spider web, and in it an island of leaf veins", VEINS),
        ("leaf veins set as an island in a spider web", VEINS),
    ],
)
def test_of_an_inclusion_the_second_is_the_island(text: str, island: str) -> None:
    names, combine = met(text)
    assert (names[1], combine) == (island, "inclusion")


@pytest.mark.parametrize(
    ("combine", "join"), [(combine, join) for combine, joins in JOINS.items() for join in joins]
)
def test_every_joint_of_the_captions_is_read_back(combine: str, join: str) -> None:
    text = join.format(a="golden spider web", b="green leaf veins")
    assert met(text) == ([WEB, VEINS], combine)


def test_a_word_for_a_meeting_elsewhere_is_none() -> None:
    assert met("a spider web hung over a street, leaf veins below") == ([WEB, VEINS], "half")
    assert met("a spider web. Seen from above: leaf veins") == ([WEB, VEINS], "half")


@pytest.mark.parametrize("text", ["half this", "a web beside foam", "coral on top of a shell"])
def test_words_that_join_two_things_are_noticed(text: str) -> None:
    assert joined(text)
    assert not joined("a golden web with a fine spiral, seen in soft light")
    assert not joined("veins that run straight next to each other")


def test_where_the_words_do_not_say_the_order_of_the_words_stays() -> None:
    assert met("leaf veins and a spider web") == ([VEINS, WEB], "half")
