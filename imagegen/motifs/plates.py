"""Plates: tablets in courses."""

from __future__ import annotations

import numpy as np

from imagegen.canvas import Canvas, Relief, strands, waves
from imagegen.motifs.family import Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["PLATES"]


def nacre_bricks(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Flat tablets in staggered courses, like a brick wall with thin joints."""
    along, across = c.turned(m.direction_deg)
    across = across + waves(along, across, 150, rng, 3) * np.float32(1 + 5 * m.irregularity)
    i, d, width = strands(across, m.spacing, 0.3 * m.irregularity, rng)
    n = int(i.max()) + 1
    length = np.float32(m.spacing * rng.uniform(2.4, 4.2))
    start = (np.arange(n) % 2) * 0.5 + rng.uniform(-0.24, 0.24, n) * (0.3 + m.irregularity)
    u = along / length + start.astype(np.float32)[i]
    joint = (0.5 - np.abs(u - np.round(u))) * length
    tile = np.round(u).astype(np.int64) % 64
    tones = rng.uniform(0.35, 1, (n, 64)).astype(np.float32)[i, tile]
    gap = np.float32(max(0.9, 0.5 * m.spacing * (1 - m.thickness)))
    edge = np.minimum(width / 2 - d, joint) - gap
    cover = np.clip(edge / np.float32(c.pixel) + 0.5, 0, 1)
    h = cover * np.clip(0.35 + edge / np.float32(0.25 * m.spacing), 0, 1) ** np.float32(0.5)
    return Relief(cover, h * (0.75 + 0.25 * tones), tones)


PLATES: dict[str, Family] = {
    "nacre_bricks": Family(
        nacre_bricks,
        (13, 32),
        (0.78, 0.94),
        True,
        ("nacre", "nacre brick wall", "mother-of-pearl tablets", "brick-and-mortar nacre"),
        (
            "flat tiles in staggered courses with thin joints",
            "a brick wall of thin plates",
            "stacked flat tablets with dark hairline gaps",
        ),
        ("pearl on navy", "white on brown", "cream on black"),
        Seen(direction=0),
    ),
}
