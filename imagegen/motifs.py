"""Procedural geometries of biological microstructures, each with continuous parameters.

A family draws a `Relief` from a `Motif`; lengths are pixels of a 256-pixel picture. What
a motif is in words, technical and plain, stands beside its drawing, for captions, for
retrieval and for people.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from imagegen.canvas import Array, Canvas, Relief, cells, ridge, strands, waves
from orbweave.records import Motif

__all__ = ["FAMILIES", "Family", "draw_motif", "random_motif"]

Rng = np.random.Generator


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


class Family(NamedTuple):
    """A kind of motif: how it is drawn, its natural ranges and its words."""

    draw: Callable[[Canvas, Motif, Rng], Relief]
    spacing: tuple[float, float]
    """Natural range in pixels at 256."""
    thickness: tuple[float, float]
    """Natural range as a share of the spacing."""
    directed: bool
    """Whether the direction can be seen."""
    names: tuple[str, ...]
    """What a specialist calls it; the first is the name shown."""
    plain: tuple[str, ...]
    """What one sees, in plain shapes."""
    looks: tuple[str, ...]
    """Looks that suit it, the most usual first."""


FAMILIES: dict[str, Family] = {
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
    ),
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
    ),
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
    ),
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
    ),
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
    ),
}


def draw_motif(c: Canvas, motif: Motif, rng: Rng) -> Relief:
    """Draw a motif; arrays of shape (size, size), float32, in [0, 1]."""
    relief = FAMILIES[motif.family].draw(c, motif, rng)
    return Relief(*(np.clip(a, 0, 1).astype(np.float32) for a in relief))


def random_motif(family: str, rng: Rng, scale: float = 1.0) -> Motif:
    """Draw a motif's parameters from the natural ranges of its family; `scale` shrinks spacing."""
    f = FAMILIES[family]
    return Motif(
        family=family,
        spacing=round(float(np.clip(rng.uniform(*f.spacing) * scale, 7, 96)), 2),
        thickness=round(float(rng.uniform(*f.thickness)), 3),
        direction_deg=round(float(rng.uniform(0, 179.9)), 1) if f.directed else 0.0,
        irregularity=round(float(rng.uniform(0.05, 0.8)), 3),
    )
