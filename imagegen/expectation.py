"""What a measurement of a structure's drawing should read, so that asked and measured compare.

The numbers of a motif are those of its construction: the distance of cells, the axis of a
fold. A measurement sees periods and lines. Each family states how they hang together
(`imagegen.motifs.Seen`); how well that holds is measured in `benchmarks/measure.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from imagegen.canvas import canvas
from imagegen.motifs import FAMILIES
from imagegen.scene import compose
from orbweave.records import Structure

__all__ = ["Expected", "angle_between", "expected"]


class Expected(NamedTuple):
    """What should be measured; None where the structure promises nothing."""

    solid_fraction: float
    spacing_px: float | None
    repeat_px: float | None
    direction_deg: float | None
    directions_deg: tuple[float, ...]


def expected(structure: Structure, size_px: int) -> Expected:
    """Return what a measurement of the structure's seed picture should read.

    The solid fraction is that of the drawing itself. Spacing and direction are promised by a
    single motif only: of two, either may be the stronger.

    Args:
        structure: As drawn by `imagegen.scene.seed_picture`.
        size_px: Side of the picture; lengths scale with it.
    """
    cover = compose(canvas(size_px), structure, np.random.default_rng(structure.seed)).relief.cover
    solid = float((cover > 0.5).mean())
    if len(structure.motifs) > 1:
        return Expected(solid, None, None, None, ())
    motif, scale = structure.motifs[0], size_px / 256
    seen = FAMILIES[motif.family].seen
    length = motif.spacing * scale
    return Expected(
        solid_fraction=solid,
        spacing_px=None if seen.period is None else seen.period * length,
        repeat_px=None if seen.repeat is None else seen.repeat * length,
        direction_deg=(
            None if seen.direction is None else (motif.direction_deg + seen.direction) % 180
        ),
        directions_deg=tuple((motif.direction_deg + line) % 180 for line in seen.lines),
    )


def angle_between(a_deg: float, b_deg: float) -> float:
    """Return the angle between two lines, in [0, 90] degrees."""
    return abs((a_deg - b_deg + 90) % 180 - 90)
