"""A design as PDF, drawn by fpdf2; the one file that touches it.

The fonts are DejaVu's, which come with matplotlib. They hold Latin, Greek, Cyrillic and signs;
any other character is shown by its number, as in [U+4E2D]. Markdown and HTML have it itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ui.document import Block, Figure, Heading, Paragraph, Quote, Source, Table

if TYPE_CHECKING:
    from fpdf import FPDF

__all__ = ["pdf_report"]

SANS, SERIF = "sans", "serif"
FILES = {
    (SANS, ""): "DejaVuSans.ttf",
    (SANS, "B"): "DejaVuSans-Bold.ttf",
    (SERIF, ""): "DejaVuSerif.ttf",
}
SIZES_PT = {1: 17, 2: 13, 3: 10.5}
BODY_PT, SMALL_PT = 9.5, 8.0
LINE_MM = 4.8
MARGIN_MM = 20.0
PICTURE_MM = 80.0


def pdf_report(blocks: Sequence[Block], folder: Path, made: datetime) -> bytes:
    """Return a document as PDF on A4.

    Args:
        blocks: The document.
        folder: What the paths of its pictures are relative to.
        made: Date the file shall bear; the same document and date give the same bytes.
    """
    with _paper() as pdf:
        pdf.set_creation_date(made)
        pdf.set_title(next((b.text for b in blocks if isinstance(b, Heading)), "A design"))
        pdf.set_producer("Orbweave")
        pdf.add_page()
        for block in blocks:
            _draw(pdf, block, folder)
        return bytes(pdf.output())


@contextmanager
def _paper() -> Iterator[FPDF]:
    """Yield an empty document with our fonts, whose files it leaves open by itself."""
    from fpdf import FPDF

    pdf = FPDF(format="A4")
    pdf.set_auto_page_break(True, margin=MARGIN_MM)
    pdf.set_margin(MARGIN_MM)
    try:
        for (family, style), name in FILES.items():
            pdf.add_font(family, style, _fonts() / name)
        yield pdf
    finally:
        for font in pdf.fonts.values():
            font.ttfont.close()  # type: ignore[union-attr]


def _draw(pdf: FPDF, block: Block, folder: Path) -> None:
    from fpdf.enums import Align

    if isinstance(block, Heading):
        pdf.ln(LINE_MM * (0.4 if block.level == 3 else 0.9))
        _write(pdf, block.text, SANS, "B", SIZES_PT[block.level], align="L")
        pdf.ln(1)
    elif isinstance(block, Paragraph):
        _write(pdf, block.text, SANS, "", BODY_PT)
        pdf.ln(1.5)
    elif isinstance(block, Quote):
        pdf.set_left_margin(MARGIN_MM + 6)
        _write(pdf, block.text, SERIF, "", BODY_PT)
        pdf.set_left_margin(MARGIN_MM)
        pdf.ln(1.5)
    elif isinstance(block, Source):
        _write(pdf, f"{block.id}  {block.statement}", SANS, "", BODY_PT)
        pdf.set_text_color(90, 84, 67)
        _write(pdf, block.title or block.url, SANS, "", SMALL_PT, link=block.url)
        pdf.set_text_color(0)
        pdf.ln(1.5)
    elif isinstance(block, Figure):
        pdf.image(
            folder / block.path, w=PICTURE_MM, h=PICTURE_MM, keep_aspect_ratio=True, x=Align.C
        )
        _write(pdf, block.caption, SANS, "", SMALL_PT, align="C")
        pdf.ln(2)
    else:
        _draw_table(pdf, block)


def _write(
    pdf: FPDF,
    text: str,
    family: str,
    style: str,
    size_pt: float,
    *,
    align: str = "L",
    link: str = "",
) -> None:
    """Write lines over the whole width and go to the next line; text is never read as markup."""
    from fpdf.enums import WrapMode

    pdf.set_font(family, style, size_pt)
    pdf.set_x(pdf.l_margin)
    wrapmode = WrapMode.CHAR if _has_no_breaks(text) else WrapMode.WORD
    pdf.multi_cell(
        0, size_pt * 0.5, _seen(text), align=align, link=link, markdown=False, wrapmode=wrapmode,
        new_x="LMARGIN", new_y="NEXT",
    )  # fmt: skip


def _draw_table(pdf: FPDF, table: Table) -> None:
    pdf.set_font(SANS, "", SMALL_PT)
    with pdf.table(
        text_align="LEFT", line_height=LINE_MM, borders_layout="HORIZONTAL_LINES", markdown=False
    ) as drawn:
        for cells in (table.head, *table.rows):
            row = drawn.row()
            for cell in cells:
                row.cell(_seen(cell))
    pdf.ln(2)


def _has_no_breaks(text: str) -> bool:
    """Whether a word is too long for a line, as an address or a hostile text may be."""
    return max(map(len, text.split()), default=0) > 60


def _seen(text: str) -> str:
    """Return text with characters the fonts lack as their numbers."""
    known = _characters()
    return "".join(c if ord(c) in known or c == "\n" else f"[U+{ord(c):04X}]" for c in text)


@cache
def _characters() -> frozenset[int]:
    """Return what all of the fonts can show."""
    with _paper() as paper:
        shown = [set(font.cmap) for font in paper.fonts.values()]  # type: ignore[union-attr]
    return frozenset(set.intersection(*shown))


def _fonts() -> Path:
    """Return the folder of DejaVu; matplotlib is not imported for it."""
    found = find_spec("matplotlib")
    assert found is not None and found.origin is not None  # we depend on it
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
