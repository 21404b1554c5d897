"""The numbers of a study: accuracies, gains over the baseline, and merges against their parents.

    analysis = analyse(found, "loglik")
    analysis.accuracies, analysis.gains, analysis.synergies, ...

Every interval is of 95 %. P-values are corrected (Holm) over all comparisons of their table, so
that any row may be read; intervals are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from merging.synergy import (
    Choice,
    Difference,
    Results,
    Synergy,
    choose,
    compare,
    holm,
    mean_difference,
    synergies,
)
from merging.synergy_patterns import Correlations, Groups, group, merge_correlations
from orbweave.errors import UsageError
from orbweave.statistics import LEVEL, Interval, mean_of_sets, mean_of_sets_interval, wilson
from training.benchmark import GENERAL
from training.evaluation import MEAN, POOLED, Scoring
from ui.study_run import Found

__all__ = ["Accuracy", "Analysis", "Gain", "analyse", "judged"]


class Accuracy(NamedTuple):
    """A model on a group of questions; shares in [0, 1]."""

    model: str
    group: str
    """`pooled`, `mean of sets` (both without the set `general`) or a benchmark."""
    n: int
    accuracy: float
    low: float
    high: float
    """Wilson interval, for `mean of sets` put together from the sets'."""


class Gain(NamedTuple):
    """A model against the baseline on the same questions."""

    model: str
    group: str
    gain: float
    low: float
    high: float
    """Paired bootstrap over questions."""
    only_baseline: int
    only_model: int
    p_value: float
    """McNemar's exact test ..."""
    p_holm: float
    """... corrected for all rows of the table."""

    @property
    def claim(self) -> int:
        """1 if better than the baseline can be claimed, -1 if worse, else 0."""
        if self.p_holm >= 1 - LEVEL:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, eq=False)
class Analysis:
    """What one way of scoring says."""

    scoring: Scoring
    groups: tuple[str, ...]
    accuracies: list[Accuracy]
    gains: list[Gain]
    """Of every different model but the baseline, on every group but `mean of sets`."""
    judged: Results
    """On the questions that merges are judged by: all but those of `general`."""
    synergies: list[Synergy]
    controls: dict[str, Difference]
    """SLERP -> its gain over LERP at the same place."""
    arc: tuple[float, Interval] | None
    """Mean of these gains; None where there is none."""
    choice: Choice | None
    """The best merge, chosen on one half of the questions and measured on the other."""
    correlations: Correlations | None
    clusters: Groups | None
    notes: tuple[str, ...]
    """Why something is missing."""


def analyse(found: Found, scoring: Scoring) -> Analysis:
    """Return every table that follows from who got what right."""
    results, seed = found.results[scoring], found.study.seed
    sets = _sets(found)
    judged_places = judged(found)
    on_judged = results.take(judged_places)
    notes: list[str] = []
    rows = synergies(on_judged, found.merges, seed=seed) if found.merges else []
    strata = [found.questions[i].stratum for i in judged_places]
    return Analysis(
        scoring=scoring,
        groups=(POOLED, *([MEAN] if len(_counted(sets)) > 1 else []), *sets),
        accuracies=_accuracies(results, sets, judged_places),
        gains=_gains(found, results, {POOLED: judged_places, **sets}),
        judged=on_judged,
        synergies=rows,
        controls={b: compare(on_judged, a, b, seed=seed) for a, b in found.controls},
        arc=mean_difference(on_judged, found.controls, seed=seed) if found.controls else None,
        choice=_tried(lambda: choose(on_judged, found.merges, strata, seed=seed), notes),
        correlations=_tried(lambda: merge_correlations(rows), notes) if rows else None,
        clusters=_tried(lambda: group(rows, seed=seed), notes) if rows else None,
        notes=tuple(notes),
    )


def judged(found: Found) -> list[int]:
    """Return the places of the questions that count: `general` does only if it is alone."""
    sets = _counted(_sets(found))
    return sorted(place for places in sets.values() for place in places)


def _sets(found: Found) -> dict[str, list[int]]:
    """Return the places of the questions of each benchmark."""
    sets: dict[str, list[int]] = {}
    for place, question in enumerate(found.questions):
        sets.setdefault(question.id.partition("/")[0], []).append(place)
    return sets


def _counted(sets: dict[str, list[int]]) -> dict[str, list[int]]:
    return {name: places for name, places in sets.items() if name != GENERAL} or sets


def _accuracies(
    results: Results, sets: dict[str, list[int]], pooled: Sequence[int]
) -> list[Accuracy]:
    rows = []
    counted = _counted(sets)
    for model in results.names:
        right = results.row(model)
        rows.append(_accuracy(model, POOLED, right[list(pooled)]))
        if len(counted) > 1:
            counts = [(int(right[places].sum()), len(places)) for places in counted.values()]
            bounds = mean_of_sets_interval(counts)
            rows.append(Accuracy(model, MEAN, len(pooled), mean_of_sets(counts), *bounds))
        rows += [_accuracy(model, name, right[places]) for name, places in sets.items()]
    return rows


def _accuracy(model: str, group_name: str, right: Any) -> Accuracy:
    n, n_right = int(right.size), int(np.sum(right))
    return Accuracy(model, group_name, n, n_right / n, *wilson(n_right, n))


def _gains(found: Found, results: Results, groups: dict[str, list[int]]) -> list[Gain]:
    """Return every different model against the baseline, on every group."""
    first, seed = found.study.first, found.study.seed
    rows = []
    for each in found.scored:
        if each.same_as != each.name or each.name == first:
            continue
        for name, places in groups.items():
            if name == POOLED or places != groups[POOLED]:  # one set alone is the pool itself
                one = compare(results.take(places), first, each.name, seed=seed)
                rows.append(Gain(each.name, name, *one, p_holm=one.p_value))
    corrected = holm([row.p_value for row in rows])
    return [row._replace(p_holm=p) for row, p in zip(rows, corrected, strict=True)]


def _tried(make: Any, notes: list[str]) -> Any:
    """Return what can be made; note why, where the study is too small for it."""
    try:
        return make()
    except UsageError as err:
        notes.append(str(err))
        return None
