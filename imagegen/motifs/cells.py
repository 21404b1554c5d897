"""Cells and their walls: skins, combs, wood."""

from __future__ import annotations

import numpy as np

from imagegen.canvas import Array, Canvas, Relief, cells, ridge, strands, waves
from imagegen.motifs.family import HEXAGONAL, Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["CELLS"]


def pavement_stomata(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Jigsaw-shaped skin cells with lip-like pores between them."""
    s = m.spacing
    wave = np.float32(s * (0.09 + 0.09 * m.irregularity))
    x = c.x + waves(c.x, c.y, 0.55 * s, rng, 5) * wave
    y = c.y + waves(c.x, c.y, 0.55 * s, rng, 5) * wave
    skin = cells(x, y, s, 0.5 + 0.4 * m.irregularity, rng)
    groove = max(0.8, 0.10 * s * (1 - m.thickness))
    cover = np.clip((skin.edge - np.float32(groove)) / np.float32(c.pixel) + 0.5, 0, 1)
    dome = np.clip(skin.edge / np.float32(0.3 * s), 0, 1) ** np.float32(0.5)
    tone, height = 0.3 + 0.45 * skin.tone, 0.55 * cover * dome
    pores = cells(c.x, c.y, 2.3 * s, 0.45, rng)
    a = np.deg2rad(m.direction_deg) + (pores.tone - 0.5) * np.float32(0.5 + 1.5 * m.irregularity)
    u = (pores.dx * np.cos(a) + pores.dy * np.sin(a)) / np.float32(0.52 * s)
    v = (pores.dy * np.cos(a) - pores.dx * np.sin(a)) / np.float32(0.34 * s)
    r = np.hypot(u, v)
    edge = np.float32(c.pixel / (0.4 * s))
    lips = np.clip((1 - r) / edge + 0.5, 0, 1)
    slit = np.clip((1 - np.hypot(u / 0.62, v / 0.24)) / edge, 0, 1)
    halo = np.clip((1.16 - r) / edge, 0, 1) - lips
    cover = np.maximum(cover * (1 - np.clip(halo, 0, 1)), lips) * (1 - slit)
    ring = np.sqrt(np.clip(1 - ((r - 0.62) / 0.42) ** 2, 0, 1))
    height = np.where(lips > 0.5, ring, height) * (1 - slit)
    return Relief(cover, height, np.where(lips > 0.5, np.float32(1), tone))


def _walls(edge: Array, hw: Array | float, c: Canvas) -> tuple[Array, Array]:
    """Flat-topped walls between cells: cover and a profile with rounded shoulders."""
    cover, h = ridge(edge, hw, c.pixel)
    return cover, h ** np.float32(0.5)


def honeycomb(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Six-sided cells with even walls."""
    along, across = c.turned(m.direction_deg)
    comb = cells(along, across, m.spacing, 0.45 * m.irregularity, rng)
    cover, h = _walls(comb.edge, 0.5 * m.thickness * m.spacing, c)
    depth = np.clip(1 - comb.centre / np.float32(0.6 * m.spacing), 0, 1)
    return Relief(cover, h, np.where(cover > 0.5, np.float32(0.85), 0.2 * (1 - depth)))


def wood_cells(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Rows of box-like cells whose walls thicken step by step to a dense band."""
    along, across = c.turned(m.direction_deg)
    ring = np.float32(c.extent * rng.uniform(0.62, 0.9))
    phase = (along / ring + np.float32(rng.uniform())) % 1
    late = np.clip((phase - 0.3) / 0.7, 0, 1) ** 2
    i, d, width = strands(across, m.spacing, 0.4 * m.irregularity, rng)
    n = int(i.max()) + 1
    # Cells shorten towards latewood: the coordinate along the row runs faster there.
    u = along / np.float32(m.spacing * 1.2) + late * np.float32(0.3 * ring / m.spacing)
    u = u + rng.uniform(0, 1, n).astype(np.float32)[i]
    u = u + waves(along, across, 4 * m.spacing, rng, 3) * np.float32(0.12 * m.irregularity)
    end = (0.5 - np.abs(u - np.round(u))) * np.float32(m.spacing * 0.95)
    # The lumen is a rounded box: distance to its wall, corners cut by a circle.
    radius = np.float32(0.36 * m.spacing)
    corner = np.hypot(np.minimum(width / 2 - d - radius, 0), np.minimum(end - radius, 0))
    edge = np.maximum(radius - corner, 0)
    hw = np.float32(m.spacing * m.thickness) * (0.32 + 0.75 * late)
    cover, h = _walls(edge, hw, c)
    return Relief(cover, h, 0.9 - 0.45 * late)


CELLS: dict[str, Family] = {
    "pavement_stomata": Family(
        pavement_stomata,
        (26, 52),
        (0.3, 0.8),
        False,
        (
            "leaf epidermis with stomata",
            "pavement cells with stomata",
            "stomata",
            "leaf surface cells",
        ),
        (
            "jigsaw puzzle cells with lip-shaped pores",
            "interlocking wavy cells and small oval mouths",
            "puzzle pieces with slit-like openings",
        ),
        ("green on dark green", "lime on green", "teal on navy"),
        Seen(period=HEXAGONAL),
    ),
    "honeycomb": Family(
        honeycomb,
        (16, 48),
        (0.1, 0.3),
        True,
        ("honeycomb", "hexagonal comb", "hexagonal cell walls", "honeycomb lattice"),
        (
            "six-sided cells with even walls",
            "a grid of hexagons",
            "a regular net of hexagonal holes",
        ),
        ("golden on brown", "amber on brown", "white on black"),
        Seen(period=HEXAGONAL, repeat=1, lines=(30, 90, 150)),
    ),
    "wood_cells": Family(
        wood_cells,
        (14, 34),
        (0.2, 0.4),
        True,
        (
            "wood cells",
            "graded wood tracheids",
            "softwood cross-section",
            "earlywood and latewood cells",
        ),
        (
            "rows of box-like cells whose walls thicken to one side",
            "rounded rectangles in rows, open then dense",
            "a grid of small boxes grading from thin to thick walls",
        ),
        ("amber on brown", "copper on cream", "cream on red"),
        Seen(lines=(0, 90)),
    ),
}
