"""What can be said of a study in sentences, and how its numbers are spelt."""

from __future__ import annotations

from collections.abc import Sequence

from merging.synergy import points, verdict
from training.evaluation import POOLED
from ui.study_run import Found
from ui.study_tables import Accuracy, Analysis, Gain

__all__ = ["arc_in_words", "share", "summary", "with_bounds"]

_LISTED = 6
"""Names told one by one in a sentence; of more only the number."""


def summary(found: Found, analysis: Analysis) -> list[str]:
    """Return what can and what cannot be claimed, as sentences."""
    first = found.study.first
    base = next(a for a in analysis.accuracies if (a.model, a.group) == (first, POOLED))
    told = [f"{first} answers {share(base)} of {base.n} questions right"]
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
        told.append(f"SLERP over LERP: {arc_in_words(analysis)}")
    elif rows:
        told.append(
            "SLERP and LERP are one model wherever both were asked for, so nothing can be said of "
            "the arc"
        )
    return told


def _claims(gains: Sequence[Gain], n_comparisons: int) -> str:
    """Return who is better, who is worse and of whom nothing can be said."""
    parts = []
    for claim, said in ((1, "better"), (-1, "worse"), (0, "no difference can be claimed for")):
        own = [gain for gain in gains if gain.claim == claim]
        if own:
            listed = "; ".join(f"{g.model} {with_bounds(g.gain, g.low, g.high)}" for g in own)
            parts.append(f"{said} {listed if len(own) <= _LISTED else f'{len(own)} of them'}")
    return f"{', '.join(parts)} (points, 95 %; Holm over {n_comparisons})"


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


def with_bounds(value: float, low: float, high: float) -> str:
    """Return a difference with its interval, in percentage points."""
    return f"{points(value)} ({points(low)} to {points(high)})"
