"""Veins of leaves: nets and ladders."""

from __future__ import annotations

import numpy as np

from imagegen.canvas import Canvas, Relief, cells, ridge, strands, waves
from imagegen.motifs.family import HEXAGONAL, Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["VEINS"]


def leaf_veins(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A midrib, curved side veins, and a closed net of fine veins between them."""
    along, across = c.turned(m.direction_deg)
    across = across + np.sin(along / np.float32(c.extent) * 2 + rng.uniform(0, 6)) * np.float32(8)
    s, t = m.spacing, m.thickness
    net = cells(c.x, c.y, s, 0.45 + 0.5 * m.irregularity, rng)
    cover, h = ridge(net.edge, 0.32 * t * s, c.pixel)
    side = np.abs(across)
    lean = along - side * np.float32(0.75) - side**2 * np.float32(0.8 / c.extent)
    lean = lean + waves(c.x, c.y, 130, rng, 3) * np.float32(2.5)
    lean = lean + np.where(across > 0, np.float32(0), np.float32(rng.uniform(1, 3) * s))
    gap = np.float32(s * rng.uniform(3.0, 4.2))
    u = lean / gap
    taper = np.clip(1.15 - side / np.float32(0.75 * c.extent), 0.45, 1)
    b, hb = ridge(np.abs(u - np.round(u)) * gap * np.float32(0.8), 0.62 * t * s * taper, c.pixel)
    mid, hm = ridge(side, np.float32(1.15 * t * s + 1), c.pixel)
    tone = np.maximum(np.maximum(0.55 * cover, 0.8 * b), mid)
    height = np.maximum(np.maximum(0.45 * h, 0.72 * hb), hm)
    return Relief(np.maximum(np.maximum(cover, b), mid), height, tone)


def parallel_veins(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Straight veins side by side, strong and fine in turn, joined by thin cross veins."""
    along, across = c.turned(m.direction_deg)
    across = across + waves(along, across, 300, rng, 3) * np.float32(4 * m.irregularity)
    # A strand is the gap between two veins; the vein is the edge it starts from.
    i, d, width = strands(across, m.spacing, 0.25 * m.irregularity, rng)
    n, every = int(i.max()) + 2, int(rng.integers(3, 5))
    strong = np.where(np.arange(n) % every == 0, 1.0, 0.4).astype(np.float32)
    upper = np.gradient(d, axis=0) * np.gradient(across, axis=0) > 0
    vein = np.where(upper, i, i - 1)
    cover, h = ridge(
        width / 2 - d, np.float32(0.5 * m.thickness * m.spacing) * strong[vein], c.pixel
    )
    length = np.float32(m.spacing * rng.uniform(4.0, 7.0))
    shift, lean = rng.uniform(0, 1, n).astype(np.float32), np.float32(rng.uniform(-0.5, 0.5))
    u = (along + lean * across) / length + shift[i]
    b, hb = ridge(np.abs(u - np.round(u)) * length, 0.09 * m.thickness * m.spacing, c.pixel)
    tone = np.maximum(cover * (0.3 + 0.7 * strong[vein]), 0.35 * b)
    return Relief(np.maximum(cover, 0.8 * b), np.maximum(h * strong[vein], 0.25 * hb), tone)


VEINS: dict[str, Family] = {
    "leaf_veins": Family(
        leaf_veins,
        (11, 28),
        (0.2, 0.4),
        True,
        (
            "reticulate leaf veins",
            "leaf veins",
            "leaf venation",
            "net-like leaf veins",
            "dicot leaf venation",
        ),
        (
            "a thick midrib with side veins and a fine net between them",
            "branching lines that close into a net",
            "a central line with curved branches and a mesh",
        ),
        ("green on dark green", "lime on green", "white on green"),
        Seen(period=HEXAGONAL),
    ),
    "parallel_veins": Family(
        parallel_veins,
        (10, 28),
        (0.25, 0.45),
        True,
        ("parallel leaf veins", "grass leaf venation", "parallel venation", "monocot leaf veins"),
        (
            "straight lines side by side joined by short cross lines",
            "a ladder of parallel lines with short rungs",
            "parallel ribs, strong and fine in turn",
        ),
        ("green on dark green", "lime on green", "white on teal"),
        Seen(direction=0),
    ),
}
