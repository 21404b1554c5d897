"""A measurement drawn over its picture: directions, pores, skeleton."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from imagegen.coarsening import coarser
from imagegen.directions import tensor_of
from imagegen.luma import Luma, luma_of
from imagegen.phases import SolidSide, phases_of
from imagegen.pores import local_thickness
from imagegen.skeleton import lines_of

__all__ = ["OVERLAYS", "directions", "overlay_files", "pores", "skeleton"]

OVERLAYS = ("directions", "pores", "skeleton")
SHOWN_PX = 768
"""Longer side of the picture drawn, at least, by whole enlargement."""
MAX_SIDE_PX = 2048
"""Larger pictures are drawn smaller."""

Rgb = NDArray[np.uint8]

# Okabe and Ito's colours, which the colour-blind can tell apart.
ORANGE, SKY, VERMILION, BLUE = (230, 159, 0), (86, 180, 233), (213, 94, 0), (0, 114, 178)
WIDTHS = np.array([(20, 24, 70), (0, 114, 178), (0, 158, 115), (240, 228, 66)], float)
"""Colours from narrow to wide."""


def overlay_files(path: Path, solid: SolidSide = "auto") -> dict[str, bytes]:
    """Return the three overlays of a picture as PNG, by the name of the file to write.

    Raises:
        UsageError: as in `imagegen.luma.read_luma`.
    """
    luma = coarser(luma_of(path), MAX_SIDE_PX)
    drawn = {
        "directions": directions(luma),
        "pores": pores(luma, solid),
        "skeleton": skeleton(luma, solid),
    }
    return {f"{path.stem}-{name}.png": _png(drawn[name]) for name in OVERLAYS}


def directions(luma: Luma) -> Rgb:
    """Draw a short stroke along the lines of each patch; the longer, the more parallel they are."""
    k = _enlargement(luma)
    image = Image.fromarray(_grey(luma, 0.55, k))
    tensor = tensor_of(luma)
    if tensor is None:
        return np.asarray(image)
    draw = ImageDraw.Draw(image)
    h, w = tensor.xx.shape
    margin = (luma.shape[0] - h) // 2
    patch = max(min(h, w) // 24, 6)
    typical, steps = float(tensor.energy.mean()), np.arange(patch)
    for row in range(0, h - patch + 1, patch):
        for column in range(0, w - patch + 1, patch):
            part = (slice(row, row + patch), slice(column, column + patch))
            xx, yy, xy = (float(t[part].mean()) for t in tensor)
            if xx + yy < 0.02 * typical:  # nothing to see there
                continue
            coherence = float(np.hypot(xx - yy, 2 * xy)) / (xx + yy)
            along = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
            dx, dy = np.cos(along), -np.sin(along)
            reach = 0.5 * patch * k * coherence
            # In the middle of what runs there, so that the stroke lies on its line.
            weight = tensor.energy[part]
            x = (column + margin + 0.5 + np.average(steps, weights=weight.sum(0))) * k
            y = (row + margin + 0.5 + np.average(steps, weights=weight.sum(1))) * k
            line = (x - reach * dx, y - reach * dy, x + reach * dx, y + reach * dy)
            draw.line(line, fill=_hue(along), width=max(k, 3))
    return np.asarray(image)


def pores(luma: Luma, solid: SolidSide = "auto") -> Rgb:
    """Colour the void by its local width, from dark blue (narrow) to yellow (wide)."""
    k, phases = _enlargement(luma), phases_of(luma, solid)
    shown = _grey(luma * 0 + 0.92, 1.0, 1)
    if phases.threshold is not None:
        width = local_thickness(~phases.solid)
        widest = max(float(width.max()), 1.0)
        at = width / widest * (len(WIDTHS) - 1)
        low = np.minimum(at.astype(int), len(WIDTHS) - 2)
        colour = WIDTHS[low] + (at - low)[..., None] * (WIDTHS[low + 1] - WIDTHS[low])
        shown = np.where(phases.solid[..., None], shown, colour.astype(np.uint8))
    return _enlarged(shown, k)


def skeleton(luma: Luma, solid: SolidSide = "auto") -> Rgb:
    """Draw the middle lines of the solid, a disc at each branch point, a ring at each end."""
    from scipy.ndimage import center_of_mass

    k, phases = _enlargement(luma), phases_of(luma, solid)
    lines = lines_of(phases.solid)
    shown = np.where(phases.solid[..., None], 190, 250).astype(np.uint8).repeat(3, axis=2)
    shown[lines.line] = BLUE
    image = Image.fromarray(_enlarged(shown, k))
    draw = ImageDraw.Draw(image)
    numbers = np.arange(1, lines.n_branches + 1)
    forks = np.array(center_of_mass(lines.line, lines.branch, numbers)).reshape(-1, 2)
    r = max(1.2 * k, 3.0)
    for down, right in forks.tolist():
        x, y = (right + 0.5) * k, (down + 0.5) * k
        draw.ellipse((x - r, y - r, x + r, y + r), fill=VERMILION)
    for down, right in np.argwhere(lines.end).tolist():
        x, y = (right + 0.5) * k, (down + 0.5) * k
        draw.ellipse((x - r, y - r, x + r, y + r), outline=ORANGE, width=max(k // 2, 2))
    return np.asarray(image)


def _enlargement(luma: Luma) -> int:
    return int(max(1, -(-SHOWN_PX // max(luma.shape))))


def _enlarged(shown: Rgb, k: int) -> Rgb:
    return shown.repeat(k, axis=0).repeat(k, axis=1)


def _grey(luma: Luma, brightness: float, k: int) -> Rgb:
    grey = np.rint(luma * 255 * brightness).astype(np.uint8)
    return _enlarged(np.stack([grey] * 3, -1), k)


def _hue(angle: float) -> tuple[int, int, int]:
    """A colour for a line direction; it comes round after half a turn."""
    import colorsys

    r, g, b = colorsys.hsv_to_rgb(angle / np.pi % 1, 0.85, 1.0)
    return round(255 * r), round(255 * g), round(255 * b)


def _png(pixels: Rgb) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
