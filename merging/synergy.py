"""Whether a merge is more than its parents: differences, intervals, tests, and a plain verdict.

    table = synergies(results, [Merge("m", ("a", "b"), distance=0.02)])
    verdict(table[0])   # "no gain over the better parent can be claimed: +1.2 points, ..."

Pure functions of who got which question right. The paper (arXiv 2409.03444) measures a merge
against the mean of its parents; where one parent is weak that bar is low, since any merge that
only recovers the good one clears it. So both are here: `excess` over the mean, as in the paper,
and `improvement` over the better parent, which the verdict is about. The better parent is the
better one of two noisy numbers, which makes its bar a little too high rather than too low.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orbweave.errors import UsageError, shown
from orbweave.records import Record
from orbweave.statistics import LEVEL, Interval, mcnemar, paired_bootstrap, wilson

__all__ = [
    "Choice",
    "Difference",
    "Merge",
    "Results",
    "Synergy",
    "against_the_mean",
    "caveat",
    "choose",
    "compare",
    "halves",
    "holm",
    "mean_difference",
    "mean_interval",
    "points",
    "synergies",
    "verdict",
]

_RESAMPLES = 10_000
_ALPHA = 1 - LEVEL
_NOTHING = 1e-9
"""A difference of a question's scores below which there is none but rounding."""
_ENOUGH_QUESTIONS = 30
"""Below, a bootstrap's intervals are too narrow to be believed. Chosen by us: for as many questions
on which no answer differs, differences of up to 3 in 30 are still likely (the rule of three)."""
_MIN_QUESTIONS = 4
"""Fewer cannot be split into halves that say anything."""


@dataclass(frozen=True, eq=False)
class Results:
    """Which model got which question right."""

    names: tuple[str, ...]
    """Of the models, each once."""
    questions: tuple[str, ...]
    """Ids, each once."""
    right: NDArray[np.bool_]
    """Shape (models, questions)."""

    def __post_init__(self) -> None:
        for what, ids in (("model", self.names), ("question", self.questions)):
            if len(set(ids)) < len(ids):
                twice = next(name for name in ids if ids.count(name) > 1)
                raise UsageError(f"wanted every {what} once, got {shown(twice)} twice")
        wanted = (len(self.names), len(self.questions))
        if self.right.shape != wanted or self.right.dtype != np.bool_ or 0 in wanted:
            raise UsageError(
                f"wanted right or wrong for {wanted[0]} models on {wanted[1]} questions, at least "
                f"one of each, got {self.right.dtype} of shape {self.right.shape}"
            )

    def row(self, name: str) -> NDArray[np.bool_]:
        """Return what one model got right, shape (questions,).

        Raises:
            UsageError: there is no such model.
        """
        if name not in self.names:
            raise UsageError(
                f"wanted the answers of {shown(name)}, found {', '.join(self.names)}; "
                "evaluate it on the same questions"
            )
        answers: NDArray[np.bool_] = self.right[self.names.index(name)]
        return answers

    def accuracy(self, name: str) -> float:
        """Return the share of right answers, in [0, 1]."""
        return float(self.row(name).mean())

    def take(self, places: Sequence[int]) -> Results:
        """Return the same models on some of the questions, by their places."""
        asked = tuple(self.questions[i] for i in places)
        return Results(self.names, asked, self.right[:, list(places)])


class Merge(NamedTuple):
    """What is known of a merge beside its answers."""

    name: str
    parents: tuple[str, ...]
    """Two or more names."""
    distance: float | None = None
    """Between the parents' weights, in any one unit; None if it was not measured."""
    traits: Mapping[str, float] = {}
    """Numbers to correlate with, e.g. {"sft": 1, "t": 0.4}."""


class Difference(NamedTuple):
    """A second model against a first one on the same questions."""

    gain: float
    """Difference of the accuracies, in [-1, 1]."""
    low: float
    high: float
    """95 % interval: paired bootstrap."""
    only_first: int
    only_second: int
    """Questions that only one of them got right."""
    p_value: float
    """McNemar's exact test."""


class Synergy(Record):
    """One merge against its parents. Accuracies and differences are shares, not percent."""

    name: str
    parents: tuple[str, ...]
    n: int
    """Questions."""
    actual: float
    low: float
    high: float
    """95 % Wilson interval of `actual`."""
    parent_accuracies: tuple[float, ...]
    better: str
    """The better parent; of equals the first."""
    expected: float
    """Mean of the parents: the paper's bar, and a low one."""
    excess: float
    """actual - expected."""
    excess_low: float
    excess_high: float
    """95 % interval: paired bootstrap over questions."""
    excess_p: float
    """Exact sign test of `excess` over questions; not corrected."""
    improvement: float
    """actual - better parent. (The paper's figure of it subtracts the other way round, against
    its own colours; here more is better.)"""
    improvement_low: float
    improvement_high: float
    only_better: int
    only_merge: int
    p_value: float
    """McNemar's exact test against the better parent."""
    p_holm: float
    """The same, corrected for all merges of the table."""
    n_merges: int
    """How many those are."""
    score_gap: float
    """Best minus worst parent's accuracy: what the paper calls diversity. It says nothing of how
    different the weights are (`distance`) or the answers (`disagreement`)."""
    disagreement: float
    """Share of questions that some parents got right and others wrong."""
    distance: float | None = None
    n_new: int
    """Right where every parent is wrong ..."""
    n_lost: int
    """... and wrong where every parent is right; luck gives some of both."""
    traits: dict[str, float] = Field(default_factory=dict)

    @property
    def is_gain(self) -> bool:
        """Whether a gain over the better parent can be claimed: interval and corrected test."""
        return self.improvement_low > 0 and self.p_holm < _ALPHA

    @property
    def is_loss(self) -> bool:
        """Whether it can be claimed that the merge is worse than the better parent."""
        return self.improvement_high < 0 and self.p_holm < _ALPHA


class Choice(NamedTuple):
    """The best of several merges: found on one half of the questions, measured on the other."""

    best: Synergy
    """One of `table`."""
    table: list[Synergy]
    """Every merge on the reporting half, in the order given."""
    chosen_by: dict[str, float]
    """Accuracy on the choosing half, by name; parents included."""
    choosing: list[int]
    reporting: list[int]
    """Places of the questions."""


def compare(results: Results, first: str, second: str, *, seed: int = 0) -> Difference:
    """Return how much better the second model is than the first.

    Args:
        results: Of both.
        first: Its name.
        second: Its name.
        seed: Of the bootstrap.

    Raises:
        UsageError: a model is not there.
    """
    gains = (results.row(second).astype(int) - results.row(first)).tolist()
    bounds = paired_bootstrap([gains], seed=seed)
    lost, won = gains.count(-1), gains.count(1)
    return Difference((won - lost) / len(gains), *bounds, lost, won, mcnemar(lost, won))


def mean_difference(
    results: Results, pairs: Sequence[tuple[str, str]], *, seed: int = 0
) -> tuple[float, Interval]:
    """Return how much better the second of each pair is than the first, averaged over pairs.

    One well-measured number where each pair alone is noisy, for instance SLERP against LERP
    over all t. The interval is over questions: the pairs are taken as they are.

    Raises:
        UsageError: there is no pair, or a model is not there.
    """
    if not pairs:
        raise UsageError("wanted at least one pair of models to compare, got none")
    gains = [results.row(b).astype(float) - results.row(a) for a, b in pairs]
    by_question = np.mean(gains, axis=0)
    return float(by_question.mean()), mean_interval(by_question, seed)


def mean_interval(values: NDArray[np.float64], seed: int) -> Interval:
    """Return the percentile bootstrap interval of the mean of per-question values.

    Args:
        values: Shape (questions,).
        seed: Of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    # Drawing questions with replacement is drawing how often each value came up.
    kinds, counts = np.unique(values.round(12), return_counts=True)
    drawn = rng.multinomial(values.size, counts / values.size, size=_RESAMPLES)
    low, high = np.quantile(drawn @ kinds / values.size, [_ALPHA / 2, 1 - _ALPHA / 2])
    # Where gains and losses cancel, sums of thirds leave 1e-13, which is no gain.
    return Interval(*(round(float(bound), 9) + 0.0 for bound in (low, high)))


def synergies(
    results: Results,
    merges: Sequence[Merge],
    *,
    better: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Synergy]:
    """Return every merge against its parents, in the order given.

    Args:
        results: Answers of all merges and all their parents.
        merges: At least one; tests are corrected (Holm) for as many as there are.
        better: Merge -> its better parent, where that was decided on other questions; else
            it is decided on these.
        seed: Of the bootstrap.

    Raises:
        UsageError: no merge, one without two parents, or a model without answers.
    """
    if not merges:
        raise UsageError("wanted at least one merge to judge, got none")
    rows = [_synergy(results, merge, (better or {}).get(merge.name), seed) for merge in merges]
    corrected = holm([row.p_value for row in rows])
    return [
        row.model_copy(update={"p_holm": p, "n_merges": len(rows)})
        for row, p in zip(rows, corrected, strict=True)
    ]


def choose(
    results: Results, merges: Sequence[Merge], strata: Sequence[object], *, seed: int = 0
) -> Choice:
    """Choose the best merge on one half of the questions and measure all on the other.

    The best of many looks good by luck alone; on questions it was not chosen by, it does not.
    The better parent is decided on the choosing half as well. The tests of the table are
    corrected for all merges in it, so that any row may be read; for the chosen one alone that
    is stricter than need be.

    Args:
        results: Answers of all merges and their parents.
        merges: At least one; of equally good ones the first is chosen.
        strata: One label per question, e.g. its domain; each is split evenly.
        seed: Of the split and of the bootstrap.

    Raises:
        UsageError: too few questions, no merge, or a model without answers.
    """
    choosing, reporting = halves(strata, seed)
    seen = results.take(choosing)
    chosen_by = {name: seen.accuracy(name) for name in results.names}
    better = {m.name: max(m.parents, key=lambda parent: seen.accuracy(parent)) for m in merges}
    table = synergies(results.take(reporting), merges, better=better, seed=seed)
    best = max(table, key=lambda row: chosen_by[row.name])
    return Choice(best, table, chosen_by, choosing, reporting)


def halves(strata: Sequence[object], seed: int) -> tuple[list[int], list[int]]:
    """Split questions at random into two halves that hold equally much of every stratum.

    Args:
        strata: One label per question.
        seed: The same seed gives the same halves.

    Returns:
        Places of the two halves, ascending; sizes differ by one at most, also in a stratum.

    Raises:
        UsageError: there are fewer than four questions.
    """
    if len(strata) < _MIN_QUESTIONS:
        raise UsageError(
            f"wanted at least {_MIN_QUESTIONS} questions to choose on one half and report on the "
            f"other, got {len(strata)}; give a larger benchmark"
        )
    rng = np.random.default_rng(seed)
    groups: dict[object, list[int]] = {}
    for place, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(place)
    # One after the other and then every second: odd groups take turns with the larger part.
    mixed = [int(place) for group in groups.values() for place in rng.permutation(group)]
    return sorted(mixed[::2]), sorted(mixed[1::2])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for testing all of them at once.

    Source: Holm, Scand. J. Stat. 6 (1979) 65, as adjusted p-values.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def verdict(row: Synergy) -> str:
    """Return in words whether the merge is better than its better parent."""
    if row.is_gain:
        claim = "a gain over the better parent can be claimed"
    elif row.is_loss:
        claim = "worse than the better parent"
    else:
        claim = "no gain over the better parent can be claimed"
    found = _with_interval(row.improvement, row.improvement_low, row.improvement_high)
    test = f"McNemar p = {row.p_value:.2g}"
    if row.n_merges > 1:
        test += f", {row.p_holm:.2g} after Holm over {row.n_merges} merges"
    return f"{claim}: {found} ({test})"


def against_the_mean(row: Synergy) -> str:
    """Return in words how the merge stands against the mean of its parents.

    A claim needs interval and sign test: of a handful of questions the interval alone is too
    narrow, of two that are both won it has no width.
    """
    if row.excess_low > 0 and row.excess_p < _ALPHA:
        claim = "above the mean of the parents"
    elif row.excess_high < 0 and row.excess_p < _ALPHA:
        claim = "below the mean of the parents"
    else:
        claim = "not to be told from the mean of the parents"
    found = _with_interval(row.excess, row.excess_low, row.excess_high)
    if claim.startswith("above") and not row.is_gain:
        claim += ", a low bar"
    return f"{claim}: {found}"


def caveat(n: int) -> str | None:
    """Return why intervals over `n` questions cannot be trusted, None where they can."""
    if n >= _ENOUGH_QUESTIONS:
        return None
    return (
        f"intervals of {n} questions cannot be trusted: with fewer than {_ENOUGH_QUESTIONS} they "
        "come out too narrow, and where no answer differs there is none; a difference of "
        f"{min(100, 300 / n):.0f} points could still hide there, so ask more questions"
    )


def points(share: float) -> str:
    """Return a difference of accuracies in percentage points, signed: `+1.2`."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0 takes the sign off a zero


def _with_interval(value: float, low: float, high: float) -> str:
    if low == high:  # drawn anew, answers that are all alike stay so
        return f"{points(value)} points, no interval: every question went alike"
    return f"{points(value)} points, 95 % {points(low)} to {points(high)}"


def _synergy(results: Results, merge: Merge, better: str | None, seed: int) -> Synergy:
    if len(set(merge.parents)) < 2:
        raise UsageError(
            f"wanted two different parents of {shown(merge.name)}, "
            f"got {', '.join(merge.parents) or 'none'}"
        )
    merged = results.row(merge.name)
    parents = np.stack([results.row(parent) for parent in merge.parents])  # (parents, questions)
    accuracies = parents.mean(axis=1)
    if better is None:
        better = merge.parents[int(accuracies.argmax())]
    found = compare(results, better, merge.name, seed=seed)
    excess = merged - parents.mean(axis=0)
    excess_bounds = mean_interval(excess, seed)
    bounds = wilson(int(merged.sum()), merged.size)
    every, some = parents.all(axis=0), parents.any(axis=0)
    return Synergy(
        name=merge.name,
        parents=merge.parents,
        n=merged.size,
        actual=float(merged.mean()),
        low=bounds.low,
        high=bounds.high,
        parent_accuracies=tuple(accuracies.tolist()),
        better=better,
        expected=float(accuracies.mean()),
        excess=float(excess.mean()),
        excess_low=excess_bounds.low,
        excess_high=excess_bounds.high,
        excess_p=mcnemar(int((excess < -_NOTHING).sum()), int((excess > _NOTHING).sum())),
        improvement=found.gain,
        improvement_low=found.low,
        improvement_high=found.high,
        only_better=found.only_first,
        only_merge=found.only_second,
        p_value=found.p_value,
        p_holm=found.p_value,
        n_merges=1,
        score_gap=float(np.ptp(accuracies)),
        disagreement=float((some & ~every).mean()),
        distance=merge.distance,
        n_new=int((merged & ~some).sum()),
        n_lost=int((~merged & every).sum()),
        traits=dict(merge.traits),
    )
