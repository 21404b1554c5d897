"""A picture file as lightness: luma in [0, 1], and what had to be done to get there.

Luma is 0.2126 R + 0.7152 G + 0.0722 B of the stored (gamma-coded) values, Rec. 709.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orbweave.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FLAT_RANGE", "MAX_PIXELS", "REC_709", "Luma", "LumaFile", "luma_of", "read_luma"]

Luma = NDArray[np.float64]

MAX_PIXELS = 64_000_000
"""Largest picture read, an 8000 x 8000 scan; a guard against decompression bombs."""
FLAT_RANGE = 1 / 255
"""Luma range up to which a picture counts as constant: one step of 8 bits."""
REC_709 = np.array([0.2126, 0.7152, 0.0722])


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
        UsageError: no such file, not a picture, damaged, or larger than `MAX_PIXELS`.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # The size is checked below, before a pixel is decoded; what is left of Pillow's
            # warnings are odd tags in files that it reads all the same.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return _converted(image, path)
    except UsageError:
        raise
    except Image.DecompressionBombError as err:
        raise UsageError(
            f"wanted a picture of at most {MAX_PIXELS:,} pixels, got {path}: {err}"
        ) from err
    # What Pillow's decoders raise on damaged files, found by damaging files.
    except (
        OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
        OverflowError, struct.error,
    ) as err:  # fmt: skip
        raise UsageError(f"wanted a picture file, got {path}: {err}") from err


def _converted(image: Image, path: Path) -> LumaFile:
    if image.width * image.height > MAX_PIXELS:
        raise UsageError(
            f"wanted a picture of at most {MAX_PIXELS:,} pixels, got {path} with "
            f"{image.width} x {image.height}; scale it down"
        )
    notes = []
    n_frames = int(getattr(image, "n_frames", 1))
    if n_frames > 1:
        notes.append(f"first of {n_frames} pictures in the file")
    if image.mode.startswith(("I", "F")):
        luma = _deep_grey(np.asarray(image, dtype=np.float64), image.mode, path, notes)
    else:
        rgba = np.asarray(image.convert("RGBA"), dtype=np.float64) / 255
        clear = float((rgba[..., 3] < 0.5).mean())
        if rgba[..., 3].min() < 1:
            notes.append(f"transparent in {clear:.0%} of the pixels, counted as black")
        luma = rgba[..., :3] @ REC_709 * rgba[..., 3]
    if np.ptp(luma) <= FLAT_RANGE:
        notes.append("one flat tone, no structure to measure")
    return LumaFile(luma, tuple(notes))


def _deep_grey(values: Luma, mode: str, path: Path, notes: list[str]) -> Luma:
    """Grey of 16 or 32 bits to [0, 1]: integers over 65535, floats as they are."""
    if not np.isfinite(values).all():
        raise UsageError(f"wanted a picture with finite values, got NaN or infinity in {path}")
    luma = values if mode == "F" else values / 65535
    if luma.min() < 0 or luma.max() > 1:
        low, high = float(values.min()), float(values.max())
        notes.append(f"grey values from {low:g} to {high:g} stretched to the range 0 to 1")
        luma = (luma - luma.min()) / (np.ptp(luma) or 1.0)
    return luma
