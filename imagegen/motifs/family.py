"""What a kind of motif is: how it is drawn, its natural ranges and its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imagegen.canvas import Canvas, Relief
from orbweave.records import Motif

__all__ = ["HEXAGONAL", "Family", "Rng", "Seen"]

Rng = np.random.Generator

HEXAGONAL = 3**0.5 / 2
"""Distance of the rows of a triangular lattice, as a share of the distance of its points."""


class Seen(NamedTuple):
    """What a measurement of the bare drawing reads, in terms of the motif's own numbers.

    The spectrum sees rows and not cells, the structure tensor lines and not axes. Geometry
    says the numbers where it can; the others are means over drawings, see benchmarks/measure.py.
    """

    period: float | None = 1.0
    """Dominant period of the spectrum as a multiple of `spacing`; None: it has none."""
    repeat: float | None = None
    """Shortest repeat as a multiple of `spacing`; None: no lattice, or not the same in all."""
    direction: float | None = None
    """Main direction in degrees less `direction_deg`; None: isotropic on the whole."""
    lines: tuple[float, ...] = ()
    """Dominant directions in degrees less `direction_deg`, where there are several."""


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
    seen: Seen = Seen()
    """What a measurement reads."""
