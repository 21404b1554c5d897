"""Overlays show what was measured, where it was measured."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imagegen.overlay import BLUE, OVERLAYS, directions, overlay_files, pores, skeleton

Y, X = np.mgrid[:96, :128]


def bars(period: int = 16) -> Any:
    return (Y % period < 6) * 1.0


def test_a_picture_has_its_three_overlays_as_png(tmp_path: Path) -> None:
    Image.fromarray((bars() * 255).astype(np.uint8)).save(tmp_path / "a.png")
    files = overlay_files(tmp_path / "a.png")
    assert list(files) == [f"a-{name}.png" for name in OVERLAYS]
    for content in files.values():
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (128 * 6, 96 * 6)


def test_strokes_run_along_the_lines() -> None:
    shown = directions(bars()).astype(int)
    coloured = np.ptp(shown, axis=2) > 60
    assert 0.01 < coloured.mean() < 0.3
    # Along horizontal bars a coloured pixel's neighbours are to its left and right.
    across, down = ((coloured & np.roll(coloured, 8, axis)).sum() for axis in (1, 0))
    assert across > 3 * down


def test_wide_pores_are_lighter_than_narrow_ones() -> None:
    void = (X % 64 >= 4) & (X % 64 < 10) | (X % 64 >= 20)
    shown = pores(~void * 1.0).mean(2)
    narrow, wide = shown[:, 7 * 6], shown[:, 42 * 6]
    assert wide.mean() > narrow.mean() + 40


def test_the_skeleton_lies_in_the_middle_of_the_bars() -> None:
    shown = skeleton(bars())
    rows = np.flatnonzero((shown == BLUE).all(2).any(1)) // 6
    assert set(rows % 16) <= {2, 3}


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_flat_and_tiny_pictures_have_overlays_too(value: float) -> None:
    for shape in ((5, 7), (40, 40)):
        for draw in (directions, pores, skeleton):
            assert draw(np.full(shape, value)).dtype == np.uint8
