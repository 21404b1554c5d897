"""What the form may ask for."""

from __future__ import annotations

import pytest

from orbweave.errors import ConceptError, UsageError
from ui.studio.order import Wish, models, teams

from .conftest import EVIL, wish


def test_a_wish_becomes_the_row_of_a_batch():
    row = wish(
        scale="urban", rounds=3, images=4, seed=9, steps=12, guidance=5.0, size="128x64",
        solid_fraction=0.4,
    ).row()  # fmt: skip
    assert (row.brief.scale, row.brief.seed, row.brief.targets.solid_fraction) == ("urban", 9, 0.4)
    assert (row.rounds, row.images, row.team, row.model) == (3, 4, "default", None)
    assert (row.render.width, row.render.height, row.render.steps) == (128, 64, 12)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"images": 99}, "wanted a number of pictures"),
        ({"rounds": 0}, "wanted a rounds"),
        ({"seed": -1}, "wanted a seed"),
        ({"seed": 2**32 - 1}, "choose a smaller seed"),
        ({"seed": None}, "wanted a seed, the field is empty"),
        ({"steps": 10**9}, "wanted a steps"),
        ({"scale": "galaxy"}, "wanted a scale"),
        ({"domains": ("stone",)}, "wanted a domains"),
        ({"team": "/etc/passwd"}, "wanted a team of default"),
        ({"model": "/home/somebody/model"}, "wanted a language model of base"),
        ({"image_model": "org/name"}, "wanted a image model of loom"),
        ({"structure": "/etc/passwd"}, "wanted a geometry of auto, none"),
        ({"size": "4096"}, "wanted at most 1024 pixels a side, got 4096"),
        ({"size": "100"}, "wanted a width"),
        ({"size": "big"}, "wanted a size as 256 or 512x384, got 'big'"),
        ({"direction_deg": 300.0}, "wanted a direction in degrees"),
        (
            {"spacing_px": "wide"},
            "spacing in pixels that can be used, got 'wide': input should be a valid number$",
        ),
        ({"concept": "x" * 5_000_000}, "wanted a concept"),
        ({"colour": "red"}, "wanted a colour"),
    ],
)
def test_what_is_not_on_offer_is_refused_in_words(fields, said):
    with pytest.raises(UsageError, match=said):
        wish(**fields).row()


@pytest.mark.parametrize("concept", ["", "  ", "?!", "a\x1b[31mb", "x" * 2_001])
def test_a_concept_that_is_none_is_refused(concept):
    with pytest.raises(ConceptError):
        wish(concept=concept).row()


def test_markup_in_a_concept_is_just_a_concept():
    assert wish(concept=EVIL).row().brief.concept == EVIL


def test_wanted_measures_are_typed_or_left_out():
    targets = wish(solid_fraction=" 0.4 ", direction_deg="", spacing_px="12").row().brief.targets
    assert (targets.solid_fraction, targets.direction_deg, targets.spacing_px) == (0.4, None, 12.0)
    with pytest.raises(UsageError, match="wanted a spacing in pixels"):
        wish(spacing_px="wide")


def test_the_defaults_of_the_form_can_be_made():
    assert Wish(concept="silk").row().render.model in models("image")
    assert teams()[0] == "default"
