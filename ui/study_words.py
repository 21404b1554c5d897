"""What can be said of a study in sentences, and how its numbers are spelt."""

from __future__ import annotations

from collections.abc import Sequence

from merging.synergy import caveat, points, verdict
from training.benchmark import GENERAL
from training.evaluation import POOLED
from ui.study_run import Found
from ui.study_tables import Accuracy, Analysis, Change, Gain

__all__ = ["arc_in_words", "headline", "in_points", "share", "summary", "with_bounds"]

_LISTED = 6
"""Names told one by one in a sentence; of more only the number."""


def headline(found: Found, analysis: Analysis) -> str:
    """Return the answer in one sentence: whether merging helps, or training where none merges."""
    first, rows = found.study.first, analysis.synergies
    if not rows:
        gains = [g for g in analysis.gains if g.group == POOLED]
        better = [gain.model for gain in gains if gain.claim > 0]
        if not better:
            return f"No model can be claimed to be better than {first}."
        return f"Better than {first}: {_some(better)}."
    all_of_them = analysis.kinds[-1]
    gained = [row.name for row in rows if row.is_gain]
    claim = (
        f"{len(gained)} of {len(rows)} different merges can be claimed to be better than their "
        f"better parent ({_some(gained)})"
        if gained
        else f"None of {len(rows)} different merges can be claimed to be better than its better "
        "parent"
    )
    return (
        f"{claim}; on average a merge gains {in_points(all_of_them.improvement)} points over its "
        f"better parent and {in_points(all_of_them.excess)} over the mean of its parents."
    )


def summary(found: Found, analysis: Analysis) -> list[str]:
    """Return what can and what cannot be claimed, as sentences."""
    first = found.study.first
    base = next(a for a in analysis.accuracies if (a.model, a.group) == (first, POOLED))
    told = [
        f"{first} answers {share(base)} of {base.n} questions right; guessing would get "
        f"{100 * analysis.chance:.1f} %"
    ]
    pooled = [g for g in analysis.gains if g.group == POOLED]
    own = [g for g in pooled if not found.study.is_merge(g.model)]
    merged = [g for g in pooled if found.study.is_merge(g.model)]
    for what, gains in (("models as they are", own), ("merges", merged)):
        if gains:
            told.append(f"{what} against {first}: {_claims(gains)}")
    told += [*_against_parents(analysis), *_arc(analysis), *_forgetting(found, analysis)]
    return told


def _against_parents(analysis: Analysis) -> list[str]:
    """Return what the merges are worth beside what they were merged from."""
    rows = analysis.synergies
    if not rows:
        return []
    better, worse = (sum(getattr(r, key) for r in rows) for key in ("is_gain", "is_loss"))
    arms = sorted((row.improvement_high - row.improvement_low) / 2 for row in rows)
    above = sum(r.excess_low > 0 for r in rows)
    below = sum(r.excess_high < 0 for r in rows)
    told = [
        f"of {len(rows)} different merges {better} can be claimed to be better than the better "
        f"parent and {worse} to be worse; for {len(rows) - better - worse} neither can be "
        f"claimed (interval and McNemar's test, Holm over {len(rows)})",
        f"{rows[0].n} questions tell one merge from its better parent to within about "
        f"{100 * arms[len(arms) // 2]:.1f} points: what is smaller stays unseen",
        f"against the mean of their parents, the paper's low bar, the intervals of {above} lie "
        f"above and of {below} below; these are not corrected for there being {len(rows)}",
    ]
    if doubt := caveat(rows[0].n):
        told.append(doubt)
    if analysis.choice is not None:
        best = analysis.choice.best
        told.append(
            f"best merge on one half of the questions: {best.name}; on the other "
            f"{len(analysis.choice.reporting)}: {verdict(best)}"
        )
    return told


def _arc(analysis: Analysis) -> list[str]:
    """Return what the arc is worth beside the straight line."""
    if analysis.arc is not None:
        return [f"SLERP over LERP: {arc_in_words(analysis)}"]
    if not analysis.synergies:
        return []
    return [
        "SLERP and LERP are one model wherever both were asked for, so nothing can be said of the "
        "arc"
    ]


def _forgetting(found: Found, analysis: Analysis) -> list[str]:
    """Return what the set on no domain says, where it is one of several."""
    gains = [gain for gain in analysis.gains if gain.group == GENERAL]
    if not gains:
        return []
    worse = [gain.model for gain in gains if gain.claim < 0]
    lowest = min(gains, key=lambda gain: gain.gain)
    return [
        f"on the set {GENERAL} "
        + (f"worse than {found.study.first}: {_some(worse)}" if worse else "no loss can be claimed")
        + f"; lowest {lowest.model}, {with_bounds(lowest.gain, lowest.low, lowest.high)} points, "
        f"one of {len(gains)}"
    ]


def _claims(gains: Sequence[Gain]) -> str:
    """Return of one family who is better, who is worse and of whom nothing can be said."""
    parts = []
    for claim, said in ((1, "better:"), (-1, "worse:"), (0, "no difference can be claimed for")):
        own = [gain for gain in gains if gain.claim == claim]
        if own:
            listed = "; ".join(f"{g.model} {with_bounds(g.gain, g.low, g.high)}" for g in own)
            parts.append(f"{said} {listed if len(own) <= _LISTED else f'{len(own)} of them'}")
    return f"{', '.join(parts)} (points, 95 %; Holm over {gains[0].n_family})"


def arc_in_words(one: Analysis) -> str:
    """Return what SLERP does beyond LERP; the study has merges of both."""
    assert one.arc is not None
    mean, bounds = one.arc
    claim = "no difference can be claimed"
    if bounds.low > 0 or bounds.high < 0:
        claim = "SLERP is better" if bounds.low > 0 else "SLERP is worse"
    return (
        f"{claim}: {with_bounds(mean, *bounds)} points at the same t, mean over "
        f"{len(one.controls)} places where they are two models"
    )


def share(row: Accuracy) -> str:
    """Return an accuracy with its interval, in percent."""
    return f"{100 * row.accuracy:.1f} % ({100 * row.low:.1f} to {100 * row.high:.1f})"


def in_points(change: Change) -> str:
    """Return a mean difference with its interval, in percentage points."""
    return with_bounds(change.mean, change.low, change.high)


def with_bounds(value: float, low: float, high: float) -> str:
    """Return a difference with its interval, in percentage points."""
    return f"{points(value)} ({points(low)} to {points(high)})"


def _some(names: Sequence[str]) -> str:
    """Return names as a list, of many only the first."""
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
