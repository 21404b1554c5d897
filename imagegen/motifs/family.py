"""What a kind of motif is: how it is drawn, its natural ranges and its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imagegen.canvas import Canvas, Relief
from orbweave.records import Motif

__all__ = ["Family", "Rng"]

Rng = np.random.Generator


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
