"""Structure seeds chosen from words, with the real sentence model."""

import pytest

from agents.embedding import MiniLM
from imagegen.choose import APART, choose_structure
from imagegen.motifs import FAMILIES

EMBED = MiniLM()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_and_plain_description_finds_its_family(family: str) -> None:
    words = [*FAMILIES[family].names, *FAMILIES[family].plain]
    found = [choose_structure(w, 0, EMBED).motifs[0].family for w in words]
    assert found.count(family) >= len(words) - 1, dict(zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("prompt", "families"),
    [
        ("golden spider web over green leaf veins", {"orb_web", "leaf_veins"}),
        ("a filter membrane of spider silk and leaf veins", {"silk_bundle", "leaf_veins"}),
        ("honeycomb cells embedded in nacre bricks", {"honeycomb", "nacre_bricks"}),
        ("tablets stacked like mother of pearl", {"nacre_bricks"}),
    ],
)
def test_motifs_a_prompt_names_are_all_chosen(prompt: str, families: set[str]) -> None:
    assert {m.family for m in choose_structure(prompt, 0, EMBED).motifs} >= families


@pytest.mark.parametrize(
    ("prompt", "meetings"),
    [
        ("spider web over leaf veins", {"overlay"}),
        ("spider web embedded in leaf veins", {"inclusion"}),
        ("half spider web, half leaf veins", {"half"}),
        ("spider web grading into leaf veins", {"graded"}),
        ("spider web and leaf veins", {"half", "inclusion", "graded"}),
        ("a membrane over water with a spider web, leaf veins beside it", set(APART)),
        ("spider web, leaf veins, and no line crosses over another", set(APART)),
    ],
)
def test_words_say_how_two_motifs_meet(prompt: str, meetings: set[str]) -> None:
    assert {choose_structure(prompt, seed, EMBED).combine for seed in range(3)} <= meetings


def test_a_longer_name_hides_the_shorter_one_within_it() -> None:
    structure = choose_structure("green parallel leaf veins", 0, EMBED)
    assert [m.family for m in structure.motifs] == ["parallel_veins"]


def test_a_colour_alone_adds_no_motif() -> None:
    structure = choose_structure("graded wood cells in amber", 0, EMBED)
    assert [m.family for m in structure.motifs] == ["wood_cells"]


@pytest.mark.parametrize(
    ("prompt", "look"),
    [("golden spider web over green leaf veins on black", "golden and green on black")],
)
def test_two_motifs_may_have_two_colours(prompt: str, look: str) -> None:
    assert choose_structure(prompt, 0, EMBED).look == look


@pytest.mark.parametrize(
    ("prompt", "look"),
    [
        ("golden orb web on black", "golden on black"),
        ("orb web, gold threads, dark background", "golden on black"),
        ("white honeycomb on navy", "white on navy"),
        ("emerald leaf veins on a cream background", "green on cream"),
    ],
)
def test_colours_in_the_words_become_the_look(prompt: str, look: str) -> None:
    assert choose_structure(prompt, 0, EMBED).look == look


def test_words_for_size_and_direction_set_the_numbers() -> None:
    fine = choose_structure("fine thin vertical silk fibre bundle", 0, EMBED).motifs[0]
    coarse = choose_structure("coarse thick silk fibre bundle at 30 degrees", 0, EMBED).motifs[0]
    assert fine.spacing < coarse.spacing
    assert fine.thickness < coarse.thickness
    assert (fine.direction_deg, coarse.direction_deg) == (90.0, 30.0)


@pytest.mark.parametrize("prompt", ["😀", "قفص", "a cat on a sofa", "...", "x" * 2000])
def test_any_text_gives_some_structure_and_the_same_one_twice(prompt: str) -> None:
    assert choose_structure(prompt, 3, EMBED) == choose_structure(prompt, 3, EMBED)
