"""Patterns that grow: pigment spots, bubbles, branches, florets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2

from imagegen.canvas import Array, Canvas, Relief, waves
from imagegen.motifs.family import HEXAGONAL, Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["GROWTH"]

Window = tuple[slice, slice]

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


def _windows(c: Canvas, x: Array, y: Array, reach: Array | float) -> Iterator[tuple[int, Window]]:
    """Yield each point near the canvas and the rows and columns within `reach` of it."""
    size = c.x.shape[0]
    col, row, r = x / c.pixel + size / 2, size / 2 - y / c.pixel, reach / c.pixel
    low = np.stack([row - r, col - r], 1).astype(int).clip(0, size)
    high = np.stack([row + r + 1, col + r + 1], 1).astype(int).clip(0, size)
    for i in np.flatnonzero((high > low).all(1)):
        yield int(i), (slice(low[i, 0], high[i, 0]), slice(low[i, 1], high[i, 1]))


def _resampled(spectrum: NDArray[Any], n: int, size: int) -> Array:
    """Values on size x size pixels of a periodic field given by its rfft2 on n x n points."""
    k = min(n, size) // 2
    wide = np.zeros((size, size // 2 + 1), spectrum.dtype)
    wide[:k, :k], wide[-k:, :k] = spectrum[:k, :k], spectrum[-k:, :k]
    field: Array = irfft2(wide, (size, size)) * np.float32((size / n) ** 2)
    return field


def _packed(side: float, spacing: float, jitter: float, rng: Rng) -> Array:
    """Points of a jittered triangular lattice in [0, side), shape (n, 2)."""
    # An even number of rows: the lattice goes on where the square repeats.
    rows, cols = 2 * max(round(side / (1.74 * spacing)), 1), max(round(side / spacing), 1)
    j, i = np.mgrid[0:rows, 0:cols].reshape(2, -1)
    at = np.stack([j / rows * side, (i + 0.5 * (j % 2)) / cols * side], 1)
    return (at + rng.uniform(-jitter, jitter, at.shape) * spacing + rng.uniform(0, side, 2)) % side


def _pigment(side: float, m: Motif, rng: Rng, size: int) -> Array:
    """Periodic field of spots or stripes on a square of `side`, size x size pixels.

    A few steps of u' = (e - (1 + D)^2) u + g u^2 - u^3 from noise of the right wavelength;
    g > 0 favours spots, g = 0 stripes.

    Source: Swift and Hohenberg, Phys. Rev. A 15 (1977) 319, the normal form of a Turing
    instability.
    """
    spacing = min(m.spacing, side / 3)  # fewer waves than three are no pattern
    n = next_fast_len(int(6 * side / spacing) + 2, real=True)
    n += n % 2
    k_y = np.fft.fftfreq(n, 1 / n).astype(np.float32)[:, None] * np.float32(spacing / side)
    k_x = np.fft.rfftfreq(n, 1 / n).astype(np.float32) * np.float32(spacing / side)
    k2 = k_x**2 + k_y**2
    # Noise grows into stripes; spots start from loosely packed places.
    places = _packed(side, 1.15 * spacing, 0.28 + 0.2 * m.irregularity, rng)
    spots = np.zeros((n, n), np.float32)
    spots[tuple((places.T * (n / side)).astype(int) % n)] = 1
    start = rng.normal(0, 1, (n, n)).astype(np.float32)
    spotted = np.float32(np.clip((0.44 - m.thickness) / 0.14, 0, 1))
    start = start * (1 - spotted) / start.std() + spots * spotted / spots.std()
    u = irfft2(rfft2(start) * np.exp(-(((k2 - 1) / 0.35) ** 2)), (n, n))
    u = np.clip(u * np.float32(0.25 / u.std()), -1, 1)
    # Where the favour varies from place to place, spots and stripes live side by side.
    patch = irfft2(rfft2(rng.normal(0, 1, (n, n)).astype(np.float32)) * np.exp(-12 * k2), (n, n))
    patch = patch / np.float32(patch.std() + 1e-6)
    favour = np.clip((0.45 - m.thickness) * 6.5, -0.4, 1.1)
    g = (favour + patch * np.float32(0.25 * m.irregularity)).astype(np.float32)
    dt = np.float32(0.8)
    gain = 1 / (1 - dt * (np.float32(0.3) - (1 - k2) ** 2))
    for _ in range(round(34 - 18 * m.irregularity)):
        spectrum = rfft2(u + dt * (g - u) * u * u) * gain
        u = irfft2(spectrum, (n, n))
    return _resampled(spectrum, n, size)


def turing_pattern(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Round spots that, with more pigment, stretch and join into labyrinth stripes.

    Thickness is the solid fraction.
    """
    field = _pigment(c.extent, m, rng, c.x.shape[0])
    level = np.quantile(field[::4, ::4], 1 - m.thickness)
    gy, gx = np.gradient(field, np.float32(c.pixel))
    steep = np.hypot(gx, gy) + np.float32(0.6 / m.spacing)
    depth = (field - np.float32(level)) / steep
    cover = np.clip(depth / np.float32(c.pixel) + 0.5, 0, 1)
    round_ = np.clip(depth / np.float32(0.25 * m.spacing), 0, 1)
    return Relief(cover, cover * (0.3 + 0.45 * np.sqrt(round_)), 0.55 + 0.35 * round_)


def voronoi_foam(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Bubbles large and small pressed together: curved films, thick where three meet.

    Additively weighted cells, so that small bubbles bulge into large ones; the soft minimum
    of the distances draws the films together into Plateau borders.
    """
    s = m.spacing
    wide = c.extent + 3 * s
    x, y = (_packed(wide, s, 0.15 + 0.2 * m.irregularity, rng) - wide / 2).T
    weight = (rng.uniform(-1, 1, len(x)) * (0.14 + 0.28 * m.irregularity) * s).astype(np.float32)
    pane = rng.uniform(0.0, 1.0, len(x)).astype(np.float32)
    soft = np.float32((0.09 + 0.2 * m.thickness) * s)
    best, total = np.zeros_like(c.x), np.zeros_like(c.x)
    tone = np.zeros_like(c.x)
    for n, w in _windows(c, x, y, 1.5 * s):
        d = np.sqrt((c.x[w] - np.float32(x[n])) ** 2 + (c.y[w] - np.float32(y[n])) ** 2)
        near = np.exp((weight[n] - d) / soft)
        total[w] += near
        own = near > best[w]
        best[w] = np.where(own, near, best[w])
        tone[w] = np.where(own, pane[n], tone[w])
    edge = np.log(best / np.maximum(total - best, 1e-6 * best)) * (soft / 2)
    film = np.float32(max(0.5 * m.thickness * s, 0.9))
    wall = np.clip((film - edge) / np.float32(c.pixel) + 0.5, 0, 1)
    # A closed cell shows a faint window, with a glint along its upper left.
    gy, gx = np.gradient(edge, np.float32(c.pixel))
    facing = (gx + gy) / (np.sqrt(2) * np.hypot(gx, gy) + np.float32(1e-3))
    arc = np.maximum(np.abs(edge - film - np.float32(0.13 * s)) - np.float32(0.03 * s + 0.4), 0)
    glint = np.clip(1 - arc / np.float32(c.pixel), 0, 1) * np.clip((facing - 0.8) * 8, 0, 1)
    window = 0.06 + 0.1 * tone + 0.3 * np.exp(-np.maximum(edge - film, 0) / np.float32(0.08 * s))
    window = np.maximum(window, 0.85 * glint)
    h = np.sqrt(np.clip(1 - edge / film, 0, 2) / 2) * wall
    return Relief(
        np.maximum(wall, window),
        np.maximum(h, 0.15 * glint),
        0.6 * wall + np.maximum(glint, 0.3 * wall),
    )


class _Tree(NamedTuple):
    """A branching tree of n nodes; a node's parent stands before it."""

    at: Array
    """Shape (n, 2)."""
    parent: NDArray[np.int64]
    """Shape (n,); the root is its own parent."""
    tips: Array
    """How many tips the node carries, shape (n,)."""
    to_tip: Array
    """Nodes to its nearest tip, shape (n,)."""


def _distances(a: Array, b: Array) -> Array:
    """Distances between points (n, 2) and (k, 2), shape (n, k)."""
    (ax, ay), (bx, by) = a.T[:, :, None], b.T[:, None]
    gaps: Array = np.sqrt((ax - bx) ** 2 + (ay - by) ** 2)
    return gaps


def _colonised(root: Array, axis: Array, food: Array, s: float, wander: float, rng: Rng) -> _Tree:
    """Grow a tree from a root into all the places where there is food, branches s apart.

    Source: space colonisation, Runions, Lane and Prusinkiewicz, NPH 2007.
    """
    step, eaten = 0.34 * s, 0.62 * s
    at, parent = root[None], np.zeros(1, np.int64)
    nearest, gap = np.zeros(len(food), np.int64), _distances(food, root[None])[:, 0]
    while True:
        left = gap > eaten
        food, nearest, gap = food[left], nearest[left], gap[left]
        if not len(food):
            break
        hungry = gap < max(2.2 * s, gap.min() + 1)
        pull = (food[hungry] - at[nearest[hungry]]) / gap[hungry, None]
        grower, which = np.unique(nearest[hungry], return_inverse=True)
        way = np.stack([np.bincount(which, p) for p in pull.T], 1)
        way = way / (np.hypot(*way.T)[:, None] + 1e-6) + 0.3 * axis
        way = way + rng.normal(0, wander, way.shape)
        new = at[grower] + step * way / (np.hypot(*way.T)[:, None] + 1e-6)
        free = _distances(new, at).min(1) > 0.6 * step
        # A node pulled to and fro goes nowhere: what pulls it is out of reach.
        gap[np.flatnonzero(hungry)[~free[which]]] = 0
        if free.any():
            far = _distances(food, new[free])
            nearer = far.min(1) < gap
            nearest = np.where(nearer, len(at) + far.argmin(1), nearest)
            gap = np.where(nearer, far.min(1), gap)
            at = np.concatenate([at, new[free]])
            parent = np.concatenate([parent, grower[free]])
    # Buds of one node are no branches.
    kids = np.bincount(parent, minlength=len(at))
    kept = (kids > 0) | (kids[parent] == 1)
    at, parent = at[kept], (np.cumsum(kept) - 1)[parent[kept]]
    tips, to_tip = np.zeros(len(at)), np.full(len(at), np.inf)
    for i in range(len(at) - 1, -1, -1):
        tips[i], to_tip[i] = max(tips[i], 1), min(to_tip[i], 1e3) if tips[i] else 0
        if i:
            tips[parent[i]] += tips[i]
            to_tip[parent[i]] = min(to_tip[parent[i]], to_tip[i] + 1)
    return _Tree(at, parent, tips, to_tip)


def _painted(c: Canvas, tree: _Tree, radius: Array, age: Array) -> tuple[Array, Array]:
    """Depth within the round branches of a tree, negative outside, and the age there."""
    start, stem = tree.at[tree.parent], tree.at - tree.at[tree.parent]
    length2 = (stem**2).sum(1) + 1e-6
    inner = radius[tree.parent]
    swell, reach = radius - inner, np.sqrt(length2) / 2 + np.maximum(radius, inner) + 2 * c.pixel
    # In the loop only what decides; the rest afterwards, for all pixels at once.
    owner = np.zeros(c.x.shape, np.int64)
    depth, share = np.full_like(c.x, -9e9), np.zeros_like(c.x)
    x, y = (start + stem / 2).T
    for i, w in _windows(c, x, y, reach):
        dx, dy = stem[i].astype(np.float32)
        u, v = c.x[w] - np.float32(start[i, 0]), c.y[w] - np.float32(start[i, 1])
        t = np.minimum(np.maximum((u * dx + v * dy) / np.float32(length2[i]), 0), 1)
        d = np.sqrt((u - t * dx) ** 2 + (v - t * dy) ** 2)
        d = np.float32(inner[i]) + t * np.float32(swell[i]) - d
        over = d > depth[w]
        np.copyto(depth[w], d, where=over)
        np.copyto(share[w], t, where=over)
        owner[w][over] = i
    young, old = age.astype(np.float32)[owner], age.astype(np.float32)[tree.parent[owner]]
    return depth, old + share * (young - old)


def branching_coral(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A tree of stout branches that fork until they fill the plane, with pale round tips."""
    s = m.spacing
    a = np.deg2rad(m.direction_deg)
    axis = np.array([np.cos(a), np.sin(a)]) * rng.choice([-1, 1])
    half = c.extent / 2
    root = axis * -half * 1.02 + axis[::-1] * [-1, 1] * rng.uniform(-0.1, 0.1) * c.extent
    pitch = 0.46 * s
    grid = np.arange(-half - 0.5 * s, half + 0.5 * s, pitch)
    food = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    reach = (food - root) @ axis
    food = food[(reach > 0.3 * s) & (np.hypot(*food.T) < 0.62 * c.extent)]
    food = food + rng.uniform(-0.5, 0.5, food.shape) * pitch * (0.5 + m.irregularity)
    tree = _colonised(root, axis, food, s, 0.05 + 0.25 * m.irregularity, rng)
    radius = 0.5 * m.thickness * s * np.minimum(0.9 + 0.1 * tree.tips**0.6, 1.9)
    radius = radius * np.where(tree.to_tip == 0, 1.12, 1)
    depth, old = _painted(c, tree, radius, np.minimum(tree.to_tip / 4, 1))
    cups = np.clip(waves(c.x, c.y, max(0.3 * s, 6), rng, 7) - 0.9, 0, 0.6)
    full = np.float32(0.6 * m.thickness * s)
    cover = np.clip(depth / np.float32(c.pixel) + 0.5, 0, 1)
    round_ = np.sqrt(np.clip(1 - (1 - np.clip(depth / full, 0, 1)) ** 2, 0, 1))
    return Relief(cover, cover * (round_ - 0.35 * cups), 0.95 - 0.6 * old - 0.5 * cups)


def phyllotaxis(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Florets set one golden angle after the other, larger outwards, in crossing spirals.

    Source: Vogel, Math. Biosciences 44 (1979) 179, with a power slightly above one half.
    """
    s = m.spacing
    cx, cy = rng.uniform(-0.12, 0.12, 2) * c.extent
    outer = 0.75 * c.extent
    power = rng.uniform(0.54, 0.62)
    # With r = c sqrt(k) neighbours lie about 1.7 c apart.
    n = int((1.7 * outer / s) ** 2) + 1
    k = np.arange(n) + 0.5
    r = outer * (k / n) ** power
    turn = k * GOLDEN_ANGLE * rng.choice([-1, 1]) + rng.uniform(0, 6)
    local = s * np.sqrt(2 * power) * (k / n) ** (power - 0.5)
    jitter = rng.normal(0, 0.035 * m.irregularity, (2, n)) * local
    x, y = cx + r * np.cos(turn) + jitter[0], cy + r * np.sin(turn) + jitter[1]
    size = 0.5 * m.thickness * local * (1 + rng.uniform(-0.12, 0.12, n) * m.irregularity)
    lean = (turn + rng.normal(0, 0.12 * m.irregularity, n)).astype(np.float32)
    owner, nearest = np.zeros(c.x.shape, np.int64), np.full_like(c.x, 9e9)
    for i, w in _windows(c, x, y, float(local.max())):
        d = (c.x[w] - np.float32(x[i])) ** 2 + (c.y[w] - np.float32(y[i])) ** 2
        nearer = d < nearest[w]
        np.copyto(nearest[w], d, where=nearer)
        owner[w][nearer] = i
    dx, dy = c.x - x.astype(np.float32)[owner], c.y - y.astype(np.float32)[owner]
    cos, sin = np.cos(lean)[owner], np.sin(lean)[owner]
    hw = size.astype(np.float32)[owner]
    u, v = (dx * cos + dy * sin) / hw, (dy * cos - dx * sin) / hw
    # A drop, pointed outwards.
    out = np.maximum(u, 0)
    q = np.hypot(u - 0.22 * out, v * (1 + 0.5 * out))
    cover = np.clip((1 - q) * hw / np.float32(c.pixel) + 0.5, 0, 1)
    tones = rng.uniform(0.35, 0.5, n).astype(np.float32)
    tone = tones[owner] + 0.45 * np.clip(u, -0.5, 1)
    return Relief(cover, cover * np.sqrt(np.clip(1 - q**2, 0, 1)), tone)


GROWTH: dict[str, Family] = {
    "turing_pattern": Family(
        turing_pattern,
        (13, 34),
        (0.22, 0.55),
        False,
        (
            "Turing pattern",
            "Turing spots and stripes",
            "reaction-diffusion pattern",
            "pufferfish skin pattern",
        ),
        (
            "round spots that stretch and join into a maze of stripes",
            "winding bands of even width with loose ends and dots",
            "evenly spaced blotches and short worm-like stripes",
        ),
        ("golden on black", "white on navy", "lime on green"),
        Seen(),
    ),
    "voronoi_foam": Family(
        voronoi_foam,
        (20, 52),
        (0.04, 0.11),
        False,
        ("Voronoi foam", "closed-cell foam", "soap foam", "bubble raft with Plateau borders"),
        (
            "large and small bubbles pressed together by thin curved films",
            "round-sided cells whose walls thicken where three meet",
            "a froth of closed bubbles",
        ),
        ("white on navy", "white on black", "cream on brown"),
        Seen(period=HEXAGONAL),
    ),
    "branching_coral": Family(
        branching_coral,
        (22, 44),
        (0.36, 0.56),
        True,
        ("branching coral", "staghorn coral", "Acropora coral", "coral colony"),
        (
            "stout round branches forking again and again to blunt tips",
            "a tree of thick fingers spreading from one trunk",
            "knobbly forked branches with pale rounded ends",
        ),
        ("pink on navy", "cream on teal", "red on black"),
        Seen(period=None, direction=0),
    ),
    "phyllotaxis": Family(
        phyllotaxis,
        (12, 24),
        (0.66, 0.95),
        False,
        ("phyllotaxis", "phyllotaxis spirals", "sunflower head", "golden-angle florets"),
        (
            "drop-shaped buds in two sets of crossing spirals round a middle",
            "seeds packed in spirals that wind outwards",
            "a disc of buds, small in the middle and larger outwards",
        ),
        ("golden on brown", "amber on black", "lime on dark green"),
        Seen(period=0.94),
    ),
}
