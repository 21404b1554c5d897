"""What talks and draws here: the catalogue, where each model comes from, how good it is."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from orbweave.models import lineage, list_models
from ui.studio.bars import plots
from ui.studio.desk import Desk

__all__ = ["PATH", "TITLE", "benchmark_tables", "build"]

TITLE = "Models"
PATH = "models"
HEAD = ["name", "what it is", "licence", "made from"]
FIGURES = Path(__file__).parents[3] / "docs" / "benchmarks.md"
"""In a clone of the project; an installed package has no documents beside it."""


class Figures(NamedTuple):
    """One table of benchmarks."""

    title: str
    head: list[str]
    rows: list[list[str]]


def build(desk: Desk) -> None:
    """Lay out the page."""
    sections = [
        _section("Language models", HEAD, _rows("language"), is_stacked=True),
        _section("Image models", HEAD, _rows("image"), is_stacked=True),
    ]
    for title, head, rows in benchmark_tables(FIGURES):
        sections += [_section(title, head, rows), plots(head, rows)]
    gr.HTML("".join(sections), elem_id="models")


def benchmark_tables(path: Path) -> list[Figures]:
    """Return the first table of each section of the figures that speaks of accuracy."""
    if not path.is_file():
        return []
    found = []
    for section in re.split(r"^## +", path.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        table = re.search(r"^\|.*(?:\n\|.*)+", body, flags=re.MULTILINE)
        if table and "accuracy" in table[0].splitlines()[0]:
            head, _, *rows = (
                [cell.strip() for cell in line.strip("|").split("|")]
                for line in table[0].splitlines()
            )
            found.append(Figures(title.strip(), head, rows))
    return found


def _marked(cell: str) -> str:
    """Return a cell of Markdown as HTML: what stands out there does so here."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(cell))


def _rows(kind: str) -> list[list[str]]:
    return [
        [e.name, e.description, e.licence, " ← ".join(lineage(e.name)[1:]) or "–"]
        for e in list_models()
        if e.kind == kind
    ]


def _section(
    title: str, head: list[str], rows: list[list[str]], *, is_stacked: bool = False
) -> str:
    """Return a table as HTML; one that is too wide is scrolled, also by keyboard.

    Args:
        title: What stands above it.
        head: Names of the columns.
        rows: Cells, in Markdown.
        is_stacked: On a phone lay the cells of a row below each other: they are to be read,
            not compared down the column.
    """
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td data-head="{escape(column)}">{_marked(cell)}</td>'
            for column, cell in zip(head[1:], cells, strict=False)
        )
        + "</tr>"
        for name, *cells in rows
    )
    return (
        f'<section class="ow-models{" ow-stacked" if is_stacked else ""}"><h2>{escape(title)}</h2>'
        f'<div class="ow-scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )
