"""Figures of a table as bars: a picture for each row of percentages, a bar for each model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Bar", "bars_of", "plots"]

CELL = re.compile(r"(\d+(?:\.\d+)?)(?: \((\d+(?:\.\d+)?) to (\d+(?:\.\d+)?)\))?")
"""A percentage, and its interval if there is one."""
WIDTH, ROW = 320, 22
"""Of a picture and of one bar with its gap, in its own units."""
NAMES, NUMBERS = 96, 40
"""Room for the models' names on the left and the figures on the right."""


class Bar(NamedTuple):
    """One percentage."""

    name: str
    value: float
    """In [0, 100]."""
    interval: tuple[float, float] | None = None
    """Where it lies with 95 % confidence, if that was told."""


def bars_of(head: Sequence[str], row: Sequence[str]) -> list[Bar]:
    """Return the bars of a row; none if a cell is no percentage, or there is nothing to compare."""
    found = [CELL.fullmatch(cell.replace("**", "")) for cell in row[1:]]
    if len(found) < 2 or not all(found):
        return []
    bars = [
        Bar(name, float(cell[1]), (float(cell[2]), float(cell[3])) if cell[2] else None)
        for name, cell in zip(head[1:], found, strict=False)
        if cell is not None
    ]
    return bars if all(bar.value <= 100 for bar in bars) else []


def plots(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a picture for each row that holds percentages, as HTML; empty if none does."""
    drawn = [(row[0], bars) for row in rows if (bars := bars_of(head, row))]
    pictures = "".join(_picture(title, bars) for title, bars in drawn)
    return f'<div class="ow-plots">{pictures}</div>' if pictures else ""


def _picture(title: str, bars: Sequence[Bar]) -> str:
    said = ", ".join(f"{bar.name} {bar.value:g} %" for bar in bars)
    height = ROW * len(bars)
    inside = "".join(_bar(bar, ROW * place) for place, bar in enumerate(bars))
    return (
        f'<figure class="ow-plot"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(f"{title}: {said}")}">'
        f"{inside}</svg></figure>"
    )


def _bar(bar: Bar, top: float) -> str:
    scale = (WIDTH - NAMES - NUMBERS) / 100
    middle, length = top + ROW / 2, bar.value * scale
    drawn = (
        f'<text x="{NAMES - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.name)}</text>'
        f'<rect class="ow-bar-all" x="{NAMES}" y="{top + 4:.1f}" width="{100 * scale:.1f}" '
        f'height="{ROW - 8}"/>'
        f'<rect class="ow-bar-got" x="{NAMES}" y="{top + 4:.1f}" width="{length:.1f}" '
        f'height="{ROW - 8}"/>'
        f'<text x="{WIDTH - NUMBERS + 6}" y="{middle + 4:.1f}">{bar.value:g}</text>'
    )
    if bar.interval:
        low, high = (NAMES + end * scale for end in bar.interval)
        drawn += (
            f'<rect class="ow-bar-range" x="{low:.1f}" y="{middle - 2:.1f}" '
            f'width="{high - low:.1f}" height="4"/>'
        )
    return drawn
