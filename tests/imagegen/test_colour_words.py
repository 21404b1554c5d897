"""Colours are read off the words, whichever way these are put."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from imagegen.captions import random_caption
from imagegen.colour_words import CALLED, Colours, read_colours
from imagegen.looks import GROUNDS, MATERIALS
from imagegen.scene import random_structure

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def names(colours: Colours) -> tuple[list[str], str | None]:
    return [name for name, _ in colours.materials], colours.ground


@pytest.mark.parametrize(
    ("text", "materials", "ground"),
    [
        ("a web in gold on black", ["golden"], "black"),
        ("lime green honeycomb on a grey background", ["lime"], "grey"),
        ("grey setae on a black background", ["grey"], "black"),
        ("silver threads over midnight blue", ["silver"], "navy"),
        ("rose pink fibres against a deep forest green backdrop", ["pink"], "dark green"),
        ("white foam, scarlet red background", ["white"], "red"),
        ("coral with ivory behind", [], "cream"),
        ("pearl tablets with navy joints", ["pearl"], "navy"),
        ("amber walls; the gaps between are navy", ["amber"], "navy"),
        ("white-on-teal swirls", ["white"], "teal"),
        ("pores blue on white", ["blue"], "white"),
        ("one colour only, pink, and the ground should be navy", ["pink"], "navy"),
        ("green lines, cream paper", ["green"], "cream"),
        ("background: black, golden lines", ["golden"], "black"),
        ("everything solid is teal, the ground brown", ["teal"], "brown"),
        ("green veins, dark background", ["green"], "black"),
        ("golden-angle florets of cream", ["cream"], None),
        ("gold and silver threads", ["golden", "silver"], None),
        ("copper struts, then sky blue", ["copper"], "navy"),
        ("a golden web", ["golden"], None),
        ("a leaf", [], None),
        ("", [], None),
    ],
)
def test_words_give_colours_to_motif_and_ground(
    text: str, materials: list[str], ground: str | None
) -> None:
    assert names(read_colours(text)) == (materials, ground)


def test_what_lies_below_keeps_its_own_colour() -> None:
    text = "a golden web over white leaf veins, black background"
    assert names(read_colours(text, 2)) == (["golden", "white"], "black")
    assert names(read_colours("a golden web over green leaf veins", 2)) == (
        ["golden", "green"], None,
    )  # fmt: skip


def test_of_more_colours_than_motifs_the_last_is_the_grounds() -> None:
    text = "the honeycomb is white, the feather coppery, and all else grass green"
    assert names(read_colours(text, 2)) == (["white", "copper"], "green")
    assert read_colours(text, 3).ground is None


def test_every_way_to_call_a_colour_stands_for_one_that_can_be_drawn() -> None:
    for material, ground, words in CALLED:
        assert material in MATERIALS and ground in GROUNDS
        for word in words.split():
            assert read_colours(f"a {word.replace('-', ' ')} web").materials[0][0] == material


def test_captions_are_read_as_they_were_made() -> None:
    rng = np.random.default_rng(9)
    for _ in range(300):
        structure = random_structure(rng)
        materials, _, ground = structure.look.partition(" on ")
        asked = set(materials.split(" and "))
        caption = random_caption(structure, rng).lower()
        found = read_colours(caption, len(structure.motifs))
        assert found.ground in {ground, None}, caption
        assert {name for name, _ in found.materials} in (asked, set()), caption


def test_sentences_of_many_forms_are_read() -> None:
    rows = [json.loads(line) for line in (BENCHMARKS / "colours.jsonl").read_text().splitlines()]
    wrong = [
        row["text"]
        for row in rows
        if names(read_colours(row["text"].lower(), row["motifs"]))
        != (row["material"], row["ground"])
    ]
    assert len(rows) == 120
    assert len(wrong) <= 3, wrong
