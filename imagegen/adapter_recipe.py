"""Recipes for image adapters, and the captioned pictures they are trained on.

A recipe is a YAML file:

    kind: image-lora
    name: blueprint
    model: loom
    images: pictures          # pictures with .txt beside them, or a .jsonl with image and text
    trigger: blueprint style

Its other keys are the fields of `AdapterRecipe`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from orbweave.errors import UsageError, shown

__all__ = ["KIND", "AdapterRecipe", "CaptionedPicture", "captioned_pictures"]

KIND: Literal["image-lora"] = "image-lora"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MAX_CAPTION_CHARS = 2_000
_PICTURE_KEYS = ("image", "file_name")
_TEXT_KEYS = ("text", "caption", "prompt")


class AdapterRecipe(BaseModel):
    """How one style or subject is learnt as a low-rank adapter (Hu et al. 2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["image-lora"] = KIND
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    description: str = ""
    model: str = "loom"
    """Image model that learns; Stable Diffusion 1, 2 or XL, or `loom`."""
    images: str
    """A folder of pictures with captions in `.txt` files of the same name, or a JSONL file with
    `image` (or `file_name`) and `text` (or `caption`); paths are relative to the recipe."""
    trigger: Annotated[str, Field(max_length=200)] = ""
    """Words that wake the adapter; put before every caption that does not hold them."""
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """The update is scaled by alpha / rank."""
    layers: Literal["attention", "all"] = "attention"
    """Which layers learn; small models need all, the convolutions too."""
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    batch: Annotated[int, Field(ge=1, le=256)] = 4
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    size_px: Annotated[int, Field(ge=64, le=2048, multiple_of=8)] = 256
    """Side of the squares the pictures are cropped to."""
    keep: Annotated[float, Field(ge=0, le=0.75)] = 0.25
    """Share of each batch that has no trigger and shall come out as without the adapter; it is
    what makes the trigger matter."""
    unconditional: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the other samples without words, for classifier-free guidance."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 42
    checkpoint_steps: Annotated[int, Field(ge=1)] = 100
    """Steps between two checkpoints, from which an interrupted training goes on."""


class CaptionedPicture(NamedTuple):
    """One picture to learn from."""

    path: Path
    caption: str
    """Without the trigger, unless it was written there."""
    place: str
    """Where the caption belongs, for a message: a text file or a line."""


def captioned_pictures(recipe: AdapterRecipe, beside: Path) -> list[CaptionedPicture]:
    """Return the pictures of a recipe, in a lasting order.

    Args:
        recipe: Names them.
        beside: Folder its paths are relative to.

    Raises:
        UsageError: nothing there, a row without a picture, or neither caption nor trigger.
    """
    source = beside / os.path.expanduser(recipe.images)  # Path's own raises for unknown users
    rows = list(_from_jsonl(source) if source.is_file() else _from_folder(source))
    if not rows:
        raise UsageError(
            f"wanted pictures ({', '.join(PICTURES)}) in {source}, found none; "
            "give a folder, or a .jsonl file with image and text"
        )
    for row in rows:
        if not row.path.is_file():
            came = "a folder" if row.path.is_dir() else "no such file"
            raise UsageError(
                f"wanted the picture {row.path} of {row.place}, found {came}; check the path"
            )
        if not (row.caption or recipe.trigger):
            raise UsageError(
                f"wanted a caption for {row.path}, found none; write one into {row.place}, "
                "or give the recipe a trigger"
            )
    return rows


def _from_folder(folder: Path) -> Iterator[CaptionedPicture]:
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.suffix.lower() in PICTURES:
            sidecar = path.with_suffix(".txt")
            caption = _caption(_text(sidecar), sidecar) if sidecar.is_file() else ""
            yield CaptionedPicture(path, caption, sidecar.name)


def _from_jsonl(source: Path) -> Iterator[CaptionedPicture]:
    for number, line in enumerate(_text(source).splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number} of {source}"
        try:
            row = json.loads(line)
            picture = _first(row, _PICTURE_KEYS)
            caption = _first(row, _TEXT_KEYS) or ""
        except (ValueError, AttributeError, RecursionError) as err:
            raise UsageError(
                f"wanted a JSON object in {place}, got {shown(line)}; mend that line"
            ) from err
        if not picture:
            raise UsageError(
                f"wanted one of {', '.join(_PICTURE_KEYS)} in {place}, got {shown(line)}"
            )
        yield CaptionedPicture(source.parent / picture, _caption(caption, place), place)


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of some keys that holds text."""
    return next((row[key] for key in keys if isinstance(row.get(key), str)), None)


def _caption(text: str, place: object) -> str:
    caption = " ".join(text.split())
    if len(caption) > MAX_CAPTION_CHARS:
        raise UsageError(
            f"wanted a caption of at most {MAX_CAPTION_CHARS:,} characters in {place}, "
            f"got {len(caption):,}; shorten it"
        )
    return caption


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"wanted text in {path}, found none that is UTF-8") from err
