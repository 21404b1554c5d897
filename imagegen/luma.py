"""A picture file as lightness: luma in [0, 1], and what had to be done to get there.

Luma is 0.2126 R + 0.7152 G + 0.0722 B of the stored (gamma-coded) values, Rec. 709.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.picture_file import deep_grey, frames_note, opened_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FLAT_RANGE", "REC_709", "Luma", "LumaFile", "luma_of", "read_luma"]

Luma = NDArray[np.float64]

FLAT_RANGE = 1 / 255
"""Luma range up to which a picture counts as constant: one step of 8 bits."""
REC_709 = np.array([0.2126, 0.7152, 0.0722])
BAND_PX = 1 << 18
"""Pixels whose colours are floats at a time: 8 MB; those of an 8000 x 8000 scan would be 2 GB."""


class LumaFile(NamedTuple):
    """A picture as luma, and what a reader of the numbers should know of the file."""

    luma: Luma
    """Shape (H, W), in [0, 1]."""
    notes: tuple[str, ...]
    """One sentence for each thing of the file that the luma does not show."""


def luma_of(path: Path) -> Luma:
    """Read a picture as luma in [0, 1], shape (H, W); see `read_luma`."""
    return read_luma(path).luma


def read_luma(path: Path) -> LumaFile:
    """Read a picture of any kind Pillow knows; grey of 8, 16 or 32 bit, colour or palette.

    Transparent parts count as black; of an animation the first picture is read; both are
    noted, and so is a flat picture.

    Raises:
        UsageError: no such file, not a picture, damaged, or too large; see `opened_picture`.
    """
    with opened_picture(path) as image:
        return _converted(image, path)


def _converted(image: Image, path: Path) -> LumaFile:
    notes = [frames_note(image)]
    if image.mode.startswith(("I", "F")):
        luma, note = deep_grey(image, path)
        notes.append(note)
    else:
        rgba = np.asarray(image.convert("RGBA"))
        if rgba[..., 3].min() < 255:
            clear = float((rgba[..., 3] < 128).mean())
            notes.append(f"transparent in {clear:.0%} of the pixels, counted as black")
        luma = _of_colours(rgba)
    if np.ptp(luma) <= FLAT_RANGE:
        notes.append("one flat tone, no structure to measure")
    return LumaFile(luma, tuple(filter(None, notes)))


def _of_colours(rgba: NDArray[np.uint8]) -> Luma:
    """Luma on black of colours with their opacity, shape (H, W, 4)."""
    luma = np.empty(rgba.shape[:2])
    n_rows = max(BAND_PX // rgba.shape[1], 1)
    for top in range(0, len(rgba), n_rows):
        band = rgba[top : top + n_rows] / 255
        luma[top : top + n_rows] = band[..., :3] @ REC_709 * band[..., 3]
    return luma
