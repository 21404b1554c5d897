"""What a picture cannot show: small models' sentences, and sound ones that come near to them."""

from __future__ import annotations

import pytest

from agents.roles import load_team
from agents.seeing import (
    colours_of,
    is_hollow,
    is_too_small,
    name_of,
    names_colour,
    says_thing,
    thing_of,
)
from orbweave.records import SCALES, Scale


@pytest.mark.parametrize(
    "sentence",
    [
        "Behind it stands a flat wheel of pale threads, about twice as wide as wide.",
        "Two rounded openings, each about ten times wider than wide, grow outward.",
        "Each hole is bigger than big.",
        "The slit is about ten times larger than it is large.",
        "Two parallel channels, each half as wide as the other is long.",
        "A round bundle is seen at half its size in front of a pale sleeve.",
        "Cross section of a helmet liner seen from above at half its width.",
    ],
)
def test_a_thing_compared_with_itself_is_hollow(sentence: str) -> None:
    assert is_hollow(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "The panel is twice as wide as it is tall.",
        "Each tile is wider than the last and half as thick as its neighbour.",
        "A hole half its diameter deep opens in the rim.",
        "The wide end is wider than the narrow one.",
        "Each thread crosses the other at a right angle.",
        "A tall slim tower, seen from a drone at half its height.",
        "A grain of pollen shown at ten times its size.",
    ],
)
def test_a_comparison_with_something_else_is_not(sentence: str) -> None:
    assert not is_hollow(sentence)


@pytest.mark.parametrize(
    ("sentence", "scale", "expected"),
    [
        ("The gap between them is only a few nanometres wide.", "microstructure", True),
        ("Fibrils banded every 67nm.", "microstructure", True),
        ("Even light, frame a few hundred nanometres wide.", "microstructure", False),
        ("Pores of 30 micrometres.", "microstructure", False),
        ("Pores of 30 micrometres.", "component", True),
        ("Threads 3 mm apart.", "component", False),
        ("Threads 3 mm apart.", "architecture", True),
        ("Ribs 3 m apart.", "urban", False),
    ],
)
def test_a_size_below_what_the_scale_shows_is_too_small(
    sentence: str, scale: Scale, expected: bool
) -> None:
    assert is_too_small(sentence, scale) is expected


@pytest.mark.parametrize("scale", SCALES)
def test_every_colour_of_the_palette_is_one_that_is_known(scale: Scale) -> None:
    assert all(names_colour(colours) for colours in load_team().palette.colours[scale])


def test_light_and_shade_are_no_colours() -> None:
    assert not names_colour("Soft light from above, dark gaps, bright edges.")


@pytest.mark.parametrize(
    ("concept", "colours"),
    [
        ("A wall panel of coral, red on navy, 20 cm wide", "red on navy"),
        ("A teal honeycomb on a cream background", "A teal honeycomb on a cream background"),
        ("A lamp - amber ribs; a pearl core, light", "amber ribs, a pearl core"),
        ("A filter, green at 300 MPa", ""),  # nobody sees the number
        ("A net, as light as it can be", ""),
        ("A green roof " + "and a walk " * 6, ""),  # 21 words
        ("", ""),
    ],
)
def test_what_a_concept_says_of_its_colours(concept: str, colours: str) -> None:
    assert colours_of(concept) == colours


@pytest.mark.parametrize(
    ("concept", "thing"),
    [
        ("A damage-tolerant fibre shown at the scale of its strands", "A damage-tolerant fibre"),
        ("A light sandwich core of honeycomb cells for a boat", "A light sandwich core of "
         "honeycomb cells"),
        ("A gripper pad for a robot", "A gripper pad"),
        ("Bundle of fluid channels inside a sleeve", "Bundle of fluid channels"),
        ("Design a bridge that floats", "a bridge"),
        ('"A living\nwall", quoted', "A living wall"),
        ("3.5 mm mesh for fog", "3.5 mm mesh"),
        ("panel " * 9 + "and the " + "panel " * 30, ("panel " * 9).strip()),
        ("Eine Brücke aus Spinnenseide, leicht", "Eine Brücke aus Spinnenseide"),
        ("«Мост» из паутины", "Мост из паутины"),
        (", that", "that"),
        ("!!", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_head_of_a_concept_is_the_thing(concept: str, thing: str) -> None:
    assert thing_of(concept) == thing


@pytest.mark.parametrize(
    ("concept", "name"),
    [
        ("Design a gripper pad for a robot.", "a gripper pad for a robot"),
        ('A "living"\n wall', "A living wall"),
        ("panel of reeds, " + "and more " * 9, "panel of reeds"),  # 21 words
        ("panel of reeds, " + "and more " * 8 + "reeds", "panel of reeds, " + "and more " * 8
         + "reeds"),
        ("A reed wall. It should let light in.", "A reed wall"),  # two sentences
        ("A reed wall with 40 MPa of strength", "A reed wall"),  # no picture shows it
        ("", ""),
    ],
)  # fmt: skip
def test_a_concept_is_a_name_unless_it_is_long_or_tells_what_no_picture_shows(
    concept: str, name: str
) -> None:
    assert name_of(concept) == name


@pytest.mark.parametrize(
    ("prompt", "thing", "is_said"),
    [
        ("A pale implant in a bent knee.", "A knee implant surface", True),
        ("Two pale blocks with a fine surface.", "A knee implant surface", False),
        ("Rows of honeycomb cells.", "A sandwich core of honeycomb cells", False),
        ("Pale pads on a robot's gripper.", "A gripper pad for a robot that picks fruit", False),
        ("Gripper pads that pick fruit.", "A gripper pad for a robot that picks fruit", True),
        ("A bandage with two bands.", "A bandage", True),
        ("A strip with two bands.", "A bandage", False),
        ("Мост, pale.", "мост", True),
        ("A bridge.", "мост", False),
    ],
)
def test_a_thing_is_said_by_its_head_and_two_thirds_of_its_words(
    prompt: str, thing: str, is_said: bool
) -> None:
    assert says_thing(prompt, thing) is is_said
