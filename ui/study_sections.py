"""The parts of a study's report: what each table and figure shows, and what to read in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from merging.synergy import Difference, Synergy
from merging.synergy_patterns import Correlations
from training.evaluation import POOLED, Scoring
from ui.duration import duration
from ui.environment import environment
from ui.study_figures import Pictures, accuracy_figure, gain_figure
from ui.study_run import Found
from ui.study_tables import ALL, Analysis, Gain, Kind
from ui.study_words import arc_in_words, in_points, share, with_bounds

if TYPE_CHECKING:
    from merging.geometry import Geometry

__all__ = ["BY_WORD", "Exhibit", "Section", "geometry_section", "method_section", "sections_of"]

BY_WORD: dict[Scoring, str] = {"loglik": "likelihood of each option", "reply": "one-word reply"}
_DRAWN = 4
"""Pairs of which each has its picture; `orbweave merge compare A B --chart` draws any other."""


class Exhibit(NamedTuple):
    """A table or figures."""

    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    figures: Sequence[tuple[str, str]] = ()
    """File within the report's folder, and what it shows."""
    folded: str = ""
    """What to unfold; empty where all of it is shown."""


class Section(NamedTuple):
    """One part of the report."""

    title: str
    words: Sequence[str]
    exhibits: Sequence[Exhibit] = ()


def sections_of(found: Found, one: Analysis, pictures: Pictures) -> list[Section]:
    """Return the parts about one way of scoring."""
    by = f", by {BY_WORD[one.scoring]}" if len(found.results) > 1 else ""
    sections = [_models(found, one, by)]
    if one.kinds:
        sections.append(_ways(one, by))
    if found.geometries:
        sections.append(_grid(found, one, by))
    sections.append(_accuracies(found, one, by, pictures))
    if one.synergies:
        sections.append(_against_parents(one, by, pictures))
    if one.controls:
        sections.append(_controls(one, by))
    if one.gains:
        sections.append(_gains(found, one, by, pictures))
    if one.correlations is not None:
        sections.append(_correlations(one, by, pictures))
    if one.clusters is not None:
        sections.append(_groups(one, by, pictures))
    return sections


def _models(found: Found, one: Analysis, by: str) -> Section:
    """Return the models as they are, which all else is measured by."""
    cells = {(a.model, a.group): share(a) for a in one.accuracies}
    rows = [
        [label, model.strategy, *(cells[label, group] for group in one.groups)]
        for label, model in found.study.models.items()
    ]
    return Section(
        f"The models{by}",
        [
            f"Right answers with 95 % Wilson intervals. `{POOLED}` takes all sets but general as "
            f"one; guessing gets {100 * one.chance:.1f} % of it."
        ],
        [Exhibit(["model", "strategy", *one.groups], rows)],
    )


def _grid(found: Found, one: Analysis, by: str) -> Section:
    """Return the paper's grid: every pair with and without a merge, and the ways side by side."""
    cells = {(a.model, a.group): f"{100 * a.accuracy:.1f}" for a in one.accuracies}
    ways = list(
        dict.fromkeys(v.name for p in found.study.pairs() for v in p.variants if v.way != "parent")
    )

    def grid(group: str) -> list[list[str]]:
        return [
            [pair.name, cells[pair.a, group], cells[pair.b, group]]
            + [cells.get((f"{pair.name} {way}", group), "") for way in ways]
            for pair in found.study.pairs()
        ]

    head = ["pair", "first alone", "second alone", *ways]
    folded = [
        Exhibit(head, grid(group), folded=f"The same, {group}")
        for group in one.groups
        if group != POOLED
    ]
    return Section(
        f"Every pair with and without a merge{by}",
        ["Right answers in percent. The first of a pair is at t = 0, the second at t = 1."],
        [Exhibit(head, grid(POOLED)), *folded],
    )


def _ways(one: Analysis, by: str) -> Section:
    """Return each way to merge, over all pairs."""
    head = ["way", "merges", "accuracy, %", "over the mean of the parents"]
    head += ["over the better parent", "better / worse / neither"]
    return Section(
        f"Ways to merge{by}",
        [
            "Averages over the pairs, in points with 95 % bootstrap intervals over questions. The "
            "better parent is found on the same questions, which flatters it a little. The last "
            "column counts what can be claimed of single merges against their better parent."
        ],
        [Exhibit(head, [_kind_row(kind) for kind in one.kinds])],
    )


def _accuracies(found: Found, one: Analysis, by: str, pictures: Pictures) -> Section:
    cells = {(a.model, a.group): share(a) for a in one.accuracies}
    rows = []
    for each in found.scored:
        shown = each.name if each.same_as == each.name else f"{each.name} = {each.same_as}"
        rows.append([shown, *(cells[each.name, group] for group in one.groups)])
    figure = pictures.add(
        f"accuracy-{one.scoring}",
        "Accuracy of every different model, best on top, with 95 % Wilson intervals. "
        f"Dashed: {found.study.first}; dotted: guessing.",
        accuracy_figure(found, one),
    )
    return Section(
        f"Every accuracy{by}",
        [
            "A merge that is equal to another one, weight by weight, is drawn once: as SLERP where "
            "SLERP and LERP are one model."
        ],
        [
            Exhibit(figures=[figure]),
            Exhibit(["model", *one.groups], rows, folded=f"All {len(rows)} as a table"),
        ],
    )


def _against_parents(one: Analysis, by: str, pictures: Pictures) -> Section:
    from merging import synergy_views as views

    rows = one.synergies
    head = ["merge", "expected, %", "actual, %", "over the mean", "better parent", "over it"]
    return Section(
        f"Merges against their parents{by}",
        [
            "Expected is the mean of the parents, as in the paper. What can be claimed is about "
            f"the better parent, with tests corrected (Holm) for all {len(rows)} different merges.",
        ],
        [
            Exhibit(
                figures=[
                    pictures.add(
                        f"expected-against-actual-{one.scoring}",
                        "Actual accuracy of each merge over the mean of its parents; on the "
                        "dashed line it is neither better nor worse.",
                        views.expected_against_actual(rows),
                    ),
                    pictures.add(
                        f"deviations-{one.scoring}",
                        "Each merge against its better parent, sorted. Right of the line the "
                        "merge is better.",
                        views.sorted_deviations(rows),
                    ),
                ]
            ),
            Exhibit(
                [*head, "p, Holm", "can be claimed"],
                [_synergy_row(row) for row in rows],
                folded=f"All {len(rows)} as a table",
            ),
        ],
    )


def _controls(one: Analysis, by: str) -> Section:
    rows = [[name, _gain(d), f"{d.p_value:.2g}"] for name, d in one.controls.items()]
    return Section(
        f"SLERP against LERP{by}",
        [
            f"SLERP over LERP: {arc_in_words(one)}.",
            "LERP is plain averaging with the same t for every tensor: the control that tells "
            "whether the arc matters, or only that there is a merge. P-values of the table are "
            "not corrected.",
        ],
        [
            Exhibit(
                ["SLERP", "over LERP at the same place, points (95 %)", "p"],
                rows,
                folded=f"All {len(rows)} as a table",
            )
        ],
    )


def _gains(found: Found, one: Analysis, by: str, pictures: Pictures) -> Section:
    first = found.study.first
    head = ["model", "questions", "gain", "p", "p, Holm", "can be claimed"]
    own = [gain for gain in one.gains if not found.study.is_merge(gain.model)]
    merged = [g for g in one.gains if found.study.is_merge(g.model) and g.group == POOLED]
    exhibits = [Exhibit(head, [_gain_row(gain, first) for gain in own])] if own else []
    if merged:
        rows = [_gain_row(gain, first) for gain in merged]
        exhibits.append(Exhibit(head, rows, folded=f"The {len(rows)} merges, {POOLED}"))
    figure = pictures.add(
        f"gains-{one.scoring}",
        f"Points over {first} of every different model, with 95 % paired bootstrap intervals.",
        gain_figure(found, one),
    )
    return Section(
        f"Gains over {first}{by}",
        [
            "Percentage points with 95 % paired bootstrap intervals; p is McNemar's exact test. It "
            "is corrected (Holm) in families: models as they are and merges, pooled and set by "
            f"set. `gains.csv` has all {len(one.gains)} comparisons. Intervals are not corrected."
        ],
        [*exhibits, Exhibit(figures=[figure], folded="All of them drawn, set by set")],
    )


def _correlations(one: Analysis, by: str, pictures: Pictures) -> Section:
    assert one.correlations is not None
    known = one.correlations.varying()
    words = [
        f"Over {known.n} merges; |r| above {known.sure_above:.2f} is more than chance gives in 19 "
        "of 20 cases, for one pair of columns and independent merges. Correlation is no cause.",
        *(f"Warning: {warning}." for warning in known.warnings),
    ]
    if len(known.columns) < 2:
        return Section(f"What goes with what{by}", words)
    from merging.synergy_pattern_views import correlation_map

    figure = pictures.add(
        f"correlations-{one.scoring}",
        "What goes with what over the merges. Stages such as SFT: the share of the parents that "
        "went through them.",
        correlation_map(known),
    )
    rows = _correlation_rows(known)
    table = Exhibit(["Pearson (Spearman)", *known.columns], rows, folded="The same as a table")
    return Section(f"What goes with what{by}", words, [Exhibit(figures=[figure]), table])


def _groups(one: Analysis, by: str, pictures: Pictures) -> Section:
    from merging import synergy_pattern_views as views

    groups = one.clusters
    assert groups is not None
    doubt = "" if groups.silhouette >= 0.5 else "; below 0.5 there may be no groups at all"
    drawn = {
        "clusters": ("Groups in the plane of expected and actual.", views.cluster_map(groups)),
        "density": ("Density of the merges in that plane.", views.density_map(groups)),
        "dendrogram": ("Ward's tree of the merges.", views.dendrogram_view(groups)),
    }
    rows = [[name, str(k + 1)] for name, k in zip(groups.names, groups.labels, strict=True)]
    return Section(
        f"Groups of merges{by}",
        [
            "K-means in the z-scores of expected and actual accuracy, as in the paper, finds "
            f"groups in anything: mean silhouette {groups.silhouette:.2f}{doubt}."
        ],
        [
            Exhibit(
                figures=[
                    pictures.add(f"{name}-{one.scoring}", title, figure)
                    for name, (title, figure) in drawn.items()
                ],
                folded="Groups, density and tree drawn",
            ),
            Exhibit(["merge", "group"], rows, folded="The groups as a table"),
        ],
    )


def geometry_section(found: Found, pictures: Pictures) -> Section:
    """Return how the parents of each pair lie to each other, and add the pictures by depth."""
    from merging.geometry_picture import draw

    drawn = [
        pictures.add(
            f"geometry-{name.replace(' × ', '+')}",
            f"Geometry of {name} by depth and kind of weight.",
            draw(geometry),
        )
        for name, geometry in _telling(found.geometries).items()
    ]
    head = ["pair", "mean angle", "|b - a| / |a|", "SLERP is a straight line for", "task cosine"]
    rows = [_geometry_row(name, one) for name, one in found.geometries.items()]
    return Section(
        "How the parents lie to each other",
        [
            "Angles are means by number of weights. Where SLERP is a straight line it is LERP, so "
            "no effect of the arc can come from there. The cosine is of what either learnt beyond "
            f"{found.study.first}; it is there for pairs that {found.study.first} is not in."
        ],
        [
            Exhibit(head, rows),
            Exhibit(
                figures=drawn,
                folded="By depth and kind of weight"
                + (": the closest and the farthest pair" if len(drawn) < len(rows) else ""),
            ),
        ],
    )


def _telling(geometries: Mapping[str, Geometry]) -> Mapping[str, Geometry]:
    """Return the pairs that are worth a picture: a few all, of many the extremes."""
    if len(geometries) <= _DRAWN:
        return geometries
    by_angle = sorted(geometries, key=lambda name: geometries[name].total.angle_deg or 0.0)
    return {name: geometries[name] for name in (by_angle[0], by_angle[-1])}


def method_section(found: Found, analyses: Sequence[Analysis]) -> Section:
    """Return how the numbers came about, and how many were looked at."""
    study = found.study
    counts = "; ".join(
        f"by {BY_WORD[one.scoring]} {len(one.gains)} over {study.first} and "
        f"{len(one.synergies)} over a better parent"
        for one in analyses
    )
    known = environment()
    spent = ", ".join(f"{what} {duration(s)}" for what, s in found.seconds.items())
    words = [
        f"Comparisons made: {counts}. P-values are corrected by Holm's method: over the better "
        f"parent for all merges, over {study.first} in the families named there. Intervals are not "
        "corrected.",
        f"Seed {study.seed} draws the intervals and the two halves of the questions. The set "
        "general counts in no overall accuracy and in no verdict on a merge: what is lost there "
        "is forgetting.",
        "All models answer the same questions, so the intervals say how far other questions of "
        "this kind would give other numbers; they say nothing of another training with another "
        "seed.",
        f"Of {found.n_sets} sets of answers {found.n_known} were known from before; {spent}. Made "
        f"with orbweave {known['orbweave']}, torch {known['torch']} and transformers "
        f"{known['transformers']} on {known['cores']} cores.",
        *(f"Left out: {note}." for one in analyses for note in one.notes),
    ]
    rows = [
        [label, one.strategy, one.model, found.hashes[label][:12]]
        for label, one in study.models.items()
    ]
    head = ["model", "strategy", "made from", "hash of its weights"]
    return Section("How it was done", words, [Exhibit(head, rows)])


# ---------------------------------------------------------------- cells


def _kind_row(kind: Kind) -> list[str]:
    neither = kind.n - kind.n_gains - kind.n_losses
    return [
        "all of them" if kind.name == ALL else kind.name,
        str(kind.n),
        f"{100 * kind.accuracy:.1f}",
        in_points(kind.excess),
        in_points(kind.improvement),
        f"{kind.n_gains} / {kind.n_losses} / {neither}",
    ]


def _gain_row(gain: Gain, first: str) -> list[str]:
    claim = {1: f"better than {first}", -1: f"worse than {first}", 0: "nothing"}[gain.claim]
    bounds = with_bounds(gain.gain, gain.low, gain.high)
    return [gain.model, gain.group, bounds, f"{gain.p_value:.2g}", f"{gain.p_holm:.2g}", claim]


def _synergy_row(row: Synergy) -> list[str]:
    claim = "better" if row.is_gain else "worse" if row.is_loss else "nothing"
    return [
        row.name,
        f"{100 * row.expected:.1f}",
        f"{100 * row.actual:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})",
        with_bounds(row.excess, row.excess_low, row.excess_high),
        row.better,
        with_bounds(row.improvement, row.improvement_low, row.improvement_high),
        f"{row.p_holm:.2g}",
        claim,
    ]


def _correlation_rows(known: Correlations) -> list[list[str]]:
    cells = [
        [f"{r:+.2f} ({rank:+.2f})" for r, rank in zip(*rows, strict=True)]
        for rows in zip(known.pearson, known.spearman, strict=True)
    ]
    return [[name, *row] for name, row in zip(known.columns, cells, strict=True)]


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
