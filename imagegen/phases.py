"""The two phases of a picture, solid and void: which pixel is which, and how each hangs together.

A picture becomes two phases at Otsu's threshold. Solid pixels that touch at a corner hang
together, void pixels do not: the usual dual pair, by which a line one pixel wide parts the void.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.luma import FLAT_RANGE, REC_709, Luma
from orbweave.records import Connectivity

__all__ = [
    "SIDES",
    "Mask",
    "Phases",
    "SolidSide",
    "connectivity",
    "euler_number",
    "otsu_threshold",
    "phases_of",
    "solid_fraction",
    "solid_side_of",
]

Mask = NDArray[np.bool_]
SolidSide = Literal["auto", "bright", "dark"]
SIDES: tuple[SolidSide, ...] = ("auto", "bright", "dark")

LIGHT_GROUND = 0.75
"""Mean luma above which the bright side may be a ground, such as paper."""
BAND = 0.05
"""How far the threshold is moved each way for the stability band, as a share of the luma range."""
TONE = 0.03
"""How far a grey level may be from the commonest of its phase to be its tone, as a share of the
distance of both; chosen by us."""
TWO_TONED = 0.7
"""Share of pixels in one of the two tones from which on a picture is one of two tones; likewise."""
EDGES = np.ones((3, 3), bool)
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


class Phases(NamedTuple):
    """A picture in two phases."""

    solid: Mask
    """Shape (H, W); True where there is material. All False in a constant picture."""
    threshold: float | None
    """Luma in [0, 1] that parts the phases; None in a constant picture."""
    side: Literal["bright", "dark"]
    """Which side of the threshold is solid."""
    fraction: float
    """Share of the picture that is solid, in [0, 1]: of its pixels; in a picture of two tones,
    those that an edge runs through count as far as they are solid."""
    band: tuple[float, float]
    """Least and largest solid fraction if the threshold moves by `BAND` of the luma range."""


def phases_of(luma: Luma, solid: SolidSide = "auto") -> Phases:
    """Part a picture at Otsu's threshold.

    With `auto` the bright side is solid, as on a dark ground, unless the bright side
    looks like a light ground: brighter than `LIGHT_GROUND` on average and nearer to white
    than the dark side is to black (chosen by us: right for 89 of 100 random structures of
    our generator). Where the look is known, `solid_side_of` says it.
    """
    span = float(np.ptp(luma))
    if span <= FLAT_RANGE:
        return Phases(np.zeros(luma.shape, bool), None, "bright", 0.0, (0.0, 0.0))
    tones = _tones(luma)
    threshold = _otsu(tones)
    bright = luma > threshold
    if solid == "auto":
        high, low = float(luma[bright].mean()), float(luma[~bright].mean())
        solid = "dark" if high > LIGHT_GROUND and 1 - high < low else "bright"
    covered = _covered(tones, threshold)
    fraction = float(bright.mean()) if covered is None else covered
    shares = [float((luma > threshold + shift * span).mean()) for shift in (-BAND, BAND)]
    least, most = min(*shares, fraction), max(*shares, fraction)
    if solid == "dark":
        return Phases(~bright, threshold, "dark", 1 - fraction, (1 - most, 1 - least))
    return Phases(bright, threshold, "bright", fraction, (least, most))


def otsu_threshold(luma: Luma) -> float:
    """Threshold in [0, 1] that parts 256 grey levels into the two most distinct classes.

    Between two equally good thresholds lies nothing, and their middle is taken.

    Source: Otsu, IEEE Trans. SMC 9 (1979) 62, eq. 18.
    """
    return _otsu(_tones(luma))


class _Tones(NamedTuple):
    """How often each of 256 grey levels is there."""

    share: NDArray[np.float64]
    middle: NDArray[np.float64]
    edges: NDArray[np.float64]


def _tones(luma: Luma) -> _Tones:
    count, edges = np.histogram(luma, bins=256, range=(0.0, 1.0))
    return _Tones(count / count.sum(), (edges[:-1] + edges[1:]) / 2, edges)


def _otsu(tones: _Tones) -> float:
    p, middle, edges = tones
    omega, mu = np.cumsum(p), np.cumsum(p * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mu[-1] * omega - mu) ** 2 / (omega * (1 - omega))
    between = np.nan_to_num(between, nan=0.0, posinf=0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float((edges[best[0] + 1] + edges[best[-1] + 1]) / 2)


def _covered(tones: _Tones, threshold: float) -> float | None:
    """Return the share of the bright phase, edges counted in part; None if tones are many.

    An edge that runs through pixels gives them a mixture of the two tones, and whole pixels are
    up to half a pixel off. In shade a mixture is no such thing.
    """
    share, middle, _ = tones
    bright = middle > threshold
    # The commonest level of a phase is its tone; of two as common, the one farther from the other.
    low = middle[np.argmax(share * ~bright)]
    high = middle[::-1][np.argmax((share * bright)[::-1])]
    off = np.abs(middle - np.where(bright, high, low)) / (high - low)
    if share[off <= TONE].sum() < TWO_TONED:
        return None
    return float(share @ np.clip((middle - low) / (high - low), 0, 1))


def solid_fraction(luma: Luma, solid: SolidSide = "auto") -> float:
    """Return the share of a picture on the solid side of Otsu's threshold, see `Phases`.

    A constant picture shows no structure: 0.
    """
    return phases_of(luma, solid).fraction


def solid_side_of(look: str) -> Literal["bright", "dark"]:
    """Return on which side of the threshold the material of a look lies.

    Raises:
        UsageError: an unknown look.
    """
    from imagegen.looks import parse_look

    parsed = parse_look(look)
    material = np.mean([parsed.first[1] @ REC_709, parsed.second[1] @ REC_709])
    ground = float(parsed.ground.mean(0) @ REC_709)
    return "bright" if material > ground else "dark"


def connectivity(phase: Mask, *, corners: bool) -> Connectivity:
    """Return how one phase hangs together; with `corners` through touching corners too.

    Parts that the border of the picture cuts count as parts.
    """
    from scipy.ndimage import label

    parts, n_parts = label(phase, structure=EDGES if corners else CROSS)
    sizes = np.bincount(parts.ravel())[1:]
    return Connectivity(
        n_parts=int(n_parts),
        largest_share=float(sizes.max() / sizes.sum()) if n_parts else 0.0,
        percolates_across=_shared(parts[:, 0], parts[:, -1]),
        percolates_down=_shared(parts[0], parts[-1]),
    )


def _shared(one: NDArray[np.signedinteger[Any]], other: NDArray[np.signedinteger[Any]]) -> bool:
    """Whether a part reaches two opposite borders; 0 is no part."""
    return bool(np.intersect1d(one[one > 0], other[other > 0]).size)


def euler_number(solid: Mask) -> int:
    """Return solid parts minus the holes in them; holes at the border are none.

    Source: `skimage.measure.euler_number`, 8-connected solid.
    """
    from skimage.measure import euler_number as euler

    return int(euler(solid, connectivity=2))  # type: ignore[no-untyped-call]
