"""How alike two pictures are, by what was measured in them."""

from __future__ import annotations

import math

from orbweave.records import Measurement

__all__ = ["unlikeness"]

# A difference of one of these is as much as of another; chosen by us, about twice what the
# critic's rule calls near.
SOLID_FRACTION = 0.1
OCTAVES = 0.5
"""Of the spacing."""
ANISOTROPY = 0.2
CONTRAST = 0.1
DIRECTION_DEG = 30.0
ONLY_ONE = 2.0
"""Counts where one picture repeats itself, or has a direction, and the other does not."""


def unlikeness(a: Measurement, b: Measurement) -> float:
    """Return the distance of two pictures' statistics, 0 for the same; it has no unit.

    A direction counts as much as the less directed of the two pictures has one.
    """
    firmness = min(a.anisotropy, b.anisotropy)
    parts = (
        (a.solid_fraction - b.solid_fraction) / SOLID_FRACTION,
        (a.anisotropy - b.anisotropy) / ANISOTROPY,
        (a.contrast - b.contrast) / CONTRAST,
        _octaves(a.spacing_px, b.spacing_px) / OCTAVES,
        firmness * _turn(a.direction_deg, b.direction_deg) / DIRECTION_DEG,
    )
    return math.hypot(*parts)


def _octaves(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else ONLY_ONE * OCTAVES
    return math.log2(a / b)


def _turn(a: float | None, b: float | None) -> float:
    """Return the angle between two lines in degrees, 0 to 90."""
    if a is None or b is None:
        return 0.0 if a is b else ONLY_ONE * DIRECTION_DEG
    apart = abs(a - b) % 180.0
    return min(apart, 180.0 - apart)
