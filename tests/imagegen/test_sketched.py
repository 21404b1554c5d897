"""Pictures from words alone: each starts from a sketch of its own, and says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents.embedding import MiniLM
from imagegen.motifs import FAMILIES
from imagegen.pipeline import Renderer
from imagegen.png import read_note
from imagegen.prompt_embedding import embedding
from imagegen.sketch import SketchConfig, build_network, save_sketcher
from imagegen.start import read_picture
from orbweave.records import Motif, Picture, RenderRequest, Structure

pytestmark = pytest.mark.slow

STRUCTURE = Structure(motifs=(Motif(family="honeycomb"),), look="golden on black")


@pytest.fixture(scope="module")
def renderer(tiny_weights: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """The tiny model with a tiny network that sketches beside it."""
    weights = tmp_path_factory.mktemp("with-sketch") / "weights"
    shutil.copytree(tiny_weights, weights)
    torch.manual_seed(1)
    config = SketchConfig(side_px=24, patch_px=4, widths=(16, 32), families=tuple(FAMILIES))
    save_sketcher(build_network(config), config, weights)
    return Renderer(weights=weights, cache=cache)


def request(**changes: Any) -> RenderRequest:
    small = {"prompt": "golden spider web, black background", "width": 64, "height": 64}
    small |= {"steps": 3, "seeds": (7,), "strength": 0.6}
    return RenderRequest.model_validate(small | changes)


def geometries(made: list[Picture]) -> list[str]:
    return [read_note(Path(picture.path)).geometry for picture in made]


def test_each_seed_has_a_sketch_of_its_own_and_says_so(renderer: Renderer, tmp_path: Path) -> None:
    made = renderer.render(request(seeds=(7, 8)), tmp_path)
    for picture, told in zip(made, geometries(made), strict=True):
        assert told.startswith(
            f"sketched from the words: orb_web, golden on black, seed {picture.seed}, network "
        )
        assert read_note(Path(picture.path)).strength == 0.6
    first, second = (read_picture(Path(picture.path), 64, 64) for picture in made)
    assert not np.array_equal(first, second)


def test_picture_two_of_two_can_be_made_alone(renderer: Renderer, tmp_path: Path) -> None:
    both = renderer.render(request(seeds=(7, 8)), tmp_path / "both")
    alone = renderer.render(request(seeds=(8,)), tmp_path / "alone")
    assert both[1].sha256 != both[0].sha256
    pixels = (read_picture(Path(picture.path), 64, 64) for picture in (both[1], *alone))
    assert np.array_equal(*pixels)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"structure": STRUCTURE}, "structure seed: honeycomb"),
        ({"control_scale": 0.0}, "text alone"),
        ({"tile": True}, "text alone"),
        ({"steps": 1}, "text alone"),  # none of which would be left for the sketch
    ],
    ids=["structure", "not held", "tile", "one step"],
)
def test_no_sketch_where_none_is_wanted(
    renderer: Renderer, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    made = renderer.render(request(**changes), tmp_path)
    assert geometries(made)[0].startswith(told)


def test_a_model_without_the_network_draws_from_text_alone(
    tiny_weights: Path, cache: Path, tmp_path: Path
) -> None:
    made = Renderer(weights=tiny_weights, cache=cache).render(request(), tmp_path)
    assert geometries(made) == ["text alone"]


def test_words_are_read_by_the_models_own_encoder_as_by_the_teams(renderer: Renderer) -> None:
    texts = ["an orb web", "two hundred words " * 30, ""]
    renderer._load(request(), ())
    ours = embedding(renderer._loaded.pipe)(texts)  # type: ignore[union-attr]
    assert ours.shape == (3, 384)
    assert np.allclose((ours * MiniLM()(texts)).sum(1), 1, atol=0.02)
