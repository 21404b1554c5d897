"""The numbers of a study: accuracies, gains over the baseline, and merges against their parents.

    analysis = analyse(found, "loglik")
    analysis.accuracies, analysis.gains, analysis.synergies, ...

Every interval is of 95 %. P-values are corrected (Holm) over all comparisons of their family, so
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
    mean_interval,
    synergies,
)
from merging.synergy_patterns import Correlations, Groups, group, merge_correlations
from orbweave.errors import UsageError
from orbweave.statistics import LEVEL, Interval, mean_of_sets, mean_of_sets_interval, wilson
from training.benchmark import GENERAL
from training.evaluation import MEAN, POOLED, Scoring
from ui.study_run import Found

__all__ = ["ALL", "Accuracy", "Analysis", "Change", "Gain", "Kind", "analyse", "judged"]

ALL = "all"
"""What the last of `Analysis.kinds` is called."""


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
    """... corrected for all comparisons of its family ..."""
    n_family: int
    """... which are so many: models as they are or merges, pooled or set by set."""

    @property
    def claim(self) -> int:
        """1 if better than the baseline can be claimed, -1 if worse, else 0."""
        if self.p_holm >= 1 - LEVEL:
            return 0
        return int(self.low > 0) - int(self.high < 0)


class Change(NamedTuple):
    """A mean difference of accuracies, in [-1, 1], with its bootstrap interval over questions."""

    mean: float
    low: float
    high: float


class Kind(NamedTuple):
    """Merges made in one way, or all there are."""

    name: str
    """`slerp paper`, `lerp t=0.5` ..., or `all`."""
    n: int
    """Merges asked for; where SLERP is the LERP, the one model counts for both."""
    accuracy: float
    """Mean."""
    excess: Change
    """Over the mean of the parents, averaged over merges."""
    improvement: Change
    """Over the better parent."""
    n_gains: int
    """Merges that can be claimed to be better than their better parent ..."""
    n_losses: int
    """... or worse."""


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
    kinds: list[Kind]
    """One for each way to merge; the last is of all of them. Empty without merges."""
    controls: dict[str, Difference]
    """SLERP -> its gain over LERP at the same place."""
    arc: tuple[float, Interval] | None
    """Mean of these gains; None where there is none."""
    choice: Choice | None
    """The best merge, chosen on one half of the questions and measured on the other."""
    chance: float
    """Share of the judged questions that guessing gets right."""
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
        groups=(POOLED, *([MEAN] if _has_mean(sets) else []), *sets),
        accuracies=_accuracies(results, sets, judged_places),
        gains=_gains(found, results, {POOLED: judged_places, **sets}),
        judged=on_judged,
        synergies=rows,
        kinds=_kinds(found, on_judged, rows) if rows else [],
        controls={b: compare(on_judged, a, b, seed=seed) for a, b in found.controls},
        arc=mean_difference(on_judged, found.controls, seed=seed) if found.controls else None,
        choice=_tried(lambda: choose(on_judged, found.merges, strata, seed=seed), notes)
        if rows
        else None,
        chance=float(np.mean([1 / found.options[i] for i in judged_places])),
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


def _has_mean(sets: dict[str, list[int]]) -> bool:
    """Return whether the mean of the sets is another number than the share of all questions."""
    return len({len(places) for places in _counted(sets).values()}) > 1


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
        if _has_mean(sets):
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
                rows.append(Gain(each.name, name, *one, p_holm=one.p_value, n_family=1))
    # That many merges were tried too must not hide what training did.
    families: dict[tuple[bool, bool], list[int]] = {}
    for place, row in enumerate(rows):
        family = (found.study.is_merge(row.model), row.group == POOLED)
        families.setdefault(family, []).append(place)
    for places in families.values():
        corrected = holm([rows[place].p_value for place in places])
        for place, p in zip(places, corrected, strict=True):
            rows[place] = rows[place]._replace(p_holm=p, n_family=len(places))
    return rows


def _kinds(found: Found, results: Results, rows: Sequence[Synergy]) -> list[Kind]:
    """Return the merges by the way they were made, and all of them."""
    by_name = {row.name: row for row in rows}
    ways: dict[str, list[Synergy]] = {}
    for each in found.scored:
        if each.pair and each.same_as in by_name:  # t = 0 is a parent
            way = each.name.removeprefix(f"{each.pair} ")
            ways.setdefault(way, []).append(by_name[each.same_as])
    if elsewhere := [row for row in rows if row.name in found.study.models]:
        ways["merged elsewhere"] = elsewhere
    ways[ALL] = [row for own in ways.values() for row in own]
    return [_kind(name, results, own, found.study.seed) for name, own in ways.items()]


def _kind(name: str, results: Results, rows: Sequence[Synergy], seed: int) -> Kind:
    over_parents = np.mean([_gain_by_question(results, row.parents, row.name) for row in rows], 0)
    over_better = np.mean([_gain_by_question(results, [row.better], row.name) for row in rows], 0)
    return Kind(
        name,
        len(rows),
        float(np.mean([row.actual for row in rows])),
        Change(float(over_parents.mean()), *mean_interval(over_parents, seed)),
        Change(float(over_better.mean()), *mean_interval(over_better, seed)),
        sum(row.is_gain for row in rows),
        sum(row.is_loss for row in rows),
    )


def _gain_by_question(results: Results, parents: Sequence[str], name: str) -> Any:
    """Return what a model gains over the mean of others, shape (questions,)."""
    return results.row(name) - np.mean([results.row(parent) for parent in parents], axis=0)


def _tried(make: Any, notes: list[str]) -> Any:
    """Return what can be made; note why, where the study is too small for it."""
    try:
        return make()
    except UsageError as err:
        notes.append(str(err))
        return None
