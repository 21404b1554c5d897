"""Porous solids: foams, pierced shells, labyrinths."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from imagegen.canvas import Array, Canvas, Relief, cells, waves
from imagegen.motifs.family import HEXAGONAL, Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["POROUS"]


def _solid(field: Array, fraction: float, c: Canvas, rim: float) -> tuple[Array, Array]:
    """Cover and rounded relief of the part of a field above its (1 - fraction) quantile."""
    level = np.quantile(field[::4, ::4], 1 - fraction)
    gy, gx = np.gradient(field, np.float32(c.pixel))
    depth = (field - np.float32(level)) / (np.hypot(gx, gy) + np.float32(0.25 / rim))
    cover = np.clip(depth / np.float32(c.pixel) + 0.5, 0, 1)
    return cover, cover * np.sqrt(np.clip(0.1 + depth / np.float32(rim), 0, 1))


def trabecular_foam(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Rounded struts that branch and join around irregular open pores."""
    s = m.spacing
    x = c.x + waves(c.x, c.y, 1.7 * s, rng, 5) * np.float32(0.14 * s)
    y = c.y + waves(c.x, c.y, 1.7 * s, rng, 5) * np.float32(0.14 * s)
    pores = cells(x, y, s, 0.55 + 0.45 * m.irregularity, rng)
    # Blurring the distance rounds the pores; thickness is the solid fraction.
    depth = -gaussian_filter(pores.edge, 0.09 * s / c.pixel)
    depth = depth + waves(c.x, c.y, 1.3 * s, rng, 5) * np.float32(0.05 * s)
    depth = depth - np.float32(np.quantile(depth[::4, ::4], 1 - m.thickness))
    cover = np.clip(depth / np.float32(c.pixel) + 0.5, 0, 1)
    h = cover * np.sqrt(np.clip(0.08 + depth / np.float32(0.16 * s), 0, 1))
    return Relief(cover, h, 0.55 + 0.4 * h)


def diatom_pores(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A round shell pierced by rows of pores, ribs at the rim."""
    s = m.spacing
    radius = np.float32(c.extent * rng.uniform(0.4, 0.47))
    r, a = np.hypot(c.x, c.y), np.arctan2(c.y, c.x)
    along, across = c.turned(m.direction_deg)
    lattice = cells(along, across, s, 0.35 * m.irregularity, rng)
    hole = np.float32(0.5 * s * (1 - m.thickness))
    shrink = np.clip(1.15 - 0.5 * (r / radius) ** 2, 0.5, 1)
    edge = np.where(r < radius * 0.86, lattice.centre - hole * shrink, np.float32(9))
    ribs = np.sin(a * np.float32(round(2 * np.pi * float(radius) / (0.6 * s))))
    edge = np.where((r > 0.88 * radius) & (r < 0.97 * radius), (ribs + 0.3) * 3, edge)
    inside = np.clip((radius - r) / np.float32(c.pixel) + 0.5, 0, 1)
    cover = np.clip(edge / np.float32(c.pixel) + 0.5, 0, 1) * inside
    rim = np.clip(1 - np.abs(edge - 1.5) / np.float32(0.14 * s + 1), 0, 1)
    dome = np.sqrt(np.clip(1 - (r / radius) ** 2, 0, 1))
    height = cover * (0.35 + 0.3 * dome + 0.35 * rim)
    return Relief(cover, height, 0.45 + 0.3 * dome + 0.25 * rim)


def gyroid(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A slice through an endlessly repeating curved labyrinth wall.

    Source: level set sin x cos y + sin y cos z + sin z cos x, Schoen (1970).
    """
    along, across = c.turned(m.direction_deg)
    k = np.float32(2 * np.pi / (2.1 * m.spacing))
    tilt = np.float32(rng.uniform(0.0, 0.5) * (0.3 + m.irregularity))
    x, y = along * k, across * k
    z = x * tilt + np.float32(rng.uniform(0, 2 * np.pi))
    field = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    cover, h = _solid(-np.abs(field), float(np.clip(m.thickness, 0.2, 0.8)), c, 0.25 * m.spacing)
    return Relief(cover, h, 0.5 + 0.5 * h)


POROUS: dict[str, Family] = {
    "trabecular_foam": Family(
        trabecular_foam,
        (16, 44),
        (0.25, 0.6),
        False,
        ("trabecular bone", "spongy bone", "spinodal foam", "cancellous bone lattice"),
        (
            "rounded struts branching around open pores",
            "a sponge of smooth joined struts",
            "an irregular labyrinth with rounded holes",
        ),
        ("cream on red", "white on black", "grey on black"),
        Seen(period=1.3),  # the wavelength at which struts swell and thin
    ),
    "diatom_pores": Family(
        diatom_pores,
        (12, 30),
        (0.35, 0.65),
        False,
        ("diatom frustule", "diatom pore lattice", "diatom shell", "centric diatom"),
        (
            "a round disc pierced by rows of holes",
            "a circular plate with a lattice of pores and a ribbed rim",
            "a perforated disc with small round openings",
        ),
        ("teal on navy", "grey on black", "pearl on navy"),
        Seen(period=HEXAGONAL),  # the rim of the disc hides the repeat
    ),
    "gyroid": Family(
        gyroid,
        (16, 40),
        (0.3, 0.55),
        True,
        ("gyroid slice", "gyroid", "butterfly-wing gyroid", "minimal surface lattice"),
        (
            "curved walls forming a repeating labyrinth",
            "repeating wavy loops and swirls",
            "a regular pattern of curved bands",
        ),
        ("purple on black", "blue on black", "copper on black"),
        Seen(period=0.95, repeat=2.1, lines=(45, 135)),
    ),
}
