"""Captions: true to the structure, in a line or in the agents' sentences."""

import numpy as np
import pytest

from imagegen.captions import LIGHT_PHRASES, MAX_WORDS, describe, random_caption
from imagegen.motifs import FAMILIES
from imagegen.scene import random_structure
from orbweave.records import LIGHTS, Motif, Structure

WEB, COMB = Motif(family="orb_web", thickness=0.15), Motif(family="honeycomb", thickness=0.2)


def samples(n: int) -> list[tuple[Structure, str]]:
    rng = np.random.default_rng(0)
    structures = [random_structure(rng) for _ in range(n)]
    return [(s, random_caption(s, rng)) for s in structures]


def said(caption: str, light: str) -> bool:
    return any(phrase in caption.lower() for phrase in map(str.lower, LIGHT_PHRASES[light]))


def in_sentences(caption: str) -> bool:
    return caption.endswith(".")


def test_captions_name_every_motif_and_every_colour() -> None:
    for structure, caption in samples(300):
        words = caption.lower()
        for motif in structure.motifs:
            f = FAMILIES[motif.family]
            plain = [p.removeprefix("a ").removeprefix("an ") for p in f.plain]
            assert any(name.lower() in words for name in [*f.names, *plain]), caption
        for colour in structure.look.replace(" on ", " and ").split(" and "):
            assert colour in words
        assert caption == " ".join(caption.split())


def test_six_in_ten_captions_name_the_light_and_none_names_another() -> None:
    named = []
    for structure, caption in samples(1500):
        named.append(said(caption, structure.light))
        others = [light for light in LIGHTS if light != structure.light and said(caption, light)]
        assert not others, caption
    assert np.mean(named) == pytest.approx(0.6, abs=0.04)


def test_every_light_is_said_in_several_ways() -> None:
    assert set(LIGHT_PHRASES) == set(LIGHTS)
    assert all(len(set(phrases)) >= 5 for phrases in LIGHT_PHRASES.values())


def test_a_quarter_are_sentences_of_at_most_sixty_words() -> None:
    captions = [caption for _, caption in samples(1500)]
    sentences = [c for c in captions if in_sentences(c)]
    assert len(sentences) / len(captions) == pytest.approx(0.25, abs=0.03)
    assert max(len(c.split()) for c in sentences) <= MAX_WORDS
    assert all(s[0].isupper() for c in sentences for s in c.split(". "))
    assert np.mean([c.count(". ") for c in sentences]) > 2


def test_sentences_name_a_quality_only_where_it_is_there() -> None:
    rng = np.random.default_rng(1)
    fine = Motif(
        family="silk_bundle", spacing=9, thickness=0.9, direction_deg=90, irregularity=0.05
    )
    captions = [random_caption(Structure(motifs=(fine,)), rng).lower() for _ in range(400)]
    text = " ".join(captions)
    assert "the pattern is fine" in text
    assert "its direction is vertical" in text
    assert not {"coarse", "thin", "irregular", "horizontal", "diagonal"} & set(
        text.replace(",", " ").replace(".", " ").split()
    )


def test_the_same_generator_gives_the_same_caption() -> None:
    structure = Structure(motifs=(WEB, COMB), combine="half", look="golden and white on black")
    first, again = (random_caption(structure, np.random.default_rng(7)) for _ in "ab")
    assert first == again


def test_a_description_names_motifs_their_meeting_and_the_look() -> None:
    structure = Structure(motifs=(WEB, COMB), combine="overlay", look="golden and white on black")
    assert describe(structure) == "spider orb web lying over honeycomb, golden and white on black"


def test_a_description_names_a_light_that_is_not_soft() -> None:
    structure = Structure(motifs=(WEB,), light="electron")
    assert describe(structure) == ("spider orb web, golden on black, scanning electron micrograph")
