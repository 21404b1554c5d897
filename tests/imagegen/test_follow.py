"""The score of a picture against what was asked, on verdicts written by hand and real words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.embedding import MiniLM
from imagegen.classifier import Classifier, ClassifierConfig, Network, Verdict
from imagegen.follow import Asked, asked_by_prompt, asked_by_structure, follow, judged, ranked
from imagegen.measure import measure
from imagegen.scene import seed_picture
from orbweave.errors import UsageError
from orbweave.records import Motif, Structure, Targets

EMBED = MiniLM()
WEB = Asked(families=("orb_web",), materials=("golden",), ground="black")


def verdict(families: dict[str, float], material: str, ground: str, sure: float) -> Verdict:
    rest = 1 - sure
    return Verdict(
        {"orb_web": 0.01, "cobweb": 0.01, "honeycomb": 0.01} | families,
        {"golden": rest / 2, "blue": rest / 2, "red": rest / 2} | {material: sure},
        {"black": rest, "white": rest} | {ground: sure},
    )


def test_the_score_of_a_single_motif_is_worked_by_hand() -> None:
    found = judged("a.png", WEB, verdict({"orb_web": 0.9}, "golden", "black", 0.64), None)
    assert found.motifs == pytest.approx(0.9)
    assert found.colours == pytest.approx(0.64)
    assert found.numbers is None
    # Motifs count twice.
    assert found.score == pytest.approx((0.9 * 0.9 * 0.64) ** (1 / 3))


def test_of_two_motifs_both_must_be_there_and_share_the_colours() -> None:
    asked = Asked(families=("orb_web", "honeycomb"), materials=("golden", "blue"), ground="black")
    seen = Verdict(
        {"orb_web": 0.9, "honeycomb": 0.4, "cobweb": 0.01},
        {"golden": 0.6, "blue": 0.4, "red": 0.0},
        {"black": 1.0, "white": 0.0},
    )
    found = judged("a.png", asked, seen, None)
    assert found.motifs == pytest.approx(0.6)
    assert found.colours == pytest.approx(0.8**0.25)  # 1.2 counts as 1


def test_the_right_motif_in_wrong_colours_beats_the_wrong_motif_in_right_ones() -> None:
    right = judged("right", WEB, verdict({"orb_web": 0.9}, "golden", "black", 0.9), None)
    colours = judged("colours", WEB, verdict({"orb_web": 0.9}, "blue", "white", 0.9), None)
    motif = judged("motif", WEB, verdict({"honeycomb": 0.9}, "golden", "black", 0.9), None)
    neither = judged("neither", WEB, verdict({"honeycomb": 0.9}, "blue", "white", 0.9), None)
    order = [each.picture for each in ranked([neither, motif, colours, right])]
    assert order == ["right", "colours", "motif", "neither"]
    assert 0 < neither.score < right.score <= 1


def test_the_explanation_says_what_was_asked_and_what_stands_there_instead() -> None:
    seen = verdict({"cobweb": 0.8, "orb_web": 0.12}, "golden", "black", 0.97)
    line = judged("a.png", WEB, seen, None).explanation
    assert line == (
        "asked: spider orb web, golden on black; seen: spider orb web .12, cobweb tangle .80, "
        "golden .97 on black .97"
    )


def test_words_ask_for_the_motifs_they_name_and_only_for_colours_they_name() -> None:
    asked = asked_by_prompt("a silver orb web beside a honeycomb on navy")
    assert set(asked.families) == {"orb_web", "honeycomb"}
    assert (asked.materials, asked.ground) == (("silver",), "navy")
    assert asked.targets == Targets()
    bare = asked_by_prompt("an orb web")
    assert (bare.families, bare.materials, bare.ground) == (("orb_web",), (), None)
    half = asked_by_prompt("a red honeycomb")
    assert (half.materials, half.ground) == (("red",), None)
    two = asked_by_prompt("a golden spider web over green leaf veins on black")
    assert set(two.materials) == {"golden", "green"}


def test_no_colour_asked_for_is_no_part_of_the_score() -> None:
    asked = Asked(families=("orb_web",))
    for material in ("golden", "blue"):
        found = judged("a", asked, verdict({"orb_web": 0.7}, material, "white", 0.9), None)
        assert found.colours is None and found.score == pytest.approx(0.7)
        assert "any colour" not in found.explanation


STRIPES = Structure(
    motifs=(Motif(family="silk_bundle", spacing=24, thickness=0.5, direction_deg=30),),
    look="golden on black",
    seed=3,
)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    Image.fromarray(seed_picture(STRIPES, 256)).save(tmp_path / "drawn.png")
    return tmp_path / "drawn.png"


def test_numbers_of_the_same_drawing_agree_and_those_of_a_turned_one_do_not(drawn: Path) -> None:
    sure = verdict({"silk_bundle": 1.0}, "golden", "black", 1.0)
    turned = STRIPES.model_copy(
        update={"motifs": (STRIPES.motifs[0].model_copy(update={"direction_deg": 90.0}),)}
    )
    own, other = (
        judged("a", asked_by_structure(s, (256, 256)), sure, measure(drawn))
        for s in (STRIPES, turned)
    )
    assert own.asked.targets.direction_deg == pytest.approx(30, abs=3)
    assert own.numbers is not None and other.numbers is not None
    assert own.numbers > 0.9  # bare it is a little more solid than in its light
    assert other.numbers < own.numbers - 0.2
    assert other.score < own.score
    assert re.search("direction 30° for (89|90|91)°", other.explanation)


def test_a_number_that_is_off_by_its_tolerance_counts_half(drawn: Path) -> None:
    measured = measure(drawn)
    asked = WEB.model_copy(
        update={"targets": Targets(solid_fraction=measured.solid_fraction - 0.05)}
    )
    found = judged("a", asked, verdict({}, "golden", "black", 1.0), measured)
    assert found.numbers == pytest.approx(0.5)
    no_period = measured.model_copy(update={"spacing_px": None})
    asked = WEB.model_copy(update={"targets": Targets(spacing_px=20)})
    found = judged("a", asked, verdict({}, "golden", "black", 1.0), no_period)
    assert found.numbers == 0 and "spacing none for 20.0 px" in found.explanation


def test_a_file_of_any_size_is_judged_and_no_picture_is_refused(tmp_path: Path) -> None:
    config = ClassifierConfig(side_px=32, widths=(4, 4, 4, 4))
    classifier = Classifier(Network(config), config)
    noise = np.random.default_rng(0).integers(0, 256, (40, 90), np.uint8)
    Image.fromarray(noise).save(tmp_path / "grey.png")
    found = follow(tmp_path / "grey.png", WEB, classifier)
    assert found.picture.endswith("grey.png") and 0 <= found.score <= 1
    assert type(found).model_validate_json(found.model_dump_json()) == found
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="wanted a picture file"):
        follow(tmp_path / "bad.png", WEB, classifier)
