"""Pictures from words alone: each starts from a sketch of its own, and says so."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imagegen.motifs import FAMILIES
from imagegen.pipeline import Renderer
from imagegen.png import read_note
from imagegen.sketch import STEPS, SketchConfig, build_network, save_sketcher
from imagegen.start import read_picture
from orbweave.errors import Cancelled
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


def test_a_model_without_the_network_says_so_once(
    tiny_weights: Path, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renderer = Renderer(weights=tiny_weights, cache=cache)
    for changes in ({"structure": STRUCTURE}, {"control_scale": 0.0}, {"tile": True}, {"steps": 1}):
        renderer.render(request(**changes), tmp_path, force=True)  # type: ignore[arg-type]
    assert "sketch" not in caplog.text
    for _ in range(2):
        renderer.render(request(), tmp_path, force=True)
    said = [record.getMessage() for record in caplog.records if "sketch" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"no sketch.json in {tiny_weights}: words alone are drawn from noise")
    assert "put sketch.json and sketch.safetensors there, or install Orbweave again" in said[0]


@pytest.mark.parametrize("asks", [2, STEPS, STEPS + 5])
def test_cancelling_stops_within_a_step_of_the_first_or_second_sketch(
    renderer: Renderer, tmp_path: Path, asks: int
) -> None:
    asked, denoised = itertools.count(1), []
    with pytest.raises(Cancelled, match="no picture was kept"):
        renderer.render(
            request(seeds=(7, 8)),
            tmp_path / "out",
            on_step=lambda i, _: denoised.append(i),
            cancelled=lambda: next(asked) >= asks,
        )
    assert next(asked) == asks + 1 and denoised == [] and not (tmp_path / "out").exists()
    # And the renderer is as good as new.
    assert renderer.render(request(), tmp_path / "next")
