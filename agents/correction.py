"""Where to draw a statistic next, by how every version so far came out.

A rendering measures the more of a thing the more its drawing does, but not one to one: thin
walls swell, wide gaps fill. So the versions are points of a rising line, and what is sought is
where it crosses the target:

    missed   |         o      one version: back by all that it missed
             |      /         two on either side: on the straight line between them
        0  --+----x-------    two on one side: along their line, a bounded step
             |  o      drawn  one that went on and came no nearer: half the way to it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Point", "next_drawn", "vain"]

_REACH = (0.5, 2.0)
"""Steps along a line through versions on one side, in what the nearest one missed. Chosen by us:
two pictures tell its slope only roughly, and a flat one would lead out of every range."""


class Point(NamedTuple):
    """One statistic of one version, drawn and rendered, in a unit in which both add up."""

    drawn: float
    """What its drawing measures."""
    missed: float
    """What its picture measures beyond the target; negative below it."""


def next_drawn(tried: Sequence[Point]) -> float:
    """Return what the next drawing should measure for its picture to meet the target.

    Args:
        tried: Versions that were drawn and rendered alike but for their numbers, in any order;
            at least one.
    """
    best = min(tried, key=_off)
    other = min((p for p in tried if _is_across(p, best)), key=_off, default=None)
    if other is not None:
        if (other.drawn - best.drawn) * (other.missed - best.missed) <= 0:
            return (best.drawn + other.drawn) / 2  # no rising line leads through them
        share = best.missed / (best.missed - other.missed)
        return best.drawn + share * (other.drawn - best.drawn)
    if further := vain(tried):
        nearest = min(further, key=lambda p: abs(p.drawn - best.drawn))
        return (best.drawn + nearest.drawn) / 2
    behind = [p for p in tried if p.drawn != best.drawn and _off(p) > _off(best)]
    if not behind:
        return best.drawn - best.missed
    last = min(behind, key=_off)
    step = (last.drawn - best.drawn) / (last.missed - best.missed)  # per unit of the miss
    return best.drawn - best.missed * min(max(step, _REACH[0]), _REACH[1])


def vain(tried: Sequence[Point]) -> list[Point]:
    """Return the versions that went on from the best one as it asks for and came no nearer."""
    best = min(tried, key=_off)
    return [
        p for p in tried if (p.drawn - best.drawn) * best.missed < 0 and not _is_across(p, best)
    ]


def _is_across(point: Point, best: Point) -> bool:
    return point.missed * best.missed < 0


def _off(point: Point) -> float:
    return abs(point.missed)
