"""Threads and fibres: webs, bundles, banded cords, turning layers."""

from __future__ import annotations

import numpy as np

from imagegen.canvas import Canvas, Relief, ridge, strands, waves
from imagegen.motifs.family import Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["FIBRES"]


def orb_web(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Straight spokes from a hub, crossed by one fine spiral thread."""
    s, hw = m.spacing, max(0.8, 0.5 * m.thickness * m.spacing)
    cx, cy = rng.uniform(-0.1, 0.1, 2) * c.extent * (0.3 + m.irregularity)
    dx, dy = c.x - np.float32(cx), c.y - np.float32(cy)
    r, turn = np.hypot(dx, dy), np.arctan2(dy, dx) / np.float32(2 * np.pi) % 1
    n = int(rng.integers(14, 25))
    spokes = (np.arange(n) + rng.uniform(-0.3, 0.3, n) * m.irregularity) / n
    spokes = np.sort(spokes % 1).astype(np.float32)
    i = np.searchsorted(spokes, turn) % n
    before, after = spokes[i - 1], spokes[i]
    width = (after - before) % 1
    t = (turn - before) % 1
    ang = np.float32(2 * np.pi)
    to_spoke = r * np.minimum(np.abs(np.sin(ang * t)), np.abs(np.sin(ang * (width - t))))
    # Between two spokes the spiral thread is straight: a chord, not an arc.
    chord = r * np.cos(ang * (t - width / 2)) / np.cos(ang * width / 2)
    wobble = rng.normal(0, 0.07 * m.irregularity, n).astype(np.float32)[i]
    u = chord / np.float32(s) - turn + wobble
    to_spiral = np.abs(u - np.round(u)) * np.float32(s)
    outer = np.float32(c.extent * rng.uniform(0.44, 0.62))
    to_spiral = np.where((chord > 1.7 * s) & (chord < outer), to_spiral, np.float32(1e3))
    hub = np.abs(r - np.float32(0.75 * s))
    a, ha = ridge(np.minimum(to_spoke, hub), hw * 1.25, c.pixel)
    b, hb = ridge(to_spiral, hw * 0.8, c.pixel)
    tone = np.where(a > b, np.float32(0.95), np.float32(0.6))
    return Relief(np.maximum(a, b), np.maximum(ha, 0.75 * hb), tone)


def cobweb(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Straight threads in all directions, crossing at random depths."""
    n = int(np.clip(2.6 * c.extent / m.spacing, 8, 60))
    cover, height, tone = np.zeros_like(c.x), np.zeros_like(c.x), np.zeros_like(c.x)
    spread = 20 + 70 * m.irregularity
    for depth in np.linspace(0.45, 1.0, n):
        angle = np.deg2rad(m.direction_deg + rng.choice([-40, 40, 0, 90]) + rng.normal(0, spread))
        offset = rng.uniform(-0.62, 0.62) * c.extent
        sag = rng.uniform(-1, 1) * 0.0012
        ca, sa = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        along = c.x * ca + c.y * sa
        d = np.abs(c.y * ca - c.x * sa - np.float32(offset) + np.float32(sag) * along**2)
        hw = 0.5 * m.thickness * m.spacing * rng.uniform(0.35, 0.8) * depth
        a, h = ridge(d, max(hw, 0.7), c.pixel)
        cover = np.maximum(cover, a * np.float32(0.55 + 0.45 * depth))
        over = a > 0.5
        tone = np.where(over, np.float32(depth), tone)
        height = np.where(over, np.maximum(height * 0.6, h * np.float32(depth)), height)
    return Relief(cover, height, tone)


def silk_bundle(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Long smooth fibres side by side, gently waving, drawn in one direction."""
    along, across = c.turned(m.direction_deg)
    bend = waves(along, across * 0.4, 150 + 60 * rng.uniform(), rng, 3)
    across = across + bend * np.float32(m.spacing * 0.55 * m.irregularity + 1)
    i, d, width = strands(across, m.spacing, 0.4 + 0.6 * m.irregularity, rng)
    tones = rng.uniform(0.35, 1, int(i.max()) + 1).astype(np.float32)
    cover, h = ridge(d, width * np.float32(0.5 * (0.35 + 0.65 * m.thickness)), c.pixel)
    return Relief(cover, h * (0.5 + 0.5 * tones[i]), tones[i])


def collagen_fibrils(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Wavy parallel fibrils with even cross-bands."""
    along, across = c.turned(m.direction_deg)
    crimp = np.sin(along * np.float32(2 * np.pi / (95 + 60 * rng.uniform())) + rng.uniform(0, 6))
    drift = waves(along, across, 220, rng, 3)
    across = across + crimp * np.float32(4 + 9 * m.irregularity) + drift * np.float32(3)
    i, d, width = strands(across, m.spacing, 0.6 * m.irregularity, rng)
    n = int(i.max()) + 1
    tones, phases = rng.uniform(0.55, 1, n).astype(np.float32), rng.uniform(0, 0.35, n)
    period = np.float32(max(7.0, 0.62 * m.spacing))
    band = 0.5 + 0.5 * np.tanh(2.5 * np.cos(2 * np.pi * (along / period + phases[i])))
    cover, h = ridge(d, width * np.float32(0.5 * (0.45 + 0.55 * m.thickness)), c.pixel)
    band = band.astype(np.float32)
    return Relief(cover, h * (0.7 + 0.3 * band), tones[i] * (0.1 + 0.9 * band))


def twisted_plywood(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Rows of nested arcs: an oblique cut through fibre layers that turn step by step.

    Source: Bouligand (1972); arcs are the curves x = -(P / pi) ln|cos(pi y / P)|.
    """
    along, across = c.turned(m.direction_deg)
    period = np.float32(m.spacing * rng.uniform(4.2, 6.5))
    across = across + waves(along, across, 190, rng, 3) * np.float32(4 * m.irregularity)
    phase = np.pi * (across / period + rng.uniform())
    cos = np.abs(np.cos(phase)) + np.float32(0.02)
    u = along / np.float32(m.spacing) + period / np.float32(np.pi * m.spacing) * np.log(cos)
    d = np.abs(u - np.round(u)) * np.float32(m.spacing) * cos
    cover, h = ridge(d, 0.5 * m.thickness * m.spacing * (0.35 + 0.65 * cos), c.pixel)
    tone = 0.35 + 0.65 * cos
    return Relief(cover, h * tone, tone)


FIBRES: dict[str, Family] = {
    "orb_web": Family(
        orb_web,
        (10, 26),
        (0.1, 0.22),
        False,
        ("spider orb web", "orb web", "spider web", "orb-weaver web with capture spiral"),
        (
            "straight spokes meeting at a hub, crossed by a fine spiral thread",
            "a round net of radial lines and spiral rings",
            "rings of thread on radiating spokes",
        ),
        ("golden on black", "white on black", "silver on navy"),
        Seen(),
    ),
    "cobweb": Family(
        cobweb,
        (12, 34),
        (0.1, 0.25),
        False,
        (
            "cobweb tangle",
            "tangled spider silk",
            "three-dimensional cobweb",
            "random fibre network",
        ),
        (
            "straight thin threads crossing in all directions",
            "a loose tangle of crossing lines",
            "a random mesh of fine threads",
        ),
        ("white on black", "silver on navy", "golden on black"),
        Seen(period=None),
    ),
    "silk_bundle": Family(
        silk_bundle,
        (9, 30),
        (0.5, 0.9),
        True,
        (
            "silk fibre bundle",
            "spider silk",
            "dragline silk fibres",
            "aligned silk fibres",
            "spun fibre bundle",
        ),
        (
            "long smooth fibres lying side by side",
            "parallel gently waving strands",
            "a bundle of shining threads",
        ),
        ("golden on black", "amber on brown", "white on navy"),
        Seen(direction=0),
    ),
    "collagen_fibrils": Family(
        collagen_fibrils,
        (12, 34),
        (0.5, 0.9),
        True,
        (
            "banded collagen fibrils",
            "collagen fibrils",
            "collagen fibrils with D-banding",
            "crimped tendon fibrils",
            "wavy collagen",
        ),
        (
            "wavy parallel cords with even light and dark cross-stripes",
            "striped cords waving side by side",
            "ropes with regular cross-bands",
        ),
        ("pink on white", "grey on black", "cream on red"),
        Seen(direction=0),
    ),
    "twisted_plywood": Family(
        twisted_plywood,
        (8, 20),
        (0.3, 0.6),
        True,
        ("twisted plywood", "Bouligand structure", "helicoidal fibre layers", "helicoid plywood"),
        (
            "rows of nested arcs",
            "stacked bands of crescent-shaped lines",
            "curved lines turning layer by layer",
        ),
        ("amber on brown", "grey on black", "copper on black"),
        Seen(repeat=1, direction=90),  # the arcs bow along the axis
    ),
}
