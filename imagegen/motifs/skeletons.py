"""Mineral skeletons: urchin stereom, compact bone, glass sponge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from imagegen.canvas import Array, Canvas, Relief, ridge, waves
from imagegen.motifs.family import Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["SKELETONS"]

SMALL_PORE = 0.6
"""Radius of the small pores of stereom as a share of that of the large ones."""


def _pores(x: Array, y: Array, spacing: float, solid: float) -> Array:
    """Distance outside the nearest pore: large ones on a square lattice, small ones amid them."""
    cell = spacing * np.sqrt(2)
    s = np.float32(cell)
    large = np.float32(cell * np.sqrt((1 - solid) / (np.pi * (1 + SMALL_PORE**2))))
    u, v = x / s, y / s
    fu, fv = np.abs(u - np.round(u)), np.abs(v - np.round(v))
    to_large = np.hypot(fu, fv) * s - large
    to_small = np.hypot(np.float32(0.5) - fu, np.float32(0.5) - fv) * s - large * SMALL_PORE
    nearest: Array = np.minimum(to_large, to_small)
    return nearest


def sea_urchin_stereom(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A smooth, nearly periodic net with round pores of two sizes, a second net beneath.

    Spacing is the distance between neighbouring pores, a large and a small one; thickness is
    the solid fraction of the upper net.
    """
    x, y = c.turned(m.direction_deg)
    s = m.spacing
    sway = np.float32(0.14 * m.irregularity * s)
    x = x + waves(c.x, c.y, 4.5 * s, rng, 4) * sway + np.float32(rng.uniform(0, 2 * s))
    y = y + waves(c.x, c.y, 4.5 * s, rng, 4) * sway + np.float32(rng.uniform(0, 2 * s))
    edge = _pores(x, y, s, m.thickness)
    cover = np.clip(edge / np.float32(c.pixel) + 0.5, 0, 1)
    roof = 1 - np.clip(edge / np.float32(0.34 * s), 0, 1)
    h = cover * np.sqrt(np.clip(1 - roof**2, 0.04, 1))
    # The net beneath is half a cell aside, so its bars are seen through the large pores.
    deep = _pores(x + np.float32(0.7 * s), y + np.float32(0.14 * s), s, 0.9 * m.thickness)
    below = np.clip(deep / np.float32(c.pixel) + 0.5, 0, 1) * (1 - cover)
    shade = np.clip(-edge / np.float32(0.17 * s), 0, 1)
    tone = cover * (0.3 + 0.65 * h) + below * np.float32(0.1)
    return Relief(
        np.maximum(cover, np.float32(0.3) * below * shade), h + 0.12 * below * shade, tone
    )


class _Rings(NamedTuple):
    """Which osteon each pixel lies in, in the osteon's own coordinates; changed in place."""

    r: Array
    """Distance to the middle of the canal."""
    angle: Array
    rim: Array
    """Distance to the nearest boundary between two osteons."""
    level: Array
    """Lightness of the osteon."""


def _stamp(c: Canvas, rings: _Rings, pitch: float, radius: float, level: float, rng: Rng) -> None:
    """Lay osteons over the plane, one by one in random order, later ones over earlier ones."""
    n = int(c.extent / pitch / 2) + 2
    i, j = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1))
    x = (i + j % 2 / 2).ravel() * pitch + rng.uniform(-0.5, 0.5) * pitch
    y = j.ravel() * (pitch * np.sqrt(3) / 2) + rng.uniform(-0.5, 0.5) * pitch
    accidents = rng.uniform(-1, 1, (x.size, 6))
    for k in rng.permutation(x.size):
        u, v, size, phase, oval, tone = accidents[k]
        reach = radius * (1 + 0.12 * size)
        px, py = x[k] + 0.12 * pitch * u, y[k] + 0.12 * pitch * v
        columns = slice(*np.searchsorted(c.x[0], (px - 1.2 * reach, px + 1.2 * reach)))
        rows = slice(*np.searchsorted(-c.y[:, 0], (-py - 1.2 * reach, -py + 1.2 * reach)))
        dx, dy = c.x[rows, columns] - np.float32(px), c.y[rows, columns] - np.float32(py)
        if not dx.size:
            continue
        angle = np.arctan2(dy, dx)
        swell = np.float32(0.1 * oval) * np.cos(2 * angle + np.float32(3 * phase))
        r = np.hypot(dx, dy) * (1 + swell)
        rim = np.float32(reach) - r
        inside = rim > 0
        np.minimum(rings.rim[rows, columns], -rim, out=rings.rim[rows, columns], where=~inside)
        new = (r, angle, rim, np.full_like(r, level + 0.08 * tone))
        for whole, part in zip(rings, new, strict=True):
            np.copyto(whole[rows, columns], part, where=inside)


def osteons(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Rings of bone lamellae round canals, packed, with small hollows between the rings.

    Spacing is that of the lamellae; an osteon is about ten of them wide.
    """
    s = m.spacing
    rings = _Rings(*(np.zeros_like(c.x) for _ in range(4)))
    # What young osteons leave between them are the remains of older, larger ones.
    _stamp(c, rings, 12 * s, 9.5 * s, 0.35, rng)
    _stamp(c, rings, (9.6 + 1.2 * m.irregularity) * s, 4.8 * s, 0.7, rng)
    canal = np.float32(s)
    u = (rings.r - canal) / np.float32(s)
    ring = np.round(u)
    edge = np.abs(u - ring) * np.float32(s) - np.float32(0.5 * s * (1 - m.thickness))
    # Lacunae: spindles along the boundaries between lamellae, turned from ring to ring.
    n = np.maximum(np.round(rings.r * np.float32(2 * np.pi / (3.2 * s))), 3)
    turn = rings.angle * np.float32(0.5 / np.pi) * n + ring * np.float32(0.381)
    aside = (turn - np.round(turn)) / n * np.float32(2 * np.pi) * rings.r
    lacuna = np.hypot(aside / np.float32(0.7 * s), (u - ring) / np.float32(0.3))
    edge = np.minimum(edge, (lacuna - 1) * np.float32(0.3 * s))
    edge = np.minimum(edge, rings.rim - np.float32(0.11 * s))
    edge = np.minimum(edge, rings.r - canal)
    cover = np.clip(edge / np.float32(c.pixel) + 0.5, 0, 1)
    h = cover * np.sqrt(np.clip(0.15 + edge / np.float32(0.35 * s), 0, 1))
    lamella = np.floor(u) % 2
    return Relief(cover, h, rings.level + np.float32(0.24) * (lamella - np.float32(0.5)))


def _bars(u: Array, spacing: float, half_width: float, c: Canvas) -> tuple[Array, Array]:
    """Cover and round profile of parallel bars at every whole number of u."""
    return ridge(np.abs(u - np.round(u)) * np.float32(spacing), half_width, c.pixel)


def glass_sponge_lattice(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A square grid of struts, stiffened by pairs of diagonals that leave every second cell open.

    Source: Fernandes et al., Nature Materials 20 (2021), the lattice of Euplectella.
    """
    along, across = c.turned(m.direction_deg)
    s = m.spacing
    sway = np.float32(0.1 * m.irregularity)
    x = along / np.float32(s) + waves(c.x, c.y, 4 * s, rng, 4) * sway + np.float32(rng.uniform())
    y = across / np.float32(s) + waves(c.x, c.y, 4 * s, rng, 4) * sway + np.float32(rng.uniform())
    hw = 0.5 * m.thickness * s
    a, ha = _bars(x, s, hw, c)
    b, hb = _bars(y, s, hw, c)
    cover, height = np.maximum(a, b), np.maximum(ha, 0.85 * hb)
    tone = np.where(ha > hb, np.float32(0.95), np.float32(0.8)) * cover
    shift = np.float32(0.5 / (2 + np.sqrt(2)))
    for way, level in (((x - y) / 2, 0.62), ((x + y + 1) / 2, 0.5)):
        for aside in (-shift, shift):
            d, hd = _bars(way + aside, np.sqrt(2) * s, max(0.6 * hw, 0.9), c)
            higher = level * hd > height
            tone = np.where(higher & (d > 0.5), np.float32(level), tone)
            cover, height = np.maximum(cover, d), np.maximum(height, np.float32(level) * hd)
    return Relief(cover, height, tone)


SKELETONS: dict[str, Family] = {
    "sea_urchin_stereom": Family(
        sea_urchin_stereom,
        (16, 32),
        (0.42, 0.66),
        True,
        (
            "sea-urchin stereom",
            "echinoderm stereom",
            "urchin spine stereom",
            "sea-urchin skeleton mesh",
        ),
        (
            "a smooth net with round pores of two sizes",
            "large and small round windows in even rows",
            "a rounded perforated lattice, layer above layer",
        ),
        ("cream on black", "purple on black", "pearl on navy"),
        Seen(repeat=2**0.5),
    ),
    "osteons": Family(
        osteons,
        (7, 11),
        (0.66, 0.84),
        False,
        ("osteons", "compact bone osteons", "Haversian systems", "cortical bone lamellae"),
        (
            "packed rings of lamellae, each round a dark canal",
            "targets of concentric rings with small dark dashes between them",
            "round growth rings side by side, each with a hole in the middle",
        ),
        ("cream on red", "amber on brown", "cream on brown"),
        Seen(),
    ),
    "glass_sponge_lattice": Family(
        glass_sponge_lattice,
        (26, 52),
        (0.1, 0.22),
        True,
        (
            "glass-sponge lattice",
            "Euplectella lattice",
            "Venus flower basket skeleton",
            "glass sponge spicule grid",
        ),
        (
            "a square grid with crossed diagonals in every second cell",
            "a checkerboard of open and braced square windows",
            "straight struts crossed by pairs of diagonals",
        ),
        ("white on black", "silver on navy", "teal on navy"),
        Seen(period=0.5, repeat=2**0.5, lines=(0, 90)),  # diagonals halve it
    ),
}
