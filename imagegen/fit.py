"""Structures fitted to a measure: what a drawn structure measures, and numbers that meet an aim.

What is drawn is measured with the instrument that measures renderings, so that aimed and measured
mean the same, whatever a family calls its spacing or its direction. All are those of the flat
picture that a rendering starts from and is given the detail of, see `imagegen.detail`: light falls
across lines and would turn them, and shaded flanks would not count as solid, which in a rendering
they mostly do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from imagegen.expectation import angle_between
from imagegen.luma import REC_709, Luma
from imagegen.measure import measure_pixels, solid_fraction, solid_side_of
from imagegen.motifs import FAMILIES, random_motif
from imagegen.scene import lit_picture, seed_picture
from imagegen.spacings import spectrum_of
from orbweave.records import (
    SPACING_BOUNDS,
    THICKNESS_BOUNDS,
    Motif,
    Structure,
    Targets,
)

__all__ = ["errors", "fit", "lasting", "measure_drawn"]

SIDE_PX = 256
"""Structures are drawn at the size they are given in."""
SEEN = 0.35
"""Anisotropy from which on a direction is one that a rendering keeps; chosen by us: those of
weaker mixtures swing round with a small change of thickness."""
OWN_PERIOD = (0.75, 1.3)
"""A measured period over a motif's spacing, within which it is that motif's own: rows of cells
on a hexagonal lattice stand 0.87 spacings apart. Others are accidents no rendering keeps."""
FAINT = 0.042
"""Root mean square brightness, white being 1, of the waves of a period below which a rendering's
own roughness drowns it. Chosen by us: of 157 periods the three fainter ones were lost or off by
more than a tenth, and none of the others."""
STEADY = {"solid_fraction": 0.08, "spacing_px": 0.10}
"""Difference between a drawing in flat colours and in its light, as `errors` gives it, up to
which a number is the structure's; beyond, as in bundles of round shaded fibres, it may be the
light's. Chosen by us. Of the solid fraction 85 of 86 renderings are within 0.05 of the flat
drawing below it, 21 of 34 above; of the spacing 155 of 156 within a tenth, 7 of 10. Directions
are kept whatever the light does: 52 of 53."""
NEAR_SOLID = 0.005
NEAR_SPACING = 0.03
DRAWINGS = 7
"""Pictures drawn at most to find a thickness."""
REDRAWN = 8
"""Other seeds tried where numbers alone do not meet the aims: whether a drawing has a period, or
its lines one direction, hangs on its accidents too."""
RECAST = 12
"""Other numbers of the motifs tried where no seed meets the aims: how regular a motif is, and one
motif's spacing and thickness beside the other's, no scaling changes."""
MET = {"solid_fraction": 0.015, "spacing_px": 0.05, "direction_deg": 4.0}
"""Error of a drawing that meets its aim; of the 0.05, a tenth and 8 degrees that pictures are held
to, the rest is left to the rendering."""

Size = tuple[int, int]
"""(width, height) in pixels."""


def measure_drawn(structure: Structure, size_px: Size = (SIDE_PX, SIDE_PX)) -> Targets:
    """Return what a structure measures as it is drawn, as a picture's targets.

    Args:
        structure: Its seed decides every accident.
        size_px: Of the picture it is for; spacing is in its pixels.

    Returns:
        The solid fraction; the direction, if the structure has one that can be seen; the
        spacing, if the measured period is the structure's own.
    """
    flat = _luma(seed_picture(structure, SIDE_PX), size_px)
    found, anisotropy = _measured(flat, structure, size_px)
    directed = any(FAMILIES[motif.family].directed for motif in structure.motifs)
    unseen = set() if directed and anisotropy >= SEEN else {"direction_deg"}
    if not _has_period(flat, found.spacing_px, structure, size_px):
        unseen.add("spacing_px")
    return found.model_copy(update=dict.fromkeys(unseen))


def lasting(structure: Structure, size_px: Size = (SIDE_PX, SIDE_PX)) -> Targets:
    """Return what of `measure_drawn` a rendering will measure too, whatever the light does."""
    drawn = measure_drawn(structure, size_px)
    return drawn.model_copy(update=dict.fromkeys(_light_made(structure, drawn, size_px)))


def _light_made(structure: Structure, drawn: Targets, size_px: Size) -> set[str]:
    """Name the numbers of a drawing that are others in its light."""
    lit = _luma(lit_picture(structure, SIDE_PX, float(SIDE_PX)), size_px)
    in_light, _ = _measured(lit, structure, size_px)
    off = errors(drawn.model_copy(update={"direction_deg": None}), in_light).items()
    return {name for name, error in off if error is None or error > STEADY[name]}


def errors(wanted: Targets, found: Targets) -> dict[str, float | None]:
    """Return how far off each number is that was wanted; None: not found.

    Of the solid fraction the difference, of the spacing its share, of the direction degrees.
    """
    told: dict[str, float | None] = {}
    for name, value in wanted.model_dump(exclude_none=True).items():
        came = getattr(found, name)
        if came is None:
            told[name] = None
        elif name == "direction_deg":
            told[name] = angle_between(came, value)
        else:
            told[name] = abs(came - value) / (value if name == "spacing_px" else 1)
    return told


def fit(structure: Structure, aims: Targets, size_px: Size = (SIDE_PX, SIDE_PX)) -> Structure:
    """Return a structure that measures the aims as nearly as its numbers allow.

    Motifs are turned together, their spacings scaled by one factor, their thicknesses by
    another. Where there is no direction or period to go by, the numbers of the motifs are set
    instead. Only where that does not meet the aims, or a period not in the light too, are other
    seeds tried, and only where no seed does, other numbers of the motifs to start from. Where
    those do not either, the first that meets the aims in flat colours is returned, or what comes
    nearest.

    Args:
        structure: Where to start; families, colours and light stay.
        aims: What to measure; None leaves a number as it is.
        size_px: Of the picture it is for.
    """
    tried: list[tuple[float, Structure]] = []
    for start in _starts(structure):
        fitted = _fitted(start, aims, size_px)
        drawn = measure_drawn(fitted, size_px)
        off = _worst(errors(aims, drawn))
        if off <= 1 and (aims.spacing_px is None or _keeps_period(fitted, drawn, size_px)):
            return fitted
        tried.append((max(off, 1), fitted))
    return min(tried, key=lambda pair: pair[0])[1]


def _keeps_period(structure: Structure, drawn: Targets, size_px: Size) -> bool:
    return "spacing_px" not in _light_made(structure, drawn, size_px)


def _starts(structure: Structure) -> Iterator[Structure]:
    """Yield the structure, then with other seeds, then with other numbers of its motifs too."""
    yield structure
    for k in range(1, REDRAWN + RECAST + 1):
        redrawn = structure.model_copy(update={"seed": (structure.seed + k) % 2**32})
        yield redrawn if k <= REDRAWN else _recast(redrawn)


def _recast(structure: Structure) -> Structure:
    """Draw other numbers natural to the motifs, by the structure's seed; directions stay."""
    rng = np.random.default_rng(structure.seed)
    others = {"spacing", "thickness", "irregularity"}
    return _each(structure, lambda m: random_motif(m.family, rng).model_dump(include=others))


def _fitted(structure: Structure, aims: Targets, size_px: Size) -> Structure:
    """Set the numbers of the motifs, the seed as it is."""
    for _ in range(2):  # the second mends what the first turn and scale did to each other
        if aims.direction_deg is not None:
            structure = _turned(structure, aims.direction_deg, size_px)
        if aims.spacing_px is not None:
            structure = _spaced(structure, aims.spacing_px, size_px)
    if aims.solid_fraction is not None:
        structure = _filled(structure, aims.solid_fraction, size_px)
    return structure


def _worst(off: Mapping[str, float | None]) -> float:
    """Return the largest error over what meets an aim; infinite if something is not found."""
    shares = (math.inf if error is None else error / MET[name] for name, error in off.items())
    return max(shares, default=0.0)


def _luma(drawn: NDArray[np.uint8], size_px: Size) -> Luma:
    """Return a square drawing as luma, cut to the proportions of `size_px` around its middle."""
    side = max(size_px)
    height, width = (max(1, round(SIDE_PX * n / side)) for n in reversed(size_px))
    top, left = (SIDE_PX - height) // 2, (SIDE_PX - width) // 2
    cut = drawn[top : top + height, left : left + width].astype(np.float64)
    luma: Luma = cut / 255 @ REC_709
    return luma


def _solid(structure: Structure, size_px: Size) -> float:
    luma = _luma(seed_picture(structure, SIDE_PX), size_px)
    return solid_fraction(luma, solid_side_of(structure.look))


def _measured(luma: Luma, structure: Structure, size_px: Size) -> tuple[Targets, float]:
    """Measure a drawing as renderings of its structure are; its anisotropy too."""
    found = measure_pixels(luma, picture="drawn", solid=solid_side_of(structure.look))
    direction, spacing = found.direction_deg, found.spacing_px
    numbers = Targets(
        solid_fraction=round(found.solid_fraction, 4),
        direction_deg=None if direction is None else round(direction, 1) % 180,
        spacing_px=None if spacing is None else round(spacing * max(size_px) / SIDE_PX, 2),
    )
    return numbers, found.anisotropy


def _has_period(flat: Luma, period_px: float | None, structure: Structure, size_px: Size) -> bool:
    """Whether a period, in pixels of the picture, is one of the motifs' and not faint."""
    if period_px is None:
        return False
    period = period_px * SIDE_PX / max(size_px)
    low, high = OWN_PERIOD
    if not any(low <= period / motif.spacing <= high for motif in structure.motifs):
        return False
    spectrum = spectrum_of(flat)
    return spectrum is not None and spectrum.rms_at(period) >= FAINT


def _turned(structure: Structure, aim_deg: float, size_px: Size) -> Structure:
    drawn = measure_drawn(structure, size_px).direction_deg
    if drawn is None:
        return _each(structure, lambda m: {"direction_deg": aim_deg})
    turn = aim_deg - drawn
    return _each(structure, lambda m: {"direction_deg": round(m.direction_deg + turn, 1) % 180})


def _spaced(structure: Structure, aim_px: float, size_px: Size) -> Structure:
    drawn = measure_drawn(structure, size_px).spacing_px
    if drawn is None:
        spacing = _within(aim_px * SIDE_PX / max(size_px), SPACING_BOUNDS)
        return _each(structure, lambda m: {"spacing": spacing})
    if abs(drawn / aim_px - 1) <= NEAR_SPACING:
        return structure
    factor = aim_px / drawn
    return _each(structure, lambda m: {"spacing": _within(m.spacing * factor, SPACING_BOUNDS)})


def _filled(structure: Structure, aim: float, size_px: Size) -> Structure:
    """Find the thickness by secants from the structure's own on; the nearest found is kept."""

    def thicker(factor: float) -> Structure:
        bounds = THICKNESS_BOUNDS
        return _each(structure, lambda m: {"thickness": _within(m.thickness * factor, bounds, 3)})

    def solid(factor: float) -> float:
        return _solid(thicker(factor), size_px)

    tried = [(1.0, solid(1.0))]
    while len(tried) < DRAWINGS and min(abs(s - aim) for _, s in tried) > NEAR_SOLID:
        factor = _next_factor(tried, aim)
        if any(abs(factor - f) < 0.005 for f, _ in tried):
            break
        tried.append((factor, solid(factor)))
    best, _ = min(tried, key=lambda pair: abs(pair[1] - aim))
    return thicker(best)


def _next_factor(tried: list[tuple[float, float]], aim: float) -> float:
    """Return the next factor to try: in proportion at first, then along the nearest secant."""
    (f1, s1), *rest = sorted(tried, key=lambda pair: abs(pair[1] - aim))
    factor = f1 * aim / max(s1, 0.01)
    if rest:
        f0, s0 = rest[0]
        if abs(s1 - s0) > 1e-4:
            factor = f1 + (aim - s1) * (f1 - f0) / (s1 - s0)
    return min(max(factor, f1 / 2, 0.05), 2 * f1)


def _each(structure: Structure, change: Callable[[Motif], dict[str, float]]) -> Structure:
    motifs = tuple(motif.model_copy(update=change(motif)) for motif in structure.motifs)
    return structure.model_copy(update={"motifs": motifs})


def _within(value: float, bounds: tuple[float, float], digits: int = 2) -> float:
    return round(min(max(value, bounds[0]), bounds[1]), digits)
