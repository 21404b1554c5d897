"""Which way the lines of a picture run, and whether they run round a middle.

Angles are of lines, in [0, 180), anticlockwise from horizontal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.luma import FLAT_RANGE, Luma
from orbweave.records import Order

__all__ = [
    "Direction",
    "Tensor",
    "directions_of",
    "dominant_directions",
    "main_direction",
    "order",
    "tensor_of",
]

MIN_SIDE_PX = 16
"""Smaller pictures have too few pixels for a direction."""
MIN_COHERENCE = 0.1
GRADIENT_SIGMA_PX = 1.5
MAX_DIRECTIONS = 3
HISTOGRAM_SIGMA_DEG = 5.0
"""Blur of the histogram of line directions: what lies closer together is one direction."""
BLOCK_PX = 1 << 16
"""Pixels whose lines have an angle at a time, as many as NumPy's histogram counts at once."""
MIN_PEAK = 1.35
"""How far a direction must stand above the mean of all, and above the valley beside it."""


class Direction(NamedTuple):
    """Where the lines of a picture run."""

    deg: float | None
    """Main direction in [0, 180), anticlockwise from horizontal; None if isotropic."""
    coherence: float
    """0 without a preferred direction, 1 if all lines are parallel."""


class Tensor(NamedTuple):
    """Gradient products of every pixel but those near the border, each of shape (h, w)."""

    xx: Luma
    yy: Luma
    xy: Luma

    @property
    def energy(self) -> Luma:
        """Squared length of the gradient."""
        return self.xx + self.yy


def tensor_of(luma: Luma) -> Tensor | None:
    """Return the products of the gradient g, a Gaussian derivative of `GRADIENT_SIGMA_PX`.

    None if the picture is constant, smaller than `MIN_SIDE_PX` or finer than the filter.
    """
    from scipy.ndimage import gaussian_filter

    margin = int(np.ceil(3 * GRADIENT_SIGMA_PX))
    if min(luma.shape) < MIN_SIDE_PX or np.ptp(luma) <= FLAT_RANGE:
        return None
    # Mirroring at the border makes gradients run along it: leave the border out.
    inner = (slice(margin, -margin), slice(margin, -margin))
    gx = gaussian_filter(luma, GRADIENT_SIGMA_PX, order=(0, 1))[inner].copy()
    gy = -gaussian_filter(luma, GRADIENT_SIGMA_PX, order=(1, 0))[inner]  # rows run downwards
    xy = gx * gy
    # In place: of a large scan each array is half a gigabyte.
    gx *= gx
    gy *= gy
    return Tensor(gx, gy, xy) if gx.mean() + gy.mean() >= 1e-12 else None


def directions_of(luma: Luma) -> tuple[Direction, tuple[float, ...]]:
    """Return `main_direction` and `dominant_directions` of a picture, its tensor made once."""
    tensor = tensor_of(luma)
    return (Direction(None, 0.0), ()) if tensor is None else (_main(tensor), _dominant(tensor))


def main_direction(luma: Luma) -> Direction:
    """Return the main line direction from the structure tensor of the whole picture.

    The tensor is the mean of g g^T. Lines run across the gradient, along the eigenvector of
    the smaller eigenvalue; coherence is (l1 - l2) / (l1 + l2). Below `MIN_COHERENCE` there is
    no direction.

    Source: Bigun and Granlund, ICCV 1987; Jähne, Digital Image Processing, section 13.3.
    """
    tensor = tensor_of(luma)
    return Direction(None, 0.0) if tensor is None else _main(tensor)


def _main(tensor: Tensor) -> Direction:
    xx, yy, xy = (float(part.mean()) for part in tensor)
    coherence = min(float(np.hypot(xx - yy, 2 * xy)) / (xx + yy), 1.0)
    if coherence < MIN_COHERENCE:
        return Direction(None, coherence)
    across = 0.5 * np.degrees(np.arctan2(2 * xy, xx - yy))
    deg = round(float(across + 90.0) % 180.0, 6)
    return Direction(deg % 180.0, coherence)


def dominant_directions(luma: Luma) -> tuple[float, ...]:
    """Return up to three line directions in degrees, the strongest first; () if none stands out.

    Peaks of the histogram of the line directions of all pixels, each counted with the energy
    of its gradient. A hexagonal net has three, a square grid two, parallel lines one.
    """
    tensor = tensor_of(luma)
    return () if tensor is None else _dominant(tensor)


def _dominant(tensor: Tensor) -> tuple[float, ...]:
    from scipy.ndimage import gaussian_filter1d

    count = np.zeros(180)
    for start in range(0, tensor.xx.size, BLOCK_PX):
        xx, yy, xy = (part.ravel()[start : start + BLOCK_PX] for part in tensor)
        across = 0.5 * np.degrees(np.arctan2(2 * xy, xx - yy))
        lines = (across + 90) % 180
        count += np.histogram(lines, bins=180, range=(0, 180), weights=xx + yy)[0]
    # Pixel rows and columns bind gradients to 0, 45 and 90 degrees; the blur evens that out.
    smooth = gaussian_filter1d(count, HISTOGRAM_SIGMA_DEG, mode="wrap")
    return tuple(_peak(smooth, k) for k in _peaks(smooth / smooth.mean()))


def _peaks(level: NDArray[np.float64]) -> list[int]:
    """The highest maxima of a ring that stand above its mean and above the valleys beside them."""
    is_peak = (level > np.roll(level, 1)) & (level >= np.roll(level, -1)) & (level > MIN_PEAK)
    kept: list[int] = []
    for k in sorted(np.flatnonzero(is_peak), key=lambda k: -level[k]):
        if all(_valley(level, int(k), other) * MIN_PEAK < level[k] for other in kept):
            kept.append(int(k))
    return kept[:MAX_DIRECTIONS]


def _valley(level: NDArray[np.float64], a: int, b: int) -> float:
    """The higher of the two lowest points between two places on a ring."""
    a, b = sorted((a, b))
    return float(max(level[a : b + 1].min(), np.concatenate([level[b:], level[: a + 1]]).min()))


def _peak(level: NDArray[np.float64], k: int) -> float:
    """Place of a maximum between bins, by the parabola through three of them."""
    left, middle, right = (float(level[(k + i) % len(level)]) for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    return round((k + 0.5 + shift) % 180.0, 2) % 180.0


def order(luma: Luma) -> Order:
    """Return whether lines run in parallel, out from a middle, or round it.

    With theta the direction of a line and phi that of the place where it is, seen from the
    middle, `radial` is the mean of cos 2(theta - phi) and `polar` that of cos 4(theta - phi),
    both weighted with the energy of the gradient. The middle is the point that minimises the
    distances to all lines, or to all their normals, whichever orders the lines better.
    """
    tensor = tensor_of(luma)
    if tensor is None:
        return Order(parallel=0.0, radial=0.0, polar=0.0, centre=None)
    h, w = tensor.xx.shape
    x, y = np.meshgrid((np.arange(w) + 0.5) / w, 1 - (np.arange(h) + 0.5) / h)
    turned = Tensor(tensor.yy, tensor.xx, -tensor.xy)  # the normals of the lines
    found = [
        (*_polar_means(tensor, x * w, y * h, centre, (w, h)), centre)
        for centre in (_crossing(t, x, y, (w, h)) for t in (tensor, turned))
    ]
    radial, polar, centre = max(found, key=lambda f: max(abs(f[0]), f[1]))
    margin_x, margin_y = (luma.shape[1] - w) / 2, (luma.shape[0] - h) / 2
    return Order(
        parallel=round(_main(tensor).coherence, 6),
        radial=round(radial, 6),
        polar=round(polar, 6),
        centre=(round(margin_x + centre[0] * w, 1), round(margin_y + (1 - centre[1]) * h, 1)),
    )


def _crossing(tensor: Tensor, x: Luma, y: Luma, size: tuple[int, int]) -> tuple[float, float]:
    """Where lines cross: the c with sum J (p - c) = 0, in shares of the picture, y upwards.

    Outside the picture, as for parallel lines, its middle is taken.
    """
    w, h = size
    j = np.array([[tensor.xx.mean(), tensor.xy.mean()], [tensor.xy.mean(), tensor.yy.mean()]])
    at = (x * w, y * h)
    right = np.array(
        [
            (tensor.xx * at[0] + tensor.xy * at[1]).mean(),
            (tensor.xy * at[0] + tensor.yy * at[1]).mean(),
        ]
    )
    if np.linalg.cond(j) > 1e3:
        return 0.5, 0.5
    cx, cy = np.linalg.solve(j, right) / (w, h)
    return (float(cx), float(cy)) if 0 < cx < 1 and 0 < cy < 1 else (0.5, 0.5)


def _polar_means(
    tensor: Tensor, x: Luma, y: Luma, centre: tuple[float, float], size: tuple[int, int]
) -> tuple[float, float]:
    """(radial, polar) order round a middle."""
    phi = np.arctan2(y - centre[1] * size[1], x - centre[0] * size[0])
    theta = 0.5 * np.arctan2(2 * tensor.xy, tensor.xx - tensor.yy) + np.pi / 2
    energy = tensor.energy / tensor.energy.sum()
    return (
        float((energy * np.cos(2 * (theta - phi))).sum()),
        float((energy * np.cos(4 * (theta - phi))).sum()),
    )
