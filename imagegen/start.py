"""What denoising starts from: a drawn structure, a picture file, or nothing but noise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.picture_file import deep_grey, frames_note, opened_picture
from orbweave.errors import UsageError
from orbweave.files import sha256_file
from orbweave.records import RenderRequest, Structure

__all__ = ["Pixels", "SeedPicture", "Start", "drawn_start", "read_picture", "start_of"]

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
"""(H, W, 3), red green blue."""
SeedPicture = Callable[[Structure, int], Pixels]
"""Draws the bare geometry of a structure, square, with the given side in pixels."""


class Start(NamedTuple):
    """The geometry a picture starts from."""

    pixels: Pixels | None
    """As high and wide as the request says; None where the words alone decide."""
    geometry: str
    """The same in words, for the record."""
    drawn: Structure | None = None
    """What it is a drawing of, in flat colours with crisp edges, which a rendering can follow
    line by line; None for noise and for a picture file."""


def start_of(
    request: RenderRequest, picture_file: Path | None, seed_picture: SeedPicture | None = None
) -> Start:
    """Draw or read what a request starts from.

    Args:
        request: Its structure is drawn, if it has one.
        picture_file: A picture to take the geometry from instead; cropped around its middle
            to the request's proportions and scaled.
        seed_picture: Draws structures; default: `imagegen.scene.seed_picture`.

    Raises:
        UsageError: both a structure and a file, or a file that is no picture.
    """
    if picture_file is not None and request.structure is not None:
        raise UsageError(
            f"wanted one geometry, got a structure and the file {picture_file}; "
            "leave one of them out"
        )
    if picture_file is not None:
        pixels = read_picture(picture_file, request.width, request.height)
        sha256 = sha256_file(picture_file)
        return Start(pixels, f"picture file {picture_file.name}, sha256 {sha256}")
    if request.structure is None:
        return Start(None, "text alone")
    if seed_picture is None:
        from imagegen import scene

        seed_picture = scene.seed_picture
    return drawn_start(request, seed_picture)


def drawn_start(request: RenderRequest, seed_picture: SeedPicture) -> Start:
    """Draw the structure of a request that has one."""
    assert request.structure is not None
    # Drawn square, so that directions stay true; the middle is kept.
    side = max(request.width, request.height)
    top, left = (side - request.height) // 2, (side - request.width) // 2
    square = seed_picture(request.structure, side)
    pixels = square[top : top + request.height, left : left + request.width]
    return Start(np.ascontiguousarray(pixels), _in_words(request.structure), request.structure)


def _in_words(structure: Structure) -> str:
    motifs = " and ".join(motif.family for motif in structure.motifs)
    combine = "" if structure.combine == "single" else f", {structure.combine}"
    return f"structure seed: {motifs}{combine}, {structure.look}, seed {structure.seed}"


def read_picture(path: Path, width: int, height: int) -> Pixels:
    """Read a picture file, upright, cropped around its middle to the proportions, and scaled.

    What is transparent counts as black, of an animation the first picture is read; that is said
    in the log.

    Raises:
        UsageError: no picture, a damaged one or one too large; see `opened_picture`.
    """
    from PIL import Image, ImageOps

    with opened_picture(path) as image:
        notes = [frames_note(image)]
        upright = _rgb(ImageOps.exif_transpose(image), path, notes)
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
    for note in filter(None, notes):
        logger.warning("%s: %s", path, note)
    return np.asarray(fitted, dtype=np.uint8)


def _rgb(image: Any, path: Path, notes: list[str]) -> Any:
    """A Pillow image as RGB: 16 bits scaled, what is transparent on black."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # as imagegen.luma reads it
        grey, note = deep_grey(image, path)
        notes.append(note)
        return Image.fromarray((grey * 255).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getextrema()[3][0] < 255:
            notes.append("transparent parts, counted as black")
        ground = Image.new("RGBA", image.size, "black")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")
