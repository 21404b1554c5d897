"""Structure seeds chosen from words, with the shipped reader."""

import pytest

from imagegen.captions import LIGHT_PHRASES
from imagegen.choose import choose_structure, dressed, nearest_families
from imagegen.meeting import APART
from imagegen.motifs import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_every_name_and_plain_description_finds_its_family(family: str) -> None:
    words = [*FAMILIES[family].names, *FAMILIES[family].plain]
    found = [choose_structure(w, 0).motifs[0].family for w in words]
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
    assert {m.family for m in choose_structure(prompt, 0).motifs} >= families


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
    assert {choose_structure(prompt, seed).combine for seed in range(3)} <= meetings


@pytest.mark.parametrize(
    "prompt",
    [
        "an orb web of spider silk: straight spokes meet at a hub, a fine spiral rides over them",
        "spongy bone, rounded struts branching around open pores, a sponge of smooth joined struts",
        "gyroid slice; curved walls form a labyrinth of repeating loops and swirls",
        "a regular net of six-sided cells with even walls, thin and light as a panel",
        "a feather vane with slanted ribs on both sides of its shaft, zipped by fine hooks",
        "leaf veins in a close net, no honeycomb and without spider webs",
        "a grass blade close up, its veins running straight next to each other, on cream paper",
    ],
)
def test_what_describes_the_first_motif_is_no_second_one(prompt: str) -> None:
    assert len(choose_structure(prompt, 0).motifs) == 1


@pytest.mark.parametrize(
    ("prompt", "families"),
    [
        ("half a round net of radial lines and spiral rings, half a grid of hexagons",
         {"orb_web", "honeycomb"}),
        ("a brick wall of thin plates beside a sponge of smooth joined struts",
         {"nacre_bricks", "trabecular_foam"}),
        ("branching coral grading into pufferfish skin", {"branching_coral", "turing_pattern"}),
        ("zebrafish stripes that slowly turn into a spiral of daisy florets",
         {"turing_pattern", "phyllotaxis"}),
        ("silk strands drawn across the top of a froth of closed bubbles",
         {"silk_bundle", "voronoi_foam"}),
        ("abalone brick and mortar fading into the helicoidal fibre arcs of a mantis shrimp club",
         {"nacre_bricks", "twisted_plywood"}),
        ("a house spider's tangle draped over a maize leaf whose veins run straight side by side",
         {"cobweb", "parallel_veins"}),
    ],
)  # fmt: skip
def test_two_motifs_are_read_whether_named_or_described(prompt: str, families: set[str]) -> None:
    assert {m.family for m in choose_structure(prompt, 0).motifs} == families


@pytest.mark.parametrize(
    ("prompt", "family"),
    [
        ("Lamp shade wound from aligned spun threads, amber, side by side and gently waving",
         "silk_bundle"),
        ("Rope hung in waves, cords abreast with a dark band across them at every step",
         "collagen_fibrils"),
        ("Threads run out from one hub and a fine spiral rides over them", "orb_web"),
        ("Taut lines strung anyhow between the corners, crossings as they come", "cobweb"),
        ("Chair back: struts meet, part again and leave round gaps, spongy throughout",
         "trabecular_foam"),
    ],
)  # fmt: skip
def test_a_motif_is_read_from_all_the_clauses_that_tell_of_it(prompt: str, family: str) -> None:
    assert [m.family for m in choose_structure(prompt, 0).motifs] == [family]


def test_what_shall_not_be_there_gives_no_colour() -> None:
    assert choose_structure("leaf veins on black, no gold, white", 0).look == ("white on black")


def test_a_longer_name_hides_the_shorter_one_within_it() -> None:
    structure = choose_structure("green parallel leaf veins", 0)
    assert [m.family for m in structure.motifs] == ["parallel_veins"]


def test_a_colour_alone_adds_no_motif() -> None:
    structure = choose_structure("graded wood cells in amber", 0)
    assert [m.family for m in structure.motifs] == ["wood_cells"]


@pytest.mark.parametrize(
    ("prompt", "families", "look"),
    [
        ("golden spider web over green leaf veins on black",
         ["orb_web", "leaf_veins"], "golden and green on black"),
        ("green leaf veins over golden spider web on black",
         ["leaf_veins", "orb_web"], "green and golden on black"),
        ("green leaf veins crossed by golden spider web on black",
         ["orb_web", "leaf_veins"], "golden and green on black"),
        ("an island of pearl nacre in a golden honeycomb on navy",
         ["honeycomb", "nacre_bricks"], "golden and pearl on navy"),
    ],
)  # fmt: skip
def test_each_of_two_motifs_has_its_place_and_its_colour(
    prompt: str, families: list[str], look: str
) -> None:
    structure = choose_structure(prompt, 0)
    assert [m.family for m in structure.motifs] == families
    assert structure.look == look
    assert dressed(structure, prompt) == structure


@pytest.mark.parametrize(
    ("prompt", "look"),
    [
        ("golden orb web on black", "golden on black"),
        ("orb web, gold threads, dark background", "golden on black"),
        ("white honeycomb on navy", "white on navy"),
        ("emerald leaf veins on a cream background", "green on cream"),
        ("silver gecko setae, deep navy behind them", "silver on navy"),
        ("amber silk fibres, side by side, over brown", "amber on brown"),
        ("a gold orb web in front of a jet black void.", "golden on black"),
        ("golden spider web over green leaf veins on black", "golden and green on black"),
    ],
)
def test_colours_in_the_words_become_the_look(prompt: str, look: str) -> None:
    assert choose_structure(prompt, 0).look == look


@pytest.mark.parametrize(
    ("light", "phrase"),
    [(light, phrase) for light in LIGHT_PHRASES for phrase in LIGHT_PHRASES[light]],
)
def test_every_phrase_of_the_captions_sets_its_light_and_nothing_else(light, phrase) -> None:
    plain = choose_structure("golden orb web on navy", 0)
    lit = choose_structure(f"golden orb web on navy, {phrase}", 0)
    assert (lit.light, lit.look) == (light, "golden on navy")
    assert [m.family for m in lit.motifs] == [m.family for m in plain.motifs]


@pytest.mark.parametrize(
    ("prompt", "light"),
    [
        ("golden orb web on black", "soft"),
        ("nacre bricks, deep matt green, no gloss", "soft"),
        ("a translucent silk film, soft studio light", "soft"),
        ("a thin translucent silk film", "backlit"),
        ("leaf veins against the light", "backlit"),
        ("honeycomb, low golden light from behind", "backlit"),
        ("Straight section of nacre bricks. Raking light, plain white surroundings.", "raking"),
        ("wood cells, low sun from the left", "raking"),
        ("honeycomb under an electron microscope", "electron"),
        ("SEM of diatom frustule", "electron"),
        ("a sponge of bone, wet and glossy, without long shadows", "glossy"),
    ],
)
def test_words_set_the_light_and_else_it_is_soft(prompt: str, light: str) -> None:
    assert choose_structure(prompt, 0).light == light


def test_words_for_light_are_not_taken_for_the_pattern_or_the_ground() -> None:
    even = choose_structure("golden honeycomb against the light, soft even light", 0)
    plain = choose_structure("golden honeycomb", 0)
    assert even.look == plain.look
    assert even.motifs[0].irregularity >= 0.2


def test_words_for_size_and_direction_set_the_numbers() -> None:
    fine = choose_structure("fine thin vertical silk fibre bundle", 0).motifs[0]
    coarse = choose_structure("coarse thick silk fibre bundle at 30 degrees", 0).motifs[0]
    assert fine.spacing < coarse.spacing
    assert fine.thickness < coarse.thickness
    assert (fine.direction_deg, coarse.direction_deg) == (90.0, 30.0)


@pytest.mark.parametrize("prompt", ["😀", "قفص", "a cat on a sofa", "...", "x" * 2000])
def test_any_text_gives_some_structure_and_the_same_one_twice(prompt: str) -> None:
    assert choose_structure(prompt, 3) == choose_structure(prompt, 3)


def test_a_named_motif_leaves_nothing_to_choose() -> None:
    assert list(nearest_families("a golden orb web on black")) == ["orb_web"]


def test_words_that_name_no_motif_leave_a_few_near_ones_to_choose() -> None:
    near = nearest_families("struts and rods of a spongy solid with open gaps")
    assert 2 <= len(near) <= 4
    assert near.items() <= {name: f.plain[0] for name, f in FAMILIES.items()}.items()
    nearest = choose_structure("struts and rods of a spongy solid with open gaps", 0)
    assert next(iter(near)) == nearest.motifs[0].family


def test_where_a_direction_is_wanted_only_motifs_that_show_one_are_near() -> None:
    near = nearest_families("struts and rods with open gaps", directed=True)
    assert near
    assert all(FAMILIES[name].directed for name in near)


def test_a_family_that_was_chosen_comes_first_and_takes_the_place_of_the_nearest() -> None:
    prompt = "struts and rods of a spongy solid with open gaps"
    chosen = choose_structure(prompt, 0, "gyroid")
    assert chosen.motifs[0].family == "gyroid"
    nearest = choose_structure(prompt, 0).motifs[0].family
    assert nearest not in {motif.family for motif in chosen.motifs[1:]} - {"gyroid"}


@pytest.mark.parametrize(
    ("prompt", "look"),
    [
        ("white collagen fibrils", "white on black"),  # its usual ground is white
        ("a cobweb on a white background", "grey on white"),  # and its usual colour too
        ("spongy bone in red", "red on black"),
        ("an orb web on a black background", "golden on black"),
    ],
)
def test_no_motif_is_lost_on_a_ground_of_its_own_colour(prompt: str, look: str) -> None:
    assert choose_structure(prompt, 0).look == look


@pytest.mark.parametrize("prompt", ["", " ", "electron micrograph", "soft even light, no colours"])
def test_words_that_leave_nothing_to_read_give_a_structure_all_the_same(prompt: str) -> None:
    assert len(choose_structure(prompt, 0).motifs) == 1
    assert nearest_families(prompt)


def test_other_words_change_colours_and_light_and_nothing_else() -> None:
    structure = choose_structure("golden orb web on black", 0)
    other = dressed(structure, "a silver orb web on navy, lit from behind")
    assert (other.look, other.light) == ("silver on navy", "backlit")
    assert other.motifs == structure.motifs
