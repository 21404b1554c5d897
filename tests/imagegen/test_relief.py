"""Bodies from pictures: closed, as large as said, and fitting their own copies."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import trimesh

from imagegen.relief import (
    Body,
    cut_out,
    height_map,
    is_seamless,
    stl_bytes,
    without_corners,
)
from orbweave.errors import UsageError

SIZE = {"width_mm": 30.0, "depth_mm": 2.0, "plate_mm": 1.0}
AREA_MM2 = 30 * 20


def tile(periods: float = 2.0) -> Any:
    y, x = np.mgrid[:40, :60]
    return 0.5 + 0.3 * np.sin(2 * np.pi * periods * x / 60) + 0.2 * np.cos(2 * np.pi * y / 40)


def loaded(body: Body) -> Any:
    """The body as another program reads it back from its file."""
    return trimesh.load(io.BytesIO(stl_bytes(body)), file_type="stl")


def test_a_height_map_is_watertight_and_as_large_as_asked() -> None:
    mesh = loaded(height_map(tile(), **SIZE, seamless=True))
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.bounds[0] == pytest.approx([0, 0, 0])
    assert mesh.bounds[1, :2] == pytest.approx([30, 20])
    assert mesh.bounds[1, 2] == pytest.approx(1 + 2 * tile().max(), abs=0.02)


@pytest.mark.parametrize("seamless", [True, False])
def test_the_volume_of_a_height_map_is_that_of_its_pixels(seamless: bool) -> None:
    wanted = AREA_MM2 * (1 + 2 * tile().mean())
    mesh = loaded(height_map(tile(), **SIZE, seamless=seamless))
    assert mesh.volume == pytest.approx(wanted, rel=1e-4)


def test_white_stands_above_black_where_it_does_in_the_picture() -> None:
    luma = np.zeros((20, 30))
    luma[:5, :5] = 1  # the upper left corner: small x, large y
    top = height_map(luma, **SIZE, seamless=False).vertices
    highest = top[top[:, 2] > 2.9]
    assert highest[:, 0].max() < 5.1 and highest[:, 1].min() > 14.9


def test_opposite_edges_of_a_seamless_tile_have_equal_heights() -> None:
    top = height_map(tile(), **SIZE, seamless=True).vertices[: 41 * 61].reshape(41, 61, 3)
    assert top[:, 0, 2] == pytest.approx(top[:, -1, 2])
    assert top[0, :, 2] == pytest.approx(top[-1, :, 2])
    open_edge = height_map(tile(1.8), **SIZE, seamless=False).vertices[: 41 * 61]
    heights = open_edge.reshape(41, 61, 3)[..., 2]
    assert np.abs(heights[:, 0] - heights[:, -1]).max() > 0.1


def test_a_seamless_picture_is_told_from_another() -> None:
    assert is_seamless(tile())
    assert not is_seamless(tile(1.8))
    assert is_seamless(np.zeros((9, 9)))


@pytest.mark.parametrize("plate_mm", [0.0, 1.0])
def test_a_cut_out_is_watertight_and_has_exactly_its_volume(plate_mm: float) -> None:
    noise = np.random.default_rng(0).uniform(size=(40, 60)) < 0.45
    solid = without_corners(noise)
    body = cut_out(solid, width_mm=30, depth_mm=2, plate_mm=plate_mm)
    mesh = loaded(body)
    assert mesh.is_watertight and mesh.is_winding_consistent
    wanted = AREA_MM2 * (plate_mm + 2 * solid.mean())
    assert mesh.volume == pytest.approx(wanted, rel=1e-5)
    assert body.volume_mm3 == pytest.approx(wanted)


def test_without_a_plate_the_void_goes_through() -> None:
    ring = np.ones((30, 30), bool)
    ring[10:20, 10:20] = False
    pierced = loaded(cut_out(ring, width_mm=30, depth_mm=2, plate_mm=0))
    plated = loaded(cut_out(ring, width_mm=30, depth_mm=2, plate_mm=1))
    assert (pierced.euler_number, plated.euler_number) == (0, 2)  # a torus, a ball


def test_corner_contacts_are_filled_and_no_more() -> None:
    solid = np.zeros((6, 6), bool)
    solid[2, 2] = solid[3, 3] = True
    filled = without_corners(solid)
    assert filled.sum() == 3 and (filled & solid).sum() == 2
    assert not without_corners(np.eye(2, dtype=bool)[::-1]).all()
    square = np.zeros((6, 6), bool)
    square[1:4, 1:4] = True
    assert (without_corners(square) == square).all()


def test_bad_sizes_and_empty_pictures_are_refused_in_words() -> None:
    for wrong in (
        {"width_mm": 0},
        {"depth_mm": -1},
        {"plate_mm": float("nan")},
        {"width_mm": 1e300},
    ):
        with pytest.raises(UsageError, match="greater than 0"):
            height_map(tile(), **(SIZE | wrong), seamless=False)
    with pytest.raises(UsageError, match="solid in it"):
        cut_out(np.zeros((9, 9), bool), **SIZE)
    with pytest.raises(UsageError, match="corner contacts"):
        cut_out(np.eye(9, dtype=bool), **SIZE)
    with pytest.raises(UsageError, match="at most 1024 pixels"):
        height_map(np.zeros((2, 2000)), **SIZE, seamless=False)
