"""How much of each domain's expert goes into the model that writes about a concept.

    weights = weights_of({"silk": 0.62, "leaf": 0.55, "collagen": 0.31}, temperature=0.1, floor=0.4)
    weights   # {"leaf": 0.35, "silk": 0.65}, so the model is steered(leaf=0.35, silk=0.65)

Weights lie on a coarse grid, so that concepts that ask for nearly the same share one built model:
of two experts there are 19 merges, of four 1,150 at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orbweave.errors import UsageError

__all__ = ["GRID", "weights_of"]

GRID = 0.05
"""Weights are whole multiples of it. Chosen by us: two merges a step apart are 0.05 of the arc
between their parents apart, far less than benchmarks of this size can tell."""
_STEPS = round(1 / GRID)


def weights_of(
    scores: Mapping[str, float], *, temperature: float, floor: float
) -> dict[str, float]:
    """Return merge weights from how well a concept's best facts of each domain fit it.

    Weights are proportional to exp(score / temperature), rounded to multiples of `GRID` by
    largest remainders, so that they still sum to 1. A higher score never weighs less than a
    lower one, and raising a score never lowers its weight.

    Args:
        scores: Domain -> retrieval score, finite; cosines in [-1, 1] as the retrieval gives them.
        temperature: Score difference that weighs e times as much, above 0. Small gives all to
            the best domain, large the same to every one.
        floor: Domains with a lower score are left out.

    Returns:
        Domain -> weight in (0, 1], by name, so that the order of the scores does not make
        another model. Domains whose weight rounds to 0 are not in it; empty where no score
        reaches the floor.

    Raises:
        UsageError: a score is not finite, or the temperature not above 0.

    Source: chosen by us; rounding after Hamilton (Balinski and Young, Fair Representation, 1982).
    """
    if not 0 < temperature < math.inf:
        raise UsageError(f"wanted a temperature above 0, got {temperature:g}; 0.1 suits cosines")
    if strange := [name for name, score in scores.items() if not math.isfinite(score)]:
        raise UsageError(f"wanted finite scores, got {scores[strange[0]]} for {strange[0]}")
    kept = {name: scores[name] for name in sorted(scores) if scores[name] >= floor}
    if not kept:
        return {}
    best = max(kept.values())  # taken off first, so that no exponential overflows
    shares = {name: math.exp((score - best) / temperature) for name, score in kept.items()}
    steps = _whole_steps(shares)
    return {name: n / _STEPS for name, n in steps.items() if n}


def _whole_steps(shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers with the sum `_STEPS` in proportion to the shares, as near as can be."""
    total = sum(shares.values())
    # Nine digits: what differs by rounding alone is equal, and then the name decides.
    wanted = {name: round(_STEPS * share / total, 9) for name, share in shares.items()}
    steps = {name: int(quota) for name, quota in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: (steps[name] - wanted[name], -wanted[name]))
    for name in by_remainder[: _STEPS - sum(steps.values())]:
        steps[name] += 1
    return steps
