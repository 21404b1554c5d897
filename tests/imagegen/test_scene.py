"""Scenes: motifs composed, painted flat or lit."""

import numpy as np
import pytest

from imagegen.captions import describe, random_caption
from imagegen.looks import GROUNDS, LOOKS, MATERIALS, parse_look
from imagegen.motifs import FAMILIES
from imagegen.scene import lit_picture, random_structure, seed_picture
from orbweave.errors import UsageError
from orbweave.records import COMBINATIONS, Motif, Structure

WEB, COMB = Motif(family="orb_web", thickness=0.15), Motif(family="honeycomb", thickness=0.2)


def test_a_seed_picture_repeats_and_another_seed_differs() -> None:
    first, again = (seed_picture(Structure(motifs=(WEB,), look=LOOKS[0], seed=4), 96) for _ in "ab")
    other = seed_picture(Structure(motifs=(WEB,), look=LOOKS[0], seed=5), 96)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_structure_scales_with_the_picture() -> None:
    structure = Structure(motifs=(COMB,), look=LOOKS[0], seed=1)
    small, large = seed_picture(structure, 128), seed_picture(structure, 256)
    shrunk = large.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 12


@pytest.mark.parametrize("combine", COMBINATIONS[1:])
def test_both_materials_show_in_a_combination(combine) -> None:
    structure = Structure(motifs=(WEB, COMB), combine=combine, look="red and blue on black", seed=2)
    picture = seed_picture(structure, 128).astype(int)
    red, blue = (picture[..., i] - picture[..., 2 - i] > 60 for i in (0, 2))
    assert red.mean() > 0.02
    assert blue.mean() > 0.02


def test_the_lit_picture_keeps_the_geometry_and_adds_light() -> None:
    structure = Structure(motifs=(COMB,), look="white on black", seed=1)
    flat = seed_picture(structure, 128).mean(2)
    lit = lit_picture(structure, 128, 256.0).mean(2)
    assert np.corrcoef(flat.ravel(), lit.ravel())[0, 1] > 0.8
    assert len(np.unique(lit[flat > 200].round())) > 2 * len(np.unique(flat[flat > 200].round()))


def test_every_look_names_colours_that_exist() -> None:
    named = {look for f in FAMILIES.values() for look in f.looks} | set(LOOKS)
    assert all(parse_look(look).name == look for look in named)
    assert len(MATERIALS) * len(GROUNDS) >= 8


@pytest.mark.parametrize("look", ["", "golden", "golden on", "plaid on black", "red on mars"])
def test_an_unknown_look_is_refused_with_the_choices(look: str) -> None:
    with pytest.raises(UsageError, match=r"wanted a look .* materials: golden"):
        parse_look(look)


def test_random_structures_are_valid_and_captions_name_the_colours() -> None:
    rng = np.random.default_rng(0)
    structures = [random_structure(rng) for _ in range(200)]
    assert {m.family for s in structures for m in s.motifs} == set(FAMILIES)
    assert {s.combine for s in structures} == set(COMBINATIONS)
    for structure in structures:
        caption = random_caption(structure, rng)
        assert structure.look.split(" ")[0] in caption
        assert caption == " ".join(caption.split())


def test_a_description_names_motifs_their_meeting_and_the_look() -> None:
    structure = Structure(motifs=(WEB, COMB), combine="overlay", look="golden and white on black")
    assert describe(structure) == "spider orb web lying over honeycomb, golden and white on black"
