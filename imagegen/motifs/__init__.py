"""Procedural geometries of biological microstructures, each with continuous parameters.

A family draws a `Relief` from a `Motif`; lengths are pixels of a 256-pixel picture. What
a motif is in words, technical and plain, stands beside its drawing, for captions, for
retrieval and for people. Each file holds a group of drawings and its table of families.
"""

from __future__ import annotations

import numpy as np

from imagegen.canvas import Canvas, Relief
from imagegen.motifs.cells import CELLS
from imagegen.motifs.family import Family, Rng, Seen
from imagegen.motifs.fibres import FIBRES
from imagegen.motifs.growth import GROWTH
from imagegen.motifs.plates import PLATES
from imagegen.motifs.porous import POROUS
from imagegen.motifs.skeletons import SKELETONS
from imagegen.motifs.skins import SKINS
from imagegen.motifs.surfaces import SURFACES
from imagegen.motifs.veins import VEINS
from orbweave.errors import UsageError, shown
from orbweave.records import Motif

__all__ = ["FAMILIES", "Family", "Seen", "draw_motif", "known_family", "random_motif"]

# New groups go to the end: where two families fit words equally well, the earlier one is meant.
FAMILIES: dict[str, Family] = {
    **FIBRES, **VEINS, **CELLS, **PLATES, **POROUS,
    **SKINS, **SKELETONS, **GROWTH, **SURFACES,
}  # fmt: skip


def known_family(name: str) -> Family:
    """Return the family of a name.

    Raises:
        UsageError: there is none.
    """
    if name not in FAMILIES:
        raise UsageError(
            f"wanted a family of motifs, got {shown(name)}; the names are {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def draw_motif(c: Canvas, motif: Motif, rng: Rng) -> Relief:
    """Draw a motif; arrays of shape (size, size), float32, in [0, 1].

    Raises:
        UsageError: an unknown family.
    """
    relief = known_family(motif.family).draw(c, motif, rng)
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
