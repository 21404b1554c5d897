"""The plane motifs are drawn on: coordinates, smooth noise, cells, and relief profiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = [
    "Array",
    "Canvas",
    "Cells",
    "Relief",
    "blur",
    "canvas",
    "cells",
    "moved",
    "ridge",
    "strands",
    "waves",
]

Array = NDArray[np.floating[Any]]
"""float32 by intent; numpy's own rules decide when a float64 slips in."""


class Canvas(NamedTuple):
    """Pixel coordinates, origin in the middle, y upwards, in pixels of a 256-pixel picture."""

    x: Array
    """Shape (size, size)."""
    y: Array
    """Shape (size, size)."""
    extent: float
    """Width of the plane in the same unit."""
    pixel: float
    """Size of one drawn pixel in the same unit; the width of the anti-aliasing."""

    def turned(self, direction_deg: float) -> tuple[Array, Array]:
        """Coordinates (along, across) an axis turned anticlockwise from horizontal."""
        a = np.deg2rad(direction_deg)
        c, s = np.float32(np.cos(a)), np.float32(np.sin(a))
        return self.x * c + self.y * s, self.y * c - self.x * s


class Relief(NamedTuple):
    """A drawn structure, each array of shape (size, size) with values in [0, 1]."""

    cover: Array
    """1 where there is material, 0 where there is none, between them anti-aliased."""
    height: Array
    """Relief of the material; 0 is the ground."""
    tone: Array
    """Lightness of the single elements (a strand, a cell, a band)."""


class Cells(NamedTuple):
    """Nearest point of a jittered lattice for every pixel."""

    edge: Array
    """Distance to the nearest boundary between two cells."""
    centre: Array
    """Distance to the cell's own point."""
    tone: Array
    """One random number in [0, 1] per cell."""
    dx: Array
    dy: Array


def canvas(size_px: int, extent: float | None = None) -> Canvas:
    """Return a square canvas of `size_px` pixels that spans `extent` units (default: 256)."""
    extent = 256.0 if extent is None else extent
    axis = ((np.arange(size_px, dtype=np.float32) + 0.5) / size_px - 0.5) * np.float32(extent)
    x, y = np.meshgrid(axis, -axis)
    return Canvas(x, y, extent, extent / size_px)


def _coarse(n: int, factor: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Blocks of a row of n pixels: the two nearest to each pixel, and the share of the second."""
    at = np.maximum((np.arange(n, dtype=np.float32) + 0.5) / factor - 0.5, 0)
    first = at.astype(np.int64)
    return first, np.minimum(first + 1, -(-n // factor) - 1), (at - first).astype(np.float32)


def blur(a: Array, sigma_px: float) -> Array:
    """Gaussian blur of a square (size, size); a wide one on a coarser grid, for speed."""
    factor = int(np.clip(sigma_px / 1.4, 1, 8))
    if factor == 1:
        return np.asarray(gaussian_filter(a, sigma_px, mode="nearest", truncate=2.5))
    n = len(a)
    whole = np.pad(a, (0, -n % factor), mode="edge")
    blocks = whole.reshape(len(whole) // factor, factor, -1, factor).mean((1, 3))
    # Block means and the straight lines between them blur as well: about 0.5 blocks.
    sigma = np.sqrt((sigma_px / factor) ** 2 - 0.25)
    blocks = gaussian_filter(blocks, sigma, mode="nearest", truncate=3)
    i, j, share = _coarse(n, factor)
    rows = blocks[i] + (blocks[j] - blocks[i]) * share[:, None]
    left: Array = rows[:, i]
    return left + (rows[:, j] - left) * share


def moved(a: Array, right: float, down: float) -> Array:
    """A square picture moved by whole pixels (rounded); its border is drawn out."""
    n = np.arange(len(a))
    rows = np.clip(n - round(down), 0, len(a) - 1)
    columns = np.clip(n - round(right), 0, len(a) - 1)
    return a[rows][:, columns]


def waves(x: Array, y: Array, wavelength: float, rng: np.random.Generator, n: int = 5) -> Array:
    """Smooth random field of about unit variance: n plane waves of one wavelength.

    Source: Gaussian random field of a single wavenumber, as Cahn (1965) for spinodals.
    """
    k = np.float32(2 * np.pi / wavelength)
    field = np.zeros_like(x)
    turn = rng.uniform(0, np.pi)
    for i in range(n):
        a = turn + (i + rng.uniform(0.1, 0.9)) * np.pi / n
        phase = np.float32(rng.uniform(0, 2 * np.pi))
        field += np.cos(x * (k * np.float32(np.cos(a))) + y * (k * np.float32(np.sin(a))) + phase)
    return field * np.float32(np.sqrt(2.0 / n))


def ridge(
    distance: Array, half_width: Array | float | np.floating[Any], pixel: float
) -> tuple[Array, Array]:
    """Anti-aliased cover and round profile of a line, from the distance to its middle."""
    hw = np.maximum(np.asarray(half_width, np.float32), np.float32(0.55 * pixel))
    cover = np.clip((hw - distance) / np.float32(pixel) + 0.5, 0, 1)
    profile = np.sqrt(np.clip(1 - (distance / (hw + np.float32(0.5 * pixel))) ** 2, 0, 1))
    return cover, profile * cover


def strands(
    across: Array, spacing: float, irregularity: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Array, Array]:
    """Cut the plane into strands: (index, distance to the strand's middle, its width)."""
    reach = float(np.abs(across).max()) + 2 * spacing
    n = int(2 * reach / spacing) + 3
    edges = (np.arange(n) - n / 2 + rng.uniform()) * spacing
    edges = (edges + rng.uniform(-0.38, 0.38, n) * irregularity * spacing).astype(np.float32)
    index = np.clip(np.searchsorted(edges, across), 1, n - 1)
    middle, width = (edges[index] + edges[index - 1]) / 2, edges[index] - edges[index - 1]
    return index, np.abs(across - middle), width


def cells(
    x: Array, y: Array, spacing: float, irregularity: float, rng: np.random.Generator
) -> Cells:
    """Voronoi cells of a jittered triangular lattice; irregularity 0 gives regular hexagons."""
    row_height = np.float32(spacing * np.sqrt(3) / 2)
    n = int((float(max(np.abs(x).max(), np.abs(y).max())) * 2) / float(row_height)) + 8
    row0 = np.floor(y / row_height).astype(np.int32)
    jitter = rng.uniform(-0.5, 0.5, (n, n, 2)).astype(np.float32) * np.float32(
        0.95 * irregularity * spacing
    )
    tones = rng.uniform(0, 1, (n, n)).astype(np.float32)
    shift = np.float32(rng.uniform(0, spacing))
    best = np.full(x.shape, np.inf, np.float32)
    second = np.full(x.shape, np.inf, np.float32)
    bx, by, bt = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    sx, sy = np.zeros_like(x), np.zeros_like(x)
    for dr in (-1, 0, 1, 2):
        row = row0 + dr
        offset = np.where(row % 2 == 0, np.float32(0), np.float32(spacing / 2)) + shift
        col0 = np.floor((x - offset) / np.float32(spacing)).astype(np.int32)
        for dc in (-1, 0, 1, 2) if irregularity > 0.3 else (0, 1):
            col = col0 + dc
            i, j = row % n, col % n
            px = col * np.float32(spacing) + offset + jitter[i, j, 0] - x
            py = row * row_height + jitter[i, j, 1] - y
            d = px * px + py * py
            nearer, next_nearer = d < best, d < second
            sx = np.where(nearer, bx, np.where(next_nearer, px, sx))
            sy = np.where(nearer, by, np.where(next_nearer, py, sy))
            second = np.where(nearer, best, np.where(next_nearer, d, second))
            bx, by = np.where(nearer, px, bx), np.where(nearer, py, by)
            bt = np.where(nearer, tones[i, j], bt)
            best = np.where(nearer, d, best)
    # Distance to the bisector of the two nearest points.
    gap = np.sqrt((sx - bx) ** 2 + (sy - by) ** 2) + np.float32(1e-3)
    edge = (second - best) / (2 * gap)
    return Cells(edge, np.sqrt(best), bt, bx, by)
