"""Image statistics of one picture: how much is solid, which way it runs, how far apart.

They describe pixels, not a material. Everything is deterministic and works on luma. The
light measurement takes a tenth of a second and serves the design loop; the full one adds
sizes, connections, skeleton, order and symmetry, see `orbweave.records.Anatomy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from imagegen.directions import Direction, directions_of, main_direction, order
from imagegen.luma import Luma, luma_of, read_luma
from imagegen.phases import (
    SIDES,
    Phases,
    SolidSide,
    connectivity,
    euler_number,
    otsu_threshold,
    phases_of,
    solid_fraction,
    solid_side_of,
)
from imagegen.pores import local_thickness, sizes
from imagegen.skeleton import lines_of, skeleton
from imagegen.spacings import Repeat, Spectrum, rays_of, repeat_of, spectrum_of, symmetry
from orbweave.errors import UsageError, shown
from orbweave.records import Anatomy, Measurement

__all__ = [
    "SIDES",
    "Direction",
    "SolidSide",
    "luma_of",
    "main_direction",
    "measure",
    "measure_all",
    "measure_pixels",
    "otsu_threshold",
    "recorded_side",
    "solid_fraction",
    "solid_side_of",
    "spacing_px",
]


def measure(path: Path, *, picture: str | None = None, solid: SolidSide = "auto") -> Measurement:
    """Measure a picture file of any kind Pillow reads; 8 or 16 bit, grey, colour or palette.

    Args:
        path: The file.
        picture: What to call it in the record; default: the path as given.
        solid: Which side of the threshold is material. `auto` asks the record in the picture,
            see `recorded_side`, and else the pixels, see `imagegen.phases.phases_of`.

    Raises:
        UsageError: no such file, not a picture, damaged or far too large.
    """
    return _measured(path, picture, solid, full=False)


def measure_all(
    path: Path, *, picture: str | None = None, solid: SolidSide = "auto"
) -> Measurement:
    """Measure as `measure` and fill in `Measurement.anatomy`; a second for 256 x 256 pixels."""
    return _measured(path, picture, solid, full=True)


def _measured(path: Path, picture: str | None, solid: SolidSide, *, full: bool) -> Measurement:
    luma, notes = read_luma(path)
    side, more = recorded_side(path, solid)
    measured = measure_pixels(luma, picture=picture or str(path), solid=side, full=full)
    return measured.model_copy(update={"notes": (*notes, *more)})


class RecordedSide(NamedTuple):
    """Which side of the threshold is solid, and what a reader should know of how that is known."""

    side: SolidSide
    """`auto` leaves it to the pixels."""
    notes: tuple[str, ...] = ()


def recorded_side(path: Path, asked: SolidSide = "auto") -> RecordedSide:
    """Return the side that was asked for; of `auto` the one by the look in a picture's own record.

    On random structures of our generator it is right for all bare drawings and 97 of 100 lit
    ones; the pixels alone, which decide without a record, are right for 87 of 100.
    """
    from imagegen.png import has_record, read_request

    if asked != "auto":
        return RecordedSide(asked)
    try:
        structure = read_request(path).structure
    except UsageError as err:
        if not has_record(path):  # a picture of another tool, or no PNG
            return RecordedSide("auto")
        note = (
            f"its record cannot be read, so its pixels say which side is solid: {shown(err, 300)}"
        )
        return RecordedSide("auto", (note,))
    return RecordedSide("auto" if structure is None else solid_side_of(structure.look))


def measure_pixels(
    luma: Luma, *, picture: str, solid: SolidSide = "auto", full: bool = False
) -> Measurement:
    """Measure a picture given as luma, shape (H, W), in [0, 1]."""
    direction, directions = directions_of(luma)
    phases, spectrum = phases_of(luma, solid), spectrum_of(luma)
    spacings = spectrum.periods() if spectrum else ()
    return Measurement(
        picture=picture,
        solid_fraction=phases.fraction,
        direction_deg=direction.deg,
        anisotropy=direction.coherence,
        spacing_px=spacings[0] if spacings else None,
        contrast=float(luma.std()),
        threshold=phases.threshold,
        solid_side=None if phases.threshold is None else phases.side,
        solid_fraction_band=None if phases.threshold is None else phases.band,
        directions_deg=directions,
        spacings_px=spacings,
        anatomy=_anatomy(luma, phases, direction, spectrum) if full else None,
    )


def spacing_px(luma: Luma) -> float | None:
    """Return the dominant period of the power spectrum, None if there is none.

    See `imagegen.spacings.Spectrum.periods`. For cells on a hexagonal lattice of distance a
    it is the distance of their rows, 0.87 a; `Anatomy.repeat_px` is a.
    """
    spectrum = spectrum_of(luma)
    found = spectrum.periods() if spectrum else ()
    return found[0] if found else None


def _anatomy(
    luma: Luma, phases: Phases, direction: Direction, spectrum: Spectrum | None
) -> Anatomy:
    solid = phases.solid
    rays = rays_of(luma)
    repeat = repeat_of(rays) if rays else Repeat(None, None, 0.0)
    along = direction.deg or 0.0
    across = spectrum.periods(across_deg=along + 90) if spectrum else ()
    lengthwise = spectrum.periods(across_deg=along) if spectrum else ()
    nothing = np.zeros_like(luma)
    has_phases = phases.threshold is not None
    return Anatomy(
        pores=sizes(local_thickness(~solid) if has_phases else nothing),
        struts=sizes(local_thickness(solid) if has_phases else nothing),
        solid=connectivity(solid, corners=True),
        void=connectivity(~solid, corners=False),
        euler_number=euler_number(solid),
        skeleton=skeleton(lines_of(solid)),
        order=order(luma),
        repeat_px=repeat.px,
        repeat_deg=repeat.deg,
        periodicity=repeat.periodicity,
        spacing_across_px=across[0] if across else None,
        spacing_along_px=lengthwise[0] if lengthwise else None,
        symmetry=symmetry(luma, rays),
    )
