"""A picture as a solid body: a height map, or its two phases cut upright, as watertight STL.

Lengths are millimetres. STL holds no unit; slicers take millimetres. x runs to the right, y
upwards in the picture, z towards the viewer; the body stands on z = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.luma import Luma
from imagegen.phases import Mask
from orbweave.errors import UsageError

__all__ = ["Body", "cut_out", "height_map", "is_seamless", "stl_bytes", "without_corners"]

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]

MAX_SIDE_PX = 1024
"""Larger pictures would give STL files of more than 200 MB."""
SIZE_MM = (1e-6, 1e6)
"""Lengths a body may have, a nanometre to a kilometre; STL's 32-bit floats hold not much more."""


class Body(NamedTuple):
    """A closed triangle mesh."""

    vertices: Vertices
    """Shape (n, 3), millimetres."""
    faces: Faces
    """Shape (m, 3), anticlockwise seen from outside."""

    @property
    def volume_mm3(self) -> float:
        """Enclosed volume: the sum of the tetrahedra from the origin to each triangle."""
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        return float((a * np.cross(b, c)).sum() / 6)


def height_map(
    luma: Luma, *, width_mm: float, depth_mm: float, plate_mm: float, seamless: bool
) -> Body:
    """Return a plate whose upper side rises with the luma, by `depth_mm` from black to white.

    A corner between pixels has the mean height of the pixels that meet there; so the volume is
    that of the pixels: area x (plate + depth x mean luma), exactly if seamless.

    Args:
        luma: Shape (H, W), in [0, 1].
        width_mm: Left to right; the height of the tile follows from the picture's shape.
        depth_mm: Height of white above black.
        plate_mm: Thickness below black, greater than 0: the body must hang together.
        seamless: The picture goes on at its opposite edge, so that opposite edges have equal
            heights and tiles fit together.

    Raises:
        UsageError: a size that is not positive, or a picture too large.
    """
    _check(luma.shape, width_mm=width_mm, depth_mm=depth_mm, plate_mm=plate_mm)
    padded = np.pad(luma, 1, mode="wrap" if seamless else "edge")
    corners = (padded[:-1, :-1] + padded[:-1, 1:] + padded[1:, :-1] + padded[1:, 1:]) / 4
    h, w = luma.shape
    pixel = width_mm / w
    x, y = np.meshgrid(np.arange(w + 1) * pixel, (h - np.arange(h + 1)) * pixel)
    top = np.stack([x, y, plate_mm + depth_mm * corners], -1).reshape(-1, 3)
    bottom = top * [1, 1, 0]
    number = np.arange((h + 1) * (w + 1)).reshape(h + 1, w + 1)
    upper = _quads(number[1:, :-1], number[1:, 1:], number[:-1, 1:], number[:-1, :-1])
    rim = np.concatenate(
        [number[-1, :-1], number[:0:-1, -1], number[0, :0:-1], number[:-1, 0]]
    )  # anticlockwise from the lower left
    n, after = number.size, np.roll(rim, -1)
    sides = _quads(rim + n, after + n, after, rim)
    return Body(np.concatenate([top, bottom]), np.concatenate([upper, upper[:, ::-1] + n, sides]))


def cut_out(solid: Mask, *, width_mm: float, depth_mm: float, plate_mm: float) -> Body:
    """Return the solid phase as upright walls on a plate, or pierced if `plate_mm` is 0.

    Volume: area x (plate + depth x solid fraction), exactly. Pixels that touch at a corner
    only would share an edge and leave the mesh ambiguous; see `without_corners`.

    Args:
        solid: Shape (H, W), without corner contacts.
        width_mm: Left to right; the height of the tile follows from the picture's shape.
        depth_mm: Height of the walls above the plate.
        plate_mm: Thickness of the plate, 0 for none.

    Raises:
        UsageError: a size out of range, no solid at all, or corner contacts.
    """
    _check(solid.shape, width_mm=width_mm, depth_mm=depth_mm, plate_mm=plate_mm or 1.0)
    if not solid.any():
        raise UsageError("wanted a picture with solid in it, got none; choose another --solid")
    if _corner_contacts(solid, wrap=False).any():
        raise UsageError("wanted solid without corner contacts, got some; use without_corners")
    h, w = solid.shape
    layers = [solid] if plate_mm == 0 else [np.ones_like(solid), solid]
    z = np.cumsum([0.0, depth_mm] if plate_mm == 0 else [0.0, plate_mm, depth_mm])
    full = np.pad(np.stack(layers), 1)  # (layers + 2, h + 2, w + 2), empty outside
    number = np.arange(len(z) * (h + 1) * (w + 1)).reshape(len(z), h + 1, w + 1)
    faces = [_skin(full, number, axis, side) for axis in range(3) for side in (-1, 1)]
    used, renumbered = np.unique(np.concatenate(faces), return_inverse=True)
    level, row, column = np.unravel_index(used, number.shape)
    pixel = width_mm / w
    vertices = np.stack([column * pixel, (h - row) * pixel, z[level]], -1)
    return Body(vertices, renumbered.reshape(-1, 3))


def _skin(full: Mask, number: Faces, axis: int, side: int) -> Faces:
    """The faces of filled boxes towards empty ones along one axis."""
    inner = full[1:-1, 1:-1, 1:-1]
    beyond = np.roll(full, -side, axis)[1:-1, 1:-1, 1:-1]
    at = np.array(np.nonzero(inner & ~beyond))
    at[axis] += side > 0
    others = [k for k in range(3) if k != axis]
    corners = []
    for first, second in ((0, 0), (1, 0), (1, 1), (0, 1)):
        place = at.copy()
        place[others[0]] += first
        place[others[1]] += second
        corners.append(number[tuple(place)])
    # Rows run downwards, which mirrors the box; one side of each axis turns the other way.
    turned = (side > 0) ^ (axis == 1)
    return _quads(*(corners if turned else corners[::-1]))


def _quads(a: Faces, b: Faces, c: Faces, d: Faces) -> Faces:
    """Two triangles for each square with corners a, b, c, d, anticlockwise from outside."""
    a, b, c, d = a.ravel(), b.ravel(), c.ravel(), d.ravel()
    return np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)])


def without_corners(solid: Mask, *, seamless: bool = False) -> Mask:
    """Return the solid with a pixel added wherever two parts touch at a corner only.

    Args:
        solid: Not changed.
        seamless: Corners are looked for across opposite edges too.
    """
    filled = solid.copy()
    while (contacts := _corner_contacts(filled, wrap=seamless)).any():
        filled |= contacts
    return filled


def _corner_contacts(solid: Mask, *, wrap: bool) -> Mask:
    """One void pixel of each 2 x 2 block whose solid lies on a diagonal only: the upper one."""
    padded = np.pad(solid, ((0, 1), (0, 1)), mode="wrap" if wrap else "edge")
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    found = np.zeros_like(padded)
    found[:-1, :-1] |= ~a & b & c & ~d
    found[:-1, 1:] |= a & ~b & ~c & d
    contacts = found[:-1, :-1].copy()
    if wrap:
        contacts[:, 0] |= found[:-1, -1]
    return contacts


def is_seamless(luma: Luma) -> bool:
    """Whether a picture goes on at its opposite edges: no larger a step there than inside.

    The mean step across the seam is at most 1.2 times that between neighbouring rows or columns
    where it is large, in the last twentieth of them (chosen by us).
    """
    for axis in (0, 1):
        inside = np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis)
        across = float(np.abs(luma.take(0, axis) - luma.take(-1, axis)).mean())
        if inside.size and across > 1.2 * float(np.quantile(inside, 0.95)) + 1e-6:
            return False
    return True


def stl_bytes(body: Body) -> bytes:
    """Return a body as binary STL."""
    import trimesh

    mesh = trimesh.Trimesh(body.vertices, body.faces, process=False)
    content = mesh.export(file_type="stl")
    assert isinstance(content, bytes)  # what trimesh gives for binary STL
    return content


def _check(shape: tuple[int, ...], **lengths_mm: float) -> None:
    for name, value in lengths_mm.items():
        if not SIZE_MM[0] <= value <= SIZE_MM[1]:  # false for NaN too
            raise UsageError(
                f"wanted {name} in millimetres and greater than 0, "
                f"from {SIZE_MM[0]:g} to {SIZE_MM[1]:g}, got {value}"
            )
    if max(shape) > MAX_SIDE_PX:
        raise UsageError(
            f"wanted a picture of at most {MAX_SIDE_PX} pixels a side, got "
            f"{shape[1]} x {shape[0]}; make it coarser"
        )
