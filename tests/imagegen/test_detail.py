"""Detail and colours of a drawing come back where the rendering follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from imagegen import Renderer
from imagegen.detail import recoloured, restored
from imagegen.looks import LUMA
from imagegen.scene import seed_picture
from orbweave.records import Motif, RenderRequest, Structure

SIDE = 128
WEB = Structure(motifs=(Motif(family="orb_web", spacing=12, thickness=0.12),), seed=3)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return seed_picture(WEB, SIDE)


@pytest.fixture(scope="module")
def seen(drawn: np.ndarray) -> np.ndarray:
    """As through an autoencoder that loses what is finer than a few pixels."""
    return gaussian_filter(drawn.astype(np.float32) / 255, (1.5, 1.5, 0))


def as_bytes(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def far(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_a_rendering_of_what_the_autoencoder_shows_becomes_nearly_the_drawing(drawn, seen) -> None:
    before, after = as_bytes(seen), restored(as_bytes(seen), drawn, seen)
    assert far(after, drawn) < 0.45 * far(before, drawn)


def test_a_rendering_in_other_light_gets_lines_in_that_light(drawn, seen) -> None:
    dim = 0.5 * seen + 0.2
    after = restored(as_bytes(dim), drawn, seen)
    assert far(after, 0.5 * drawn + 0.2 * 255) < 0.4 * far(as_bytes(dim), 0.5 * drawn + 0.2 * 255)


def test_a_picture_that_does_not_follow_the_drawing_stays(drawn, seen) -> None:
    other = as_bytes(gaussian_filter(np.random.default_rng(0).random((SIDE, SIDE, 3)), (4, 4, 0)))
    flat = np.full_like(other, 120)
    assert far(restored(flat, drawn, seen), flat) == 0
    assert far(restored(other, drawn, seen), other) < 0.1 * far(as_bytes(seen), drawn)


def test_nothing_is_added_where_nothing_was_lost(drawn) -> None:
    lit = as_bytes(0.8 * drawn / 255 + 0.1)
    assert np.array_equal(restored(lit, drawn, drawn.astype(np.float32) / 255), lit)


def test_hatching_that_the_autoencoder_wiped_out_comes_back() -> None:
    hatched = np.zeros((SIDE, SIDE, 3), np.uint8)
    hatched[:, : SIDE // 2 : 2] = 255  # stripes of one pixel on the left
    hatched[32:96, 80:112] = 255  # and a block on the right that tells how it is followed
    seen = gaussian_filter(hatched.astype(np.float32) / 255, (2, 2, 0))
    left = (slice(16, -16), slice(16, 48))
    assert seen[left].std() < 0.01
    assert restored(as_bytes(seen), hatched, seen)[left].std() > 0.7 * hatched[left].std()


def shifted(drawn: np.ndarray) -> np.ndarray:
    """In soft light, and dyed as a poor denoiser dyes: less red, more green."""
    shade = np.linspace(0.7, 1, SIDE, dtype=np.float32)[:, None, None]
    return as_bytes(drawn / 255 * shade * np.float32([0.8, 1.1, 1]))


def brightness(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float) @ LUMA


def test_colours_come_back_and_the_light_stays(drawn) -> None:
    before = shifted(drawn)
    after = recoloured(before, drawn)
    lit = np.linspace(0.7, 1, SIDE)[:, None, None] * drawn
    assert far(after, lit) < 0.25 * far(before, lit)
    assert np.abs(brightness(after) - brightness(before)).max() < 1.5


def test_what_is_brighter_than_the_drawing_keeps_its_white_light(drawn) -> None:
    bright = as_bytes(0.7 * drawn / 255 + 0.3)
    after = recoloured(bright, drawn)
    assert np.abs(brightness(after) - brightness(bright)).max() < 1.5
    line = drawn[..., 0] > 200  # golden threads: more red than blue, and no more so than drawn
    assert (after[line, 0] - after[line, 2].astype(int)).mean() <= (
        drawn[line, 0] - drawn[line, 2].astype(int)
    ).mean() + 1


def test_another_picture_does_not_take_on_the_drawings_colours(drawn) -> None:
    grey = np.random.default_rng(1).random((SIDE, SIDE, 1)) @ np.ones((1, 3))
    other = as_bytes(gaussian_filter(grey, (4, 4, 0)))
    assert far(recoloured(other, drawn), other) < 0.1 * far(shifted(drawn), drawn)


def test_the_shipped_model_draws_green_on_cream_in_soft_light_as_green(tmp_path: Path) -> None:
    veins = Structure(
        motifs=(Motif(family="parallel_veins", spacing=19, thickness=0.12, direction_deg=0),),
        look="green on cream",
        seed=7,
    )
    drawn = seed_picture(veins, 256)
    off = {}
    for light in ("soft", "raking"):
        structure = veins.model_copy(update={"light": light})
        asked = RenderRequest(prompt="parallel veins, green on cream", structure=structure)
        (picture,) = Renderer().render(asked, tmp_path / light)
        off[light] = far(colour(np.asarray(Image.open(picture.path).convert("RGB"))), colour(drawn))
    assert off["soft"] < 5
    assert off["soft"] < 0.5 * off["raking"]


def colour(pixels: np.ndarray) -> np.ndarray:
    return pixels - brightness(pixels)[..., None]
