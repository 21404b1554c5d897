"""What a study found: in plain words, as tables, figures, CSV, JSON, Markdown and one HTML file.

write(found, folder)    # fills an empty folder; results.json comes last
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from merging.synergy import Difference, Synergy, against_the_mean, verdict
from orbweave.files import write_text
from ui.duration import duration
from ui.study_export import as_csv, document, tables
from ui.study_figures import accuracy_figure, gain_figure, roomy, save_figure
from ui.study_run import Found
from ui.study_tables import Analysis, Gain, analyse
from ui.study_words import arc_in_words, share, summary, with_bounds
from ui.template import environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from merging.geometry import Geometry

__all__ = ["RECORD", "Report", "Section", "report_of", "write"]

RECORD = "results.json"
_BY_WORD = {"loglik": "likelihood of each option", "reply": "one-word reply"}


class Section(NamedTuple):
    """One part of the report."""

    title: str
    words: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[tuple[str, str]] = ()
    """File and what it shows."""


@dataclass(frozen=True)
class Report:
    """Everything a reader sees, but for the pictures themselves."""

    title: str
    description: str
    summary: list[str]
    sections: list[Section]
    figures: dict[str, Figure] = field(repr=False)
    """By file name."""


def write(found: Found, folder: Path) -> dict[str, Any]:
    """Write everything into an existing folder; returns the document of `results.json`."""
    analyses = [analyse(found, scoring) for scoring in found.results]
    report = report_of(found, analyses)
    for name, figure in report.figures.items():
        save_figure(figure, folder / name)
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
    figures: dict[str, Figure] = {}
    told: list[str] = []
    sections: list[Section] = []
    for one in analyses:
        lead = f"by {_BY_WORD[one.scoring]}: " if len(analyses) > 1 else ""
        told += [lead + sentence for sentence in summary(found, one)]
        sections += _sections(found, one, figures)
    if found.geometries:
        sections.append(_geometry(found, figures))
    sections.append(_method(found, analyses))
    n_merges = len(found.scored) - len(found.study.models)
    head = (
        f"{len(found.study.models)} models and {n_merges} merges of {len(found.geometries)} pairs "
        f"on {len(found.questions)} questions"
    )
    return Report(
        title=f"Study {found.study.name}",
        description=" ".join(found.study.description.split()),
        summary=[head, *told],
        sections=sections,
        figures=figures,
    )


def _sections(found: Found, one: Analysis, figures: dict[str, Figure]) -> list[Section]:
    """Return the parts about one way of scoring, and add their figures."""
    by = f", by {_BY_WORD[one.scoring]}"
    first = found.study.first

    def draw(name: str, title: str, figure: Figure) -> list[tuple[str, str]]:
        file = f"{name}-{one.scoring}.png"
        figures[file] = figure
        return [(file, title)]

    sections = [
        Section(
            f"Accuracy{by}",
            ["Right answers in percent with 95 % Wilson intervals."],
            ["model", "strategy", *one.groups],
            _accuracy_rows(found, one),
            draw("accuracy", "Accuracy of every model and merge", accuracy_figure(one)),
        )
    ]
    if found.geometries:
        sections.append(_grid(found, one, by))
    if one.gains:
        sections.append(
            Section(
                f"Gains over {first}{by}",
                [
                    "Percentage points with 95 % paired bootstrap intervals; p is McNemar's exact "
                    f"test, corrected (Holm) for the {len(one.gains)} comparisons of this table. "
                    "Intervals are not corrected."
                ],
                ["model", "questions", "gain", "p", "p, Holm", "can be claimed"],
                [_gain_row(gain, first) for gain in one.gains],
                draw("gains", f"Gains over {first}", gain_figure(one, first)),
            )
        )
    if one.synergies:
        sections += _synergy_sections(found, one, by, draw)
    return sections


def _synergy_sections(found: Found, one: Analysis, by: str, draw: Any) -> list[Section]:
    from merging import synergy_pattern_views as pattern_views
    from merging import synergy_views as views

    rows, n = one.synergies, len(one.synergies)
    sections = [
        Section(
            f"Merges against their parents{by}",
            [
                "Expected is the mean of the parents, as in the paper. The verdict is about the "
                f"better parent; tests are corrected (Holm) for all {n} different merges.",
            ],
            ["merge", "expected, %", "actual, %", "over the mean", "better parent", "verdict"],
            [_synergy_row(row) for row in rows],
            [
                *draw(
                    "expected-against-actual",
                    "Actual accuracy of each merge over the mean of its parents",
                    roomy(views.expected_against_actual(rows), n),
                ),
                *draw(
                    "deviations",
                    "Each merge against its better parent, sorted",
                    views.sorted_deviations(rows),
                ),
            ],
        )
    ]
    if one.controls:
        sections.append(
            Section(
                f"SLERP against LERP{by}",
                [arc_in_words(one)],
                ["SLERP", "over LERP at the same place, points (95 %)", "p"],
                [[name, _gain(d), f"{d.p_value:.2g}"] for name, d in one.controls.items()],
            )
        )
    if one.correlations is not None:
        known = one.correlations
        sections.append(
            Section(
                f"What goes with what{by}",
                [
                    f"Over {known.n} merges; |r| above {known.sure_above:.2f} is more than chance "
                    "gives in 19 of 20 cases, for one pair of columns and independent merges. "
                    "Correlation is no cause.",
                    *(f"Warning: {warning}." for warning in known.warnings),
                ],
                ["Pearson (Spearman)", *known.columns],
                _correlation_rows(known),
                draw("correlations", "Correlations", pattern_views.correlation_map(known)),
            )
        )
    if one.clusters is not None:
        groups = one.clusters
        doubt = "" if groups.silhouette >= 0.5 else "; below 0.5 there may be no groups at all"
        sections.append(
            Section(
                f"Groups of merges{by}",
                [
                    "K-means in the z-scores of expected and actual accuracy finds groups in "
                    f"anything: mean silhouette {groups.silhouette:.2f}{doubt}."
                ],
                ["merge", "group"],
                [[name, str(k + 1)] for name, k in zip(groups.names, groups.labels, strict=True)],
                [
                    *draw("clusters", "Groups", roomy(pattern_views.cluster_map(groups), n)),
                    *draw("density", "Density", pattern_views.density_map(groups)),
                    *draw("dendrogram", "Ward's tree", pattern_views.dendrogram_view(groups)),
                ],
            )
        )
    return sections


def _grid(found: Found, one: Analysis, by: str) -> Section:
    """Return the paper's grid: every pair with and without a merge, on every set."""
    cells = {(a.model, a.group): f"{100 * a.accuracy:.1f}" for a in one.accuracies}
    variants = list(
        dict.fromkeys(v.name for p in found.study.pairs() for v in p.variants if v.way != "parent")
    )
    rows = [
        [pair.name, group, cells[pair.a, group], cells[pair.b, group]]
        + [cells.get((f"{pair.name} {variant}", group), "") for variant in variants]
        for pair in found.study.pairs()
        for group in one.groups
    ]
    return Section(
        f"With and without a merge{by}",
        ["Right answers in percent; the intervals are in the table above."],
        ["pair", "questions", "first alone", "second alone", *variants],
        rows,
    )


def _geometry(found: Found, figures: dict[str, Figure]) -> Section:
    """Return how the parents of each pair lie to each other, and add the pictures by depth."""
    from merging.geometry_picture import draw

    drawn = []
    for name, geometry in found.geometries.items():
        file = f"geometry-{name.replace(' × ', '+')}.png"
        figures[file] = draw(geometry)
        drawn.append((file, f"Geometry of {name} by depth"))
    return Section(
        "How the parents lie to each other",
        [
            "Angles are means by number of weights. Where SLERP is a straight line it is LERP, so "
            "no effect of the arc can come from there. The cosine is of what either learnt beyond "
            f"{found.study.first}; it is there for pairs that {found.study.first} is not in."
        ],
        ["pair", "mean angle", "|b - a| / |a|", "SLERP is a straight line for", "task cosine"],
        [_geometry_row(name, one) for name, one in found.geometries.items()],
        drawn,
    )


def _method(found: Found, analyses: Sequence[Analysis]) -> Section:
    study = found.study
    counts = "; ".join(
        f"by {_BY_WORD[one.scoring]} {len(one.gains)} over {study.first} and "
        f"{len(one.synergies)} over a better parent"
        for one in analyses
    )
    spent = ", ".join(f"{what} {duration(s)}" for what, s in found.seconds.items())
    words = [
        f"Comparisons made: {counts}. P-values are corrected by Holm's method within each of these "
        "tables, not across them; intervals are not corrected.",
        f"Seed {study.seed} draws the intervals and the two halves of the questions. The set "
        "general counts in no overall accuracy and in no verdict on a merge: what is lost there "
        "is forgetting.",
        "All models are answers to the same questions, so the intervals say how far other "
        "questions of this kind would give other numbers; they say nothing of another training "
        "with another seed.",
        f"Of {found.n_sets} sets of answers {found.n_known} were known from before; {spent}.",
        *(f"Left out: {note}." for one in analyses for note in one.notes),
    ]
    return Section(
        "How it was done",
        words,
        ["model", "strategy", "made from"],
        [[label, one.strategy, one.model] for label, one in study.models.items()],
    )


# ---------------------------------------------------------------- cells


def _accuracy_rows(found: Found, one: Analysis) -> list[list[str]]:
    cells = {(a.model, a.group): share(a) for a in one.accuracies}
    rows = []
    for each in found.scored:
        known = found.study.models.get(each.name)
        shown = each.name if each.same_as == each.name else f"{each.name} = {each.same_as}"
        strategy = known.strategy if known else "merge"
        rows.append([shown, strategy, *(cells[each.name, group] for group in one.groups)])
    return rows


def _gain_row(gain: Gain, first: str) -> list[str]:
    claim = {1: f"better than {first}", -1: f"worse than {first}", 0: "nothing"}[gain.claim]
    bounds = with_bounds(gain.gain, gain.low, gain.high)
    return [gain.model, gain.group, bounds, f"{gain.p_value:.2g}", f"{gain.p_holm:.2g}", claim]


def _synergy_row(row: Synergy) -> list[str]:
    return [
        row.name,
        f"{100 * row.expected:.1f}",
        f"{100 * row.actual:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})",
        against_the_mean(row),
        row.better,
        verdict(row),
    ]


def _correlation_rows(known: Any) -> list[list[str]]:
    def cell(i: int, j: int) -> str:
        r, rank = known.pearson[i, j], known.spearman[i, j]
        return "–" if r != r else f"{r:+.2f} ({rank:+.2f})"  # NaN is not itself

    k = len(known.columns)
    return [[known.columns[i], *(cell(i, j) for j in range(k))] for i in range(k)]


def _geometry_row(name: str, geometry: Geometry) -> list[str]:
    total = geometry.total
    return [
        name,
        "–" if total.angle_deg is None else f"{total.angle_deg:.2f}°",
        "–" if total.change is None else f"{total.change:.4f}",
        f"{100 * geometry.linear_share:.1f} % of the weights",
        "–" if total.task_cosine is None else f"{total.task_cosine:+.3f}",
    ]


def _gain(found: Difference) -> str:
    return with_bounds(found.gain, found.low, found.high)


# ---------------------------------------------------------------- files


def _rendered(template: str, report: Report, folder: Path) -> str:
    """Return a template filled in; pictures go into the HTML as data URIs."""
    pages = environment(is_html=template.endswith(".html.j2"), keeps_end=True)
    pages.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    pages.filters["picture"] = lambda name: _data_uri(folder / name)
    return pages.get_template(template).render(report=report)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
