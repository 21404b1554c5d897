"""What the geometry of two models means for merging them, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator

from merging.findings import one_model, some
from merging.geometry import COLLINEAR_DEG, Geometry, Summary

__all__ = ["advice"]

# What is worth a word. All chosen by us, at the edge of what changes a decision.
_MOST = 0.5
"""Share of the weights."""
_UNRELATED_DEG = 45.0
_LONGER = 1.25
"""Ratio of two models' norms."""
_FARTHER = 3.0
"""Ratio of two task vectors' norms."""
_STRANGE = 1.0
"""Ratio of a task vector's norm to the model's. A child stays within some hundredths of its base;
of a model trained apart, whose weights lie crosswise, the ratio is above 1 whatever its length."""
_CROSSWISE, _ALIKE = 0.1, 0.9
"""|cosine| of task vectors below which they have nothing to do with each other, above which
they are the same thing."""
_CLEAR = 0.3
"""|cosine| in one place that is no accident."""
_BF16_STEP = 2.0**-8
"""Smallest distance of neighbouring bfloat16 numbers, relative to them."""


def advice(geometry: Geometry) -> list[str]:
    """Return what a person should know before merging these models, one sentence or two each."""
    a, b = geometry.parents[0], geometry.parents[-1]
    if set(geometry.total.shares) == {"identical"} and not geometry.unmatched:
        return [one_model((a, b)).text]
    return [
        *geometry.unlike,
        *_on_tensors(geometry),
        *_on_angles(geometry),
        *_on_norms(geometry, a, b),
        *_on_task_vectors(geometry, a, b),
    ]


def _on_tensors(geometry: Geometry) -> Iterator[str]:
    if geometry.unmatched:
        yield (
            f"left out, not in every model or of different shapes: {some(geometry.unmatched)}; "
            "a merge copies those of its base, and only with --partial"
        )


def _on_angles(geometry: Geometry) -> Iterator[str]:
    median, share = geometry.total.median_angle_deg, geometry.linear_share
    if median is None:
        return
    if share >= _MOST:
        # The two sums differ most near t = 1/2, in all by less than angle^2 / 6.
        gap = math.radians(COLLINEAR_DEG) ** 2 / 6
        remedy = (
            f"turn the task vectors instead (merge_method nuslerp with base_model {geometry.base})"
            if geometry.base and not _strangers(geometry)
            else "compare task vectors instead (--base MODEL), or merge adapters"
        )
        yield (
            f"{_percent(share)} of the weights lie so close (median angle {median:.2g}°) that "
            f"SLERP is a straight line there; an arc would differ from it by {100 * gap:.2f} % at "
            f"most, far less than one bfloat16 step ({100 * _BF16_STEP:.1f} %): {remedy}"
        )
    if median > _UNRELATED_DEG:
        yield (
            f"the models have little in common (median angle {median:.0f}°), as if trained apart "
            "from the start: a merge of such models seldom works; merge children of one base"
        )


def _on_norms(geometry: Geometry, a: str, b: str) -> Iterator[str]:
    ratio = geometry.total.norm_ratio
    if ratio and max(ratio, 1 / ratio) > _LONGER:
        longer, shorter = (b, a) if ratio > 1 else (a, b)
        yield (
            f"the weights of {longer} are {max(ratio, 1 / ratio):.2f} times as long as those of "
            f"{shorter} and outweigh them at equal shares: the parameter form: paper weighs "
            "directions alone"
        )


def _on_task_vectors(geometry: Geometry, a: str, b: str) -> Iterator[str]:
    total = geometry.total
    x, y, cos = total.task_norm_a, total.task_norm_b, total.task_cosine
    if x is None or y is None:
        return
    if cos is None:
        same = a if not x else b
        yield (
            f"{same} does not differ from the base {geometry.base}: there is only one task vector, "
            "and t says how much of it"
        )
        return
    if max(x / y, y / x) > _FARTHER:
        farther, nearer = (a, b) if x > y else (b, a)
        yield (
            f"{farther} went {max(x / y, y / x):.1f} times as far from the base as {nearer}: at "
            f"equal shares the merge is mostly {farther}; move t towards {nearer}"
        )
    if strange := _strangers(geometry):
        yield (
            f"{geometry.base} looks like no ancestor of {' and '.join(strange)}: most weights lie "
            "farther from it than from zero, so these are no task vectors and their cosine "
            f"({cos:+.3f}) says nothing of what was learnt; give the model both were trained from"
        )
        return
    yield _mixed(geometry) or f"{_meaning(cos)} (cosine of the task vectors {cos:+.3f})"


def _strangers(geometry: Geometry) -> list[str]:
    """Return the models most of whose weights lie as far from the base as from nothing at all."""
    rows = [row for row in geometry.tensors if row.task_norm_a is not None]
    half = sum(row.numel for row in rows) / 2
    far_a = sum(r.numel for r in rows if (r.task_norm_a or 0.0) > _STRANGE * r.norm_a)
    far_b = sum(r.numel for r in rows if (r.task_norm_b or 0.0) > _STRANGE * (r.norm_b or 0.0))
    names = (geometry.parents[0], geometry.parents[-1])
    return [name for name, far in zip(names, (far_a, far_b), strict=True) if far > half]


def _mixed(geometry: Geometry) -> str | None:
    """Return what to do where the task vectors agree in some places and oppose in others."""
    known = [(s.task_cosine, s) for s in geometry.by_layer if s.task_cosine is not None]
    if not known:  # nowhere did both change
        return None
    (low, worst), (high, best) = (f(known, key=lambda item: item[0]) for f in (min, max))
    if high < _CLEAR or low > -_CLEAR:
        return None
    return (
        f"what the two learnt agrees in places (cosine of the task vectors {high:+.2f} in "
        f"{_place(best)}) and is opposed in others ({low:+.2f} in {_place(worst)}): give t by "
        "depth and kind, as in the table"
    )


def _place(summary: Summary) -> str:
    where = "" if summary.layer is None else f" of layer {summary.layer}"
    return f"{summary.part}{where}"


def _meaning(cos: float) -> str:
    """Return what the angle between two task vectors says.

    Source: Ilharco et al., arXiv:2212.04089 (crosswise ones can be added); Yadav et al.,
    arXiv:2306.01708 (opposed signs); Hu et al., arXiv:2410.12613 (alike ones gain least).
    """
    if abs(cos) < _CROSSWISE:
        return (
            "the two learnt unrelated things that hardly disturb each other: their sum keeps more "
            "of both (merge_method task_arithmetic) than an average, which weakens either"
        )
    if cos < 0:
        return (
            "the two learnt opposite things, which an average cancels: keep t near the better "
            "one, or let signs be settled first (merge_method ties)"
        )
    if cos > _ALIKE:
        return "the two learnt nearly the same: a merge can be little better than either"
    return "the two learnt partly the same: an average keeps what they share"


def _percent(share: float) -> str:
    """Return a share without rounding it up to all."""
    return f"{math.floor(1000 * share) / 10:.3g} %"
