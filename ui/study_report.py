"""What a study found: in plain words, as tables, figures, CSV, JSON, Markdown and one HTML file.

write(found, folder)    # fills an empty folder; results.json comes last
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from merging.synergy import Difference, Synergy, against_the_mean, points, verdict
from orbweave.files import write_text
from training.evaluation import MEAN, POOLED
from ui.duration import duration
from ui.study_run import Found
from ui.study_tables import Accuracy, Analysis, Gain, analyse
from ui.template import environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from merging.geometry import Geometry

__all__ = ["RECORD", "Report", "Section", "document", "report_of", "summary", "write"]

RECORD = "results.json"
_CROWDED = 24
"""Merges from which on a figure that lists them has to grow."""
_LISTED = 6
"""Names told one by one in a sentence; of more only the number."""
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
        _save(figure, folder / name)
    for name, rows in _tables(found, analyses).items():
        if rows:
            write_text(folder / f"{name}.csv", _csv(rows))
    write_text(folder / "report.md", _rendered("study.md.j2", report, folder))
    write_text(folder / "report.html", _rendered("study.html.j2", report, folder))
    known = document(found, analyses)
    write_text(folder / RECORD, json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    return known


def summary(found: Found, analysis: Analysis) -> list[str]:
    """Return what can and what cannot be claimed, as sentences."""
    first = found.study.first
    base = next(a for a in analysis.accuracies if (a.model, a.group) == (first, POOLED))
    told = [f"{first} answers {_share(base)} of {base.n} questions right"]
    pooled = [g for g in analysis.gains if g.group == POOLED]
    own = [g for g in pooled if g.model in found.study.models]
    merged = [g for g in pooled if g.model not in found.study.models]
    for what, gains in (("models as they are", own), ("merges", merged)):
        if gains:
            told.append(f"{what} against {first}: {_claims(gains, len(analysis.gains))}")
    rows = analysis.synergies
    if rows:
        better, worse = (sum(getattr(r, key) for r in rows) for key in ("is_gain", "is_loss"))
        told.append(
            f"of {len(rows)} different merges {better} can be claimed to be better than the better "
            f"parent and {worse} to be worse; for {len(rows) - better - worse} neither can be "
            f"claimed (interval and McNemar's test, Holm over {len(rows)})"
        )
        above = sum(r.excess_low > 0 for r in rows)
        below = sum(r.excess_high < 0 for r in rows)
        told.append(
            f"against the mean of their parents, the paper's low bar, the intervals of {above} lie "
            f"above and of {below} below; these are not corrected for there being {len(rows)}"
        )
    if analysis.choice is not None:
        best = analysis.choice.best
        told.append(
            f"best merge on one half of the questions: {best.name}; on the other "
            f"{len(analysis.choice.reporting)}: {verdict(best)}"
        )
    if analysis.arc is not None:
        told.append(f"SLERP over LERP: {_arc_in_words(analysis)}")
    elif rows:
        told.append(
            "SLERP and LERP are one model wherever both were asked for, so nothing can be said of "
            "the arc"
        )
    return told


def document(found: Found, analyses: Sequence[Analysis]) -> dict[str, Any]:
    """Return all of it as JSON values, with every answer."""
    from merging import geometry

    return {
        "schema_version": 1,
        "study": found.study.model_dump(mode="json"),
        "models": [each._asdict() for each in found.scored],
        "questions": [question._asdict() for question in found.questions],
        "n_known": found.n_known,
        "n_sets": found.n_sets,
        "seconds": found.seconds,
        "scorings": {one.scoring: _scoring(found, one) for one in analyses},
        "geometry": {
            name: {
                key: value
                for key, value in geometry.document(one).items()
                if key not in {"tensors", "by_layer"}
            }
            for name, one in found.geometries.items()
        },
    }


def _scoring(found: Found, one: Analysis) -> dict[str, Any]:
    results = found.results[one.scoring]
    choice, clusters = one.choice, one.clusters
    return {
        "summary": summary(found, one),
        "accuracies": [row._asdict() for row in one.accuracies],
        "gains": [row._asdict() for row in one.gains],
        "synergies": [
            {**row.model_dump(mode="json"), "verdict": verdict(row)} for row in one.synergies
        ],
        "slerp_over_lerp": {name: row._asdict() for name, row in one.controls.items()},
        "slerp_over_lerp_mean": one.arc and {"gain": one.arc[0], **one.arc[1]._asdict()},
        "chosen": choice
        and {
            "best": choice.best.name,
            "verdict": verdict(choice.best),
            "choosing": [one.judged.questions[i] for i in choice.choosing],
            "reporting": [one.judged.questions[i] for i in choice.reporting],
        },
        "correlations": one.correlations and one.correlations.document(),
        "clusters": clusters
        and {
            "labels": dict(zip(clusters.names, clusters.labels, strict=True)),
            "silhouette": clusters.silhouette,
        },
        "notes": list(one.notes),
        "right": {
            name: "".join("01"[right] for right in results.row(name).tolist())
            for name in results.names
        },
    }


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
            draw("accuracy", "Accuracy of every model and merge", _accuracy_figure(one)),
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
                draw("gains", f"Gains over {first}", _gain_figure(one, first)),
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
                    _roomy(views.expected_against_actual(rows), n),
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
                [_arc_in_words(one)],
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
                    *draw("clusters", "Groups", _roomy(pattern_views.cluster_map(groups), n)),
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


# ---------------------------------------------------------------- sentences and cells


def _claims(gains: Sequence[Gain], n_comparisons: int) -> str:
    """Return who is better, who is worse and of whom nothing can be said."""
    parts = []
    for claim, said in ((1, "better"), (-1, "worse"), (0, "no difference can be claimed for")):
        own = [gain for gain in gains if gain.claim == claim]
        if own:
            listed = "; ".join(f"{g.model} {_points(g.gain, g.low, g.high)}" for g in own)
            parts.append(f"{said} {listed if len(own) <= _LISTED else f'{len(own)} of them'}")
    return f"{', '.join(parts)} (points, 95 %; Holm over {n_comparisons})"


def _arc_in_words(one: Analysis) -> str:
    assert one.arc is not None
    mean, bounds = one.arc
    claim = "no difference can be claimed"
    if bounds.low > 0 or bounds.high < 0:
        claim = "SLERP is better" if bounds.low > 0 else "SLERP is worse"
    return (
        f"{claim}: {_points(mean, *bounds)} points at the same t, mean over {len(one.controls)} "
        "places where they are two models"
    )


def _accuracy_rows(found: Found, one: Analysis) -> list[list[str]]:
    cells = {(a.model, a.group): _share(a) for a in one.accuracies}
    rows = []
    for each in found.scored:
        known = found.study.models.get(each.name)
        shown = each.name if each.same_as == each.name else f"{each.name} = {each.same_as}"
        strategy = known.strategy if known else "merge"
        rows.append([shown, strategy, *(cells[each.name, group] for group in one.groups)])
    return rows


def _gain_row(gain: Gain, first: str) -> list[str]:
    claim = {1: f"better than {first}", -1: f"worse than {first}", 0: "nothing"}[gain.claim]
    bounds = _points(gain.gain, gain.low, gain.high)
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


def _share(row: Accuracy) -> str:
    return f"{100 * row.accuracy:.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"


def _gain(found: Difference) -> str:
    return _points(found.gain, found.low, found.high)


def _points(value: float, low: float, high: float) -> str:
    return f"{points(value)} ({points(low)} to {points(high)})"


# ---------------------------------------------------------------- files


def _tables(found: Found, analyses: Sequence[Analysis]) -> dict[str, list[dict[str, Any]]]:
    """Return every table as rows of plain values, by the name of its CSV file."""

    def rows(name: str) -> list[dict[str, Any]]:
        return [
            {"scoring": one.scoring, **row._asdict()}
            for one in analyses
            for row in getattr(one, name)
        ]

    return {
        "models": [each._asdict() for each in found.scored],
        "accuracy": rows("accuracies"),
        "gains": rows("gains"),
        "synergy": [
            {"scoring": one.scoring, **_flat(row), "verdict": verdict(row)}
            for one in analyses
            for row in one.synergies
        ],
        "slerp-over-lerp": [
            {"scoring": one.scoring, "slerp": name, **row._asdict()}
            for one in analyses
            for name, row in one.controls.items()
        ],
        "correlations": [row for one in analyses for row in _pairs_of_columns(one)],
        "clusters": [
            {"scoring": one.scoring, "merge": name, "group": label + 1}
            for one in analyses
            if one.clusters
            for name, label in zip(one.clusters.names, one.clusters.labels, strict=True)
        ],
        "geometry": [
            {"pair": name, **part._asdict(), "shares": json.dumps(part.shares)}
            for name, geometry in found.geometries.items()
            for part in (geometry.total, *geometry.by_part)
        ],
    }


def _flat(row: Synergy) -> dict[str, Any]:
    plain = row.model_dump(mode="json")
    several = {key: " | ".join(map(str, plain[key])) for key in ("parents", "parent_accuracies")}
    return {**plain, **several, "traits": json.dumps(plain["traits"])}


def _pairs_of_columns(one: Analysis) -> Iterator[dict[str, Any]]:
    known = one.correlations
    for i, a in enumerate(known.columns if known else ()):
        for j, b in enumerate(known.columns[:i] if known else ()):
            assert known is not None
            r, rank = float(known.pearson[i, j]), float(known.spearman[i, j])
            yield {
                "scoring": one.scoring,
                "a": b,
                "b": a,
                "pearson": None if r != r else r,
                "spearman": None if rank != rank else rank,
                "n": known.n,
            }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rendered(template: str, report: Report, folder: Path) -> str:
    """Return a template filled in; pictures go into the HTML as data URIs."""
    pages = environment(is_html=template.endswith(".html.j2"), keeps_end=True)
    pages.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    pages.filters["picture"] = lambda name: _data_uri(folder / name)
    return pages.get_template(template).render(report=report)


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


# ---------------------------------------------------------------- figures


class Bar(NamedTuple):
    """One mark with its interval, in percent or points."""

    model: str
    group: str
    value: float
    low: float
    high: float


def _accuracy_figure(one: Analysis) -> Figure:
    bars = [_bar(row, row.accuracy) for row in one.accuracies if row.group != MEAN]
    return _whiskers(bars, "right answers, %", None)


def _gain_figure(one: Analysis, first: str) -> Figure:
    return _whiskers([_bar(row, row.gain) for row in one.gains], f"points over {first}", 0.0)


def _bar(row: Accuracy | Gain, value: float) -> Bar:
    return Bar(row.model, row.group, 100 * value, 100 * row.low, 100 * row.high)


def _whiskers(bars: Sequence[Bar], label: str, zero: float | None) -> Figure:
    """Draw a panel per group of questions: a line per model, the best pooled one on top."""
    from merging.synergy_views import COLOURS, in_our_style

    @in_our_style
    def draw() -> Figure:
        from matplotlib.figure import Figure

        groups = list(dict.fromkeys(bar.group for bar in bars))
        order = [b.model for b in sorted(bars, key=lambda b: b.value) if b.group == groups[0]]
        figure = Figure(
            figsize=(3.0 + 2.4 * len(groups), 1.3 + 0.24 * len(order)), layout="constrained"
        )
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            own = sorted((b for b in bars if b.group == group), key=lambda b: order.index(b.model))
            if zero is not None:
                axes.axvline(zero, color="black", linewidth=1)
            arms = [[max(0, b.value - b.low) for b in own], [max(0, b.high - b.value) for b in own]]
            look: Any = {"fmt": "o", "color": COLOURS["blue"], "markersize": 5, "capsize": 2.5}
            axes.errorbar([b.value for b in own], range(len(own)), xerr=arms, **look)
            axes.set(title=group, xlabel=label, ylim=(-0.6, len(order) - 0.4))
            axes.grid(axis="x", color="0.9")
            axes.set_axisbelow(True)
        panels[0].set_yticks(range(len(order)), order)
        return figure

    return draw()


def _roomy(figure: Figure, n: int) -> Figure:
    """Return a figure large enough for the list of n merges beside it, in like proportions."""
    width, height = figure.get_size_inches()
    if n > _CROWDED:
        tall = max(height, 0.165 * n + 1.4)
        figure.set_size_inches(max(width, 0.8 * tall), tall)
    return figure


def _save(figure: Figure, path: Path) -> None:
    from merging.synergy_views import save

    save(figure, path)
