"""What a study found: in plain words, as tables, figures, CSV, JSON, Markdown and one HTML file.

write(found, folder)    # fills an empty folder; results.json comes last

`report.md` stands by itself beside the folder of its pictures: both can be copied into the pages
of any project. Long tables are folded there, and the longest are CSV files only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbweave.files import write_text
from ui.study_export import as_csv, document, tables
from ui.study_figures import Pictures, save_figure
from ui.study_run import Found
from ui.study_sections import BY_WORD, Section, geometry_section, method_section, sections_of
from ui.study_tables import Analysis, analyse
from ui.study_words import headline, summary
from ui.template import environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RECORD", "Report", "report_of", "write"]

RECORD = "results.json"


@dataclass(frozen=True)
class Report:
    """Everything a reader sees, but for the pictures themselves."""

    title: str
    description: str
    answers: list[str]
    """Whether merging helps, a sentence for every way of scoring."""
    summary: list[str]
    sections: list[Section]
    figures: dict[str, Figure] = field(repr=False)
    """By file."""


def write(found: Found, folder: Path) -> dict[str, Any]:
    """Write everything into an existing folder; returns the document of `results.json`."""
    analyses = [analyse(found, scoring) for scoring in found.results]
    report = report_of(found, analyses)
    for file, figure in report.figures.items():
        save_figure(figure, folder / file)
    for name, rows in tables(found, analyses).items():
        if rows:
            write_text(folder / f"{name}.csv", as_csv(rows))
    write_text(folder / "report.md", _rendered("study.md.j2", report, folder))
    write_text(folder / "report.html", _rendered("study.html.j2", report, folder))
    known = document(found, analyses)
    write_text(folder / RECORD, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    return known


# ---------------------------------------------------------------- what a reader sees


def report_of(found: Found, analyses: Sequence[Analysis]) -> Report:
    """Return the report: words, tables and figures."""
    pictures = Pictures(found.study.name)
    answers: list[str] = []
    told: list[str] = []
    sections: list[Section] = []
    for one in analyses:
        lead = f"By {BY_WORD[one.scoring]}: " if len(analyses) > 1 else ""
        answers.append(lead + headline(found, one))
        told += [lead + sentence for sentence in summary(found, one)]
        sections += sections_of(found, one, pictures)
    if found.geometries:
        sections.append(geometry_section(found, pictures))
    sections.append(method_section(found, analyses))
    n_merges = len(found.scored) - len(found.study.models)
    head = (
        f"{len(found.study.models)} models and {n_merges} merges of {len(found.geometries)} pairs "
        f"on {len(found.questions)} questions"
    )
    return Report(
        title=f"Study {found.study.name}",
        description=" ".join(found.study.description.split()),
        answers=answers,
        summary=[head, *told],
        sections=sections,
        figures=pictures.figures,
    )


# ---------------------------------------------------------------- files


def _rendered(template: str, report: Report, folder: Path) -> str:
    """Return a template filled in; pictures go into the HTML as data URIs."""
    pages = environment(is_html=template.endswith(".html.j2"), keeps_end=True)
    pages.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    pages.filters["picture"] = lambda name: _data_uri(folder / name)
    return pages.get_template(template).render(report=report)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
