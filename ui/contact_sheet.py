"""Pages of small pictures with labels below them, as photographers lay out a roll of film."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

__all__ = ["PER_PAGE", "Frame", "contact_sheet"]

COLUMNS = 6
PER_PAGE = COLUMNS * 10
"""Frames on a page, about 1,450 by 3,000 pixels when it is full."""
SIDE_PX = 224
GAP_PX = 16
FONT_PX = 13
LINE_PX = 17
TITLE_PX = 22
PAPER, INK, SOFT, BLANK = "#fbfaf7", "#22242a", "#666a73", "#e2dfd7"
LABEL_LINES = 3


class Frame(NamedTuple):
    """One picture and what is written below it."""

    picture: Path | None
    """None draws a blank with `note` in it."""
    label: tuple[str, ...]
    """At most `LABEL_LINES` lines, cut to the width; the first stands out."""
    note: str = ""


def contact_sheet(frames: Sequence[Frame], title: str) -> Image.Image:
    """Return a page with the frames in rows of `COLUMNS`, read left to right."""
    columns = min(COLUMNS, max(len(frames), 3))  # room for the title
    rows = -(-len(frames) // columns)
    step_x = SIDE_PX + GAP_PX
    step_y = SIDE_PX + LABEL_LINES * LINE_PX + GAP_PX
    top = GAP_PX + TITLE_PX + GAP_PX
    page = Image.new("RGB", (GAP_PX + columns * step_x, top + rows * step_y), PAPER)
    draw, font = ImageDraw.Draw(page), _font(FONT_PX)
    big = _font(TITLE_PX - 4)
    draw.text((GAP_PX, GAP_PX), _cut(title, big, page.width - 2 * GAP_PX), INK, big)
    for place, frame in enumerate(frames):
        row, column = divmod(place, columns)
        x, y = GAP_PX + column * step_x, top + row * step_y
        small = _thumbnail(frame)
        if small is None:
            draw.rectangle((x, y, x + SIDE_PX, y + SIDE_PX), BLANK)
            for n, line in enumerate(_wrapped(frame.note or "no picture", font)):
                draw.text((x + GAP_PX, y + GAP_PX + n * LINE_PX), line, INK, font)
        else:
            page.paste(small, (x + (SIDE_PX - small.width) // 2, y + (SIDE_PX - small.height) // 2))
        for n, line in enumerate(frame.label[:LABEL_LINES]):
            colour = SOFT if n else INK
            at = (x, y + SIDE_PX + 4 + n * LINE_PX)
            draw.text(at, _cut(line, font, SIDE_PX), colour, font)
    return page


def _thumbnail(frame: Frame) -> Image.Image | None:
    """Return the picture scaled into a frame; None if there is none to be read."""
    if frame.picture is None:
        return None
    try:
        with Image.open(frame.picture) as image:
            small = image.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return None
    scale = SIDE_PX / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.LANCZOS)


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic, Hebrew, Arabic."""
    found = find_spec("matplotlib")
    assert found is not None and found.origin is not None  # one of our dependencies
    return ImageFont.truetype(
        Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size_px
    )


def _cut(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """Return as much of a text as fits, with an ellipsis where some is left out."""
    text = " ".join(text.split())[: width_px // 2]  # no letter is narrower than 2 px
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Return a text in as many lines as a blank frame holds."""
    width_px = SIDE_PX - 2 * GAP_PX
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_cut(line, font, width_px) for line in lines[: width_px // LINE_PX]]
