"""What skins wear: feather vanes, gecko hairs, shark scales."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagegen.canvas import Array, Canvas, Relief, ridge, waves
from imagegen.motifs.family import Family, Rng, Seen
from orbweave.records import Motif

__all__ = ["SKINS"]

TABLE = 64
"""Rows and columns, a power of two, after which the accidents of single hairs and scales repeat."""


def feather_barbs(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """A shaft, slanted barbs on both sides, and fine barbules that zip them into a vane."""
    along, across = c.turned(m.direction_deg)
    s = np.float32(m.spacing)
    bow = np.sin(along / np.float32(c.extent) * 2 + np.float32(rng.uniform(0, 6)))
    across = across + bow * np.float32(5) - np.float32(rng.uniform(-0.1, 0.1) * c.extent)
    side, lean = np.abs(across), np.deg2rad(rng.uniform(40, 50))
    # Barbs bend towards the tip, so they start further back than a straight line says.
    root = along - side / np.float32(np.tan(lean)) - side**2 * np.float32(0.35 / c.extent)
    root = root + np.where(across > 0, s * np.float32(rng.uniform(0.3, 0.9)), np.float32(0))
    ease = waves(c.x, c.y, 5 * m.spacing, rng, 3) * np.float32(0.16 * m.irregularity)
    u = root * np.float32(np.sin(lean)) / s + ease
    d = np.abs(u - np.round(u)) * s
    cover, h = ridge(d, np.float32(0.18 + 0.2 * m.thickness) * s * np.float32(0.5), c.pixel)

    period = np.float32(max(4.2, 0.2 * m.spacing))
    run = along * np.float32(np.cos(lean)) + side * np.float32(np.sin(lean))
    v = (run - d * np.float32(0.9)) / period
    to_barbule = np.abs(v - np.round(v)) * period * np.float32(0.74)
    b, hb = ridge(to_barbule, np.float32(0.37 * m.thickness) * period, c.pixel)

    # Here and there the zip is open: a wedge between two barbs that widens outwards.
    n = 128
    opens = np.where(rng.uniform(size=n) < 0.05 + 0.13 * m.irregularity, rng.uniform(size=n), 9)
    gap = np.floor(u).astype(np.int64) % n
    start = opens.astype(np.float32)[gap] * np.float32(0.4 * c.extent)
    wedge = np.clip((side - start) * np.float32(0.11), 0, 0.4 * s)
    b = b * np.clip((s / 2 - d - wedge) / np.float32(c.pixel) + 1, 0, 1)

    tip = np.clip(along / np.float32(c.extent) + np.float32(0.2), 0, 1)
    rim = np.float32(c.extent * rng.uniform(0.42, 0.62)) * (1 - np.float32(0.6) * tip**2)
    ragged = rng.uniform(0, 0.12 * m.spacing, n).astype(np.float32)
    rim = rim - ragged[np.round(u).astype(np.int64) % n] * np.float32(1 + 4 * m.irregularity)
    vane = np.clip((rim - side) / np.float32(c.pixel) + 0.5, 0, 1)
    shaft = np.float32(0.2 * m.spacing + 3) * (1 - along * np.float32(0.5 / c.extent))
    mid, hm = ridge(side, shaft, c.pixel)
    tone = np.maximum(np.where(cover > 0.5, np.float32(0.8), np.float32(0.32)), mid)
    height = np.maximum(np.maximum(0.8 * h, 0.4 * hb * b) * vane, hm)
    return Relief(np.maximum(np.maximum(cover, b) * vane, mid), height, tone)


def _lay(under: Relief, over: Relief, shadow: Array) -> Relief:
    """Paint one layer over another, which the shadow in [0, 1] darkens first."""
    dim, top = 1 - shadow, over.cover
    return Relief(
        np.maximum(under.cover, top),
        under.height * dim * (1 - top) + over.height * top,
        under.tone * dim * (1 - top) + over.tone * top,
    )


def _entry(row: Array, column: Array) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Where the accidents of a tuft or scale stand in a table of TABLE rows and columns."""
    return row.astype(np.int32) & TABLE - 1, column.astype(np.int32) & TABLE - 1


def gecko_setae(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Staggered rows of curved stalks, each splitting into a tuft of hairs with flat tips.

    Spacing is the distance between the slanting rows of tufts.
    """
    along, across = c.turned(m.direction_deg)
    width = 1.08 * m.spacing
    s, row, length = np.float32(width), np.float32(1.2 * width), 2.1 * width
    n = 3 if width < 24 else 4 if width < 34 else 5
    drift = waves(c.x, c.y, 7 * width, rng, 3)
    across = across + drift * s * np.float32(0.5 * m.irregularity)
    shifts = rng.uniform(-0.5, 0.5, (3, TABLE, TABLE)).astype(np.float32)
    ends = 1 - rng.uniform(0, 0.08 + 0.2 * m.irregularity, (TABLE, TABLE, n)).astype(np.float32)
    curl = np.float32(rng.choice([-1, 1]) * rng.uniform(0.3, 0.8))
    first = np.floor(along / row)
    relief = Relief(*(np.zeros_like(c.x) for _ in range(3)))
    # Tips lie over the feet of the next row, so the row that starts farther back comes last.
    for back in range(2):
        i = first - back
        q = (along - i * row) / np.float32(length)
        p = across / s + np.float32(0.5) * (i % 2) + curl * q * (q - np.float32(1.3))
        j = np.round(p)
        tuft = _entry(i, j)
        ahead, aside, shade = shifts[:, *tuft]
        q = q + ahead * np.float32(0.25 * m.irregularity)
        open_ = np.clip((q - np.float32(0.3)) / np.float32(0.7), 0, 1)
        fan = np.float32(0.06) + np.float32(0.4) * open_ * (np.float32(1.5) - open_ / 2)
        w = ((p - j + aside * np.float32(0.16) * (1 - open_)) / fan + 1) * np.float32(n / 2)
        hair = np.clip(np.floor(w), 0, n - 1)
        d = np.abs(w - hair - np.float32(0.5)) * fan * s * np.float32(2 / n)
        end = ends[*tuft, hair.astype(np.int32)]
        tip = np.clip((q - end + np.float32(0.16)) / np.float32(0.16), 0, 1)
        # A stalk is as wide as its hairs laid together, near enough.
        hw = np.float32(0.3 * m.thickness / n) * s * (1 + np.float32(1.2) * tip)
        hw = hw + np.float32(0.025) * s * (1 - open_) ** 2
        # Feet sink into the dark between the tufts.
        foot = np.clip(q * np.float32(4), 0, 1)
        inside = np.clip((end - q) * np.float32(length / c.pixel) + 0.5, 0, 1) * foot
        cover, h = ridge(d, hw, c.pixel)
        halo = np.clip(1 + (hw - d) / np.float32(0.06 * width), 0, 1) * inside
        level = np.clip(q, 0, 1) * (np.float32(0.85) + np.float32(0.3) * shade)
        tone = np.float32(0.1) + np.float32(0.5) * level + np.float32(0.4) * tip
        over = Relief(cover * inside, h * (np.float32(0.1) + np.float32(0.85) * level), tone)
        relief = _lay(relief, over, np.float32(0.7) * halo)
    return relief


def shark_denticles(c: Canvas, m: Motif, rng: Rng) -> Relief:
    """Overlapping scales in staggered rows, each with keels that end in a toothed rear edge.

    Spacing is the distance between the slanting rows of scales.
    """
    along, across = c.turned(m.direction_deg)
    width = 1.23 * m.spacing
    s, row, length = np.float32(width), np.float32(0.7 * width), 1.3 * width
    keels = 3 if width < 44 else int(rng.choice([3, 5]))
    drift = waves(c.x, c.y, 6 * width, rng, 3)
    across = across + drift * s * np.float32(0.16 * m.irregularity)
    shifts = rng.uniform(-1, 1, (3, TABLE, TABLE)).astype(np.float32) * np.float32(m.irregularity)
    first = np.floor(along / row)
    relief = Relief(*(np.zeros_like(c.x) for _ in range(3)))
    # A rear edge lies over the front of the next row, so the row that starts farthest back
    # comes last.
    for back in range(2):
        i = first - back
        p = across / s + np.float32(0.5) * (i % 2)
        j = np.round(p)
        ahead, aside, shade = shifts[:, *_entry(i, j)]
        q = (along - i * row) / np.float32(length) + ahead * np.float32(0.05)
        f = (p - j + aside * np.float32(0.03)) * s
        front = np.sqrt(np.clip(1 - (1 - q / np.float32(0.5)) ** 2, 0.01, 1))
        rear = 1 - np.float32(0.3) * np.clip(q - np.float32(0.5), 0, 1)
        half = np.float32(0.5 * m.thickness) * s * np.where(q < 0.5, front, rear)
        x = f / half
        keel = np.float32(0.5) + np.float32(0.5) * np.cos(np.float32(np.pi * keels) * x)
        end = np.float32(0.78) - np.float32(0.28) * x * x + np.float32(0.2) * keel
        edge = np.minimum(half - np.abs(f), (end - q) * np.float32(0.6 * length))
        edge = np.where(q > 0, edge, np.float32(-9))
        cover = np.clip(edge / np.float32(c.pixel) + 0.5, 0, 1)
        rise = np.clip(q * np.float32(1.4), 0, 1)
        dome = (1 - np.float32(0.5) * x * x) * rise
        bevel = np.clip(edge / np.float32(0.1 * width), 0, 1)
        height = (np.float32(0.2) + (np.float32(0.55) + np.float32(0.2) * keel) * dome) * (
            np.float32(0.5) + np.float32(0.5) * bevel
        )
        tone = (np.float32(0.45) + np.float32(0.45) * keel + np.float32(0.15) * shade) * dome
        shadow = np.clip(1 + edge / np.float32(0.2 * width), 0, 1) * (q > 0)
        over = Relief(cover, height, tone * (np.float32(0.4) + np.float32(0.6) * bevel))
        relief = _lay(relief, over, np.float32(0.85) * shadow)
    return relief


SKINS: dict[str, Family] = {
    "feather_barbs": Family(
        feather_barbs,
        (18, 38),
        (0.45, 0.8),
        True,
        ("feather barbs", "feather vane", "bird feather", "feather barbs with hooked barbules"),
        (
            "a central shaft with slanted combs zipped together by fine hooks",
            "a herringbone of slanted ribs on both sides of a shaft",
            "a quill with fringed side branches",
        ),
        ("blue on black", "white on grey", "teal on navy"),
        Seen(period=0.94, lines=(38, 142)),  # barbs draw together outwards
    ),
    "gecko_setae": Family(
        gecko_setae,
        (19, 40),
        (0.4, 0.8),
        True,
        ("gecko setae", "gecko toe hairs", "setae with spatula tips", "gecko adhesive setae"),
        (
            "staggered tufts of fine hairs with flat tips",
            "rows of small brushes bending the same way",
            "stalks that fan out into bristles",
        ),
        ("grey on black", "cream on brown", "silver on navy"),
        Seen(direction=0),
    ),
    "shark_denticles": Family(
        shark_denticles,
        (21, 42),
        (0.72, 0.95),
        True,
        ("shark denticles", "shark skin", "placoid scales", "shark skin riblets"),
        (
            "overlapping ridged scales with toothed rear edges",
            "small keeled shields lapping like shingles",
            "rows of grooved scales all pointing the same way",
        ),
        ("silver on navy", "grey on black", "teal on navy"),
        Seen(direction=0),
    ),
}
