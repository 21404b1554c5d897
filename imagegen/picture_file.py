"""A picture file of whoever gave it, opened: no larger than allowed, and faults told in words."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from orbweave.errors import UsageError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "deep_grey", "frames_note", "opened_picture", "refuse_pipe"]

MAX_PIXELS = 64_000_000
"""Largest picture read, an 8000 x 8000 scan; a guard against decompression bombs."""
PROGRAMS = ("EPS", "WMF")
"""Forms whose pixels another program would have to draw; Pillow starts Ghostscript for EPS."""


@contextmanager
def opened_picture(path: Path) -> Iterator[Image]:
    """Yield a picture file as Pillow opens it; its pixels are decoded in the block.

    Raises:
        UsageError: no such file, not a picture of pixels, damaged, or larger than `MAX_PIXELS`;
            whatever Pillow raises in the block is told like this too.
    """
    from PIL import Image, UnidentifiedImageError

    wanted = f"wanted a picture file, got {path}"
    try:
        with warnings.catch_warnings():
            # The size is checked here, before a pixel is decoded; what is left of Pillow's
            # warnings are odd tags in files that it reads all the same.
            warnings.simplefilter("ignore")
            refuse_pipe(path, "picture")
            with Image.open(path) as image:
                if image.format in PROGRAMS:
                    raise UsageError(
                        f"wanted a picture of pixels, got {path}, a {image.format} file of drawing "
                        "commands, which are not run here; save it as PNG"
                    )
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path, f"with {image.width} x {image.height}")
                yield image
    except UsageError:
        raise
    except Image.DecompressionBombError as err:
        raise _too_large(path, "which is far larger") from err
    except UnidentifiedImageError as err:
        came = "in no form that is known" if path.stat().st_size else "which is empty"
        raise UsageError(f"{wanted}, {came}; save it again, as PNG for one") from err
    # What Pillow's decoders raise on damaged files, found by damaging files.
    except (
        OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
        OverflowError, struct.error,
    ) as err:  # fmt: skip
        if isinstance(err, OSError) and err.strerror:
            raise UsageError(f"{wanted}: {err.strerror}; check the path") from err
        raise UsageError(
            f"{wanted}, which is damaged ({shown(err, 120)}); copy or save it again"
        ) from err


def refuse_pipe(path: Path, wanted: str) -> None:
    """Refuse what is neither file nor folder: to open a pipe waits for who may never write.

    Raises:
        UsageError: a pipe, socket or device; `wanted` says what was to be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UsageError(
            f"wanted a {wanted} file, got {path}, a pipe or device; save it as a file first"
        )


def frames_note(image: Image) -> str:
    """Return what a reader should know of an animation, of which the first picture counts."""
    n_frames = int(getattr(image, "n_frames", 1))
    return f"first of {n_frames} pictures in the file" if n_frames > 1 else ""


def deep_grey(image: Image, path: Path) -> tuple[NDArray[np.float64], str]:
    """Return grey of 16 or 32 bits in [0, 1], shape (H, W), and a note if it was stretched.

    Integers count over 65535, floats as they are.

    Raises:
        UsageError: a value that is not finite.
    """
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise UsageError(
            f"wanted a picture with finite values, got NaN or infinity in {path}; "
            "fill those pixels and save it again"
        )
    grey = values if image.mode == "F" else values / 65535
    if grey.min() >= 0 and grey.max() <= 1:
        return grey, ""
    low, high = float(values.min()), float(values.max())
    note = f"grey values from {low:g} to {high:g} stretched to the range 0 to 1"
    return (grey - grey.min()) / (np.ptp(grey) or 1.0), note


def _too_large(path: Path, came: str) -> UsageError:
    return UsageError(
        f"wanted a picture of at most {MAX_PIXELS:,} pixels, got {path} {came}; scale it down"
    )
