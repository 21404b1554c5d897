"""Detail of a drawing that the autoencoder loses comes back where the rendering follows it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imagegen.detail import restored
from imagegen.scene import seed_picture
from orbweave.records import Motif, Structure

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
