"""Shaped surfaces: overlapping scales, folded sheets."""

from __future__ import annotations

import numpy as np

from imagegen.canvas import Canvas, Relief, ridge, waves
from imagegen.motifs.family import Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["SURFACES"]


def pine_cone_scales(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Thick rhombic scales in oblique spiral rows round a cone, each with a raised tip.

    The axis runs along the cone; the scales get smaller to its sides and ends.
    """
    s = m.spacing
    z, across = c.turned(m.direction_deg)
    long, wide = np.float32(0.74 * c.extent), np.float32(0.47 * c.extent)
    girth = np.sqrt(1 - np.minimum(np.abs(z) / long, 0.98) ** 2)
    around = across / (wide * girth)
    # Equal steps in these two are equal shapes on a spindle; in the middle they are lengths.
    along = long * np.arcsin(np.clip(z / long, -0.98, 0.98))
    arc = np.float32(1.15) * wide * np.arcsin(np.clip(around / np.float32(1.15), -0.9, 0.9))
    # Slanting rows s apart: width * row / hypot(width / 2, row).
    width, row = np.float32(1.9 * s), np.float32(0.62 * s)
    along = along + arc * np.float32(rng.uniform(0.08, 0.17) * rng.choice([-1, 1]))
    along = along + waves(c.x, c.y, 5 * s, rng, 3) * np.float32(0.1 * s * m.irregularity)
    n = 64
    loose = np.float32(0.14 * m.irregularity)
    sway, lift, tones = rng.uniform(-1, 1, (3, n, n)).astype(np.float32)
    shift = np.float32(rng.uniform(0, s))
    size = np.float32(m.thickness + 0.02)
    first = np.floor(along / row).astype(np.int64)
    p, q, rho, own = (np.full_like(c.x, f) for f in (0, 0, 9, 0))
    # Downwards: a lower scale covers the foot of the ones above it.
    for j in (first + 1, first, first - 1):
        offset = (j % 2) * (width / 2) + shift
        i = np.round((arc - offset) / width).astype(np.int64)
        cell = (j % n) * n + i % n
        pj = ((arc - offset - i * width) / (width / 2) + sway.ravel()[cell] * loose) / size
        qj = ((along - j * row) / row + lift.ravel()[cell] * loose) / size
        # A rhombus with blunt corners, its upper edge raised and rounded.
        rj = 0.8 * (np.abs(pj) + np.abs(qj)) + 0.2 * np.hypot(pj, qj)
        rj = np.maximum(rj - 0.16 * np.clip(qj, 0, 1), 0.94 * np.hypot(pj, qj) + 0.02)
        over = (rj < 1) | (rj < rho) & (rho > 1)
        for kept, new in ((p, pj), (q, qj), (rho, rj), (own, tones.ravel()[cell])):
            np.copyto(kept, new, where=over)
    scale = row * size * girth / np.float32(c.pixel)
    inside = np.clip((1 - np.abs(around)) * wide / np.float32(c.pixel) + 0.5, 0, 1)
    cover = np.clip((1 - rho) * scale + 0.5, 0, 1) * inside
    boss = np.hypot(p * np.float32(1.15), q)
    keel = np.clip(1 - np.abs(q) * 5, 0, 1)
    umbo = np.clip((0.3 - boss) * 8, 0, 1)
    moat = np.clip(1 - np.abs(boss - 0.36) * 12, 0, 1)
    slope = np.clip(1 - rho, 0, 1)
    height = 0.25 + 0.42 * slope + 0.1 * keel + 0.25 * umbo - 0.12 * moat
    facet = np.clip(q * 8, -1, 1)
    tone = 0.4 + 0.24 * facet + 0.1 * keel + 0.08 * own
    tone = tone + umbo * (0.85 - tone) - 0.3 * moat - 0.3 * np.clip(rho * 6 - 5, 0, 1)
    return Relief(cover, height * cover * np.sqrt(np.clip(1.1 - around**2, 0, 1)), tone)


def corrugated_leaf(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Straight pleats, one flank light and one dark, fanning from both sides of a midrib.

    Thickness is the share of the light flank. The margin zigzags with the folds.
    """
    s = m.spacing
    along, across = c.turned(m.direction_deg)
    across = across - np.float32(rng.uniform(-0.02, 0.02) * c.extent)
    side = np.abs(across)
    lean = np.deg2rad(rng.uniform(28, 36))
    gap, slope = np.float32(s / np.sin(lean)), np.float32(1 / np.tan(lean))
    fan = np.float32(rng.uniform(0.1, 0.4) / c.extent)
    # Where the straight line through a pixel leaves the midrib.
    foot = (along - side * slope) / (1 + fan * (side - np.float32(0.2 * c.extent)))
    foot = foot + np.where(across > 0, np.float32(rng.uniform(0.3, 0.7)) * gap, np.float32(0))
    uneven = waves(foot, np.sign(across), 4 * float(gap), rng, 3)
    u = (foot / gap + uneven * np.float32(0.14 * m.irregularity)) % 1
    t = np.float32(m.thickness)
    # From the valley up the light flank to the crest at t, then down the dark flank.
    rise = np.minimum(u / t, (1 - u) / (1 - t))
    edge = np.float32(s / c.pixel)
    light = np.clip(np.minimum(u, t - u) * edge + 0.5, 0, 1)
    light = np.maximum(light, np.clip((u - 1) * edge + 0.5, 0, 1))
    half = np.float32(0.45 * c.extent) * np.sqrt(1 - (along / np.float32(0.8 * c.extent)) ** 2)
    blade = np.clip((half + (rise - 0.5) * np.float32(0.45 * s) - side) / np.float32(c.pixel), 0, 1)
    mid, hm = ridge(side, np.float32(0.09 * s + 1.2), c.pixel)
    return Relief(
        np.maximum(blade * (0.3 + 0.7 * light), mid),
        np.maximum(blade * (0.1 + 0.75 * rise) * (1 - mid), hm),
        np.maximum(light * (0.4 + 0.5 * rise) * (1 - mid), mid),
    )


SURFACES: dict[str, Family] = {
    "pine_cone_scales": Family(
        pine_cone_scales,
        (15, 36),
        (0.74, 0.93),
        True,
        ("pine cone scales", "pine-cone", "conifer cone scales", "seed cone with spiral scales"),
        (
            "thick diamond-shaped scales in slanting rows, each with a knob",
            "overlapping rhombs with a raised point in the middle",
            "diamonds winding round a cone, each with a ridge and a boss",
        ),
        ("amber on brown", "copper on black", "cream on brown"),
        Seen(),
    ),
    "corrugated_leaf": Family(
        corrugated_leaf,
        (12, 34),
        (0.4, 0.66),
        True,
        (
            "corrugated leaf folds",
            "pleated leaf",
            "hornbeam leaf corrugation",
            "Miura-like leaf folds",
        ),
        (
            "straight pleats fanning from both sides of a middle line",
            "parallel folds with one light and one dark flank",
            "a herringbone of sharp ridges and valleys",
        ),
        ("green on dark green", "lime on dark green", "teal on black"),
        Seen(direction=0, lines=(32, 148)),
    ),
}
