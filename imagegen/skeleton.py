"""The middle lines of the solid: where they fork, where they end, how long they are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.phases import Mask
from orbweave.records import Skeleton

__all__ = ["Lines", "lines_of", "skeleton"]

STRAIGHT_STEP, DIAGONAL_STEP = 0.948, 1.343
"""Length of a step to a neighbour: right on average over all directions, 5 % short along rows and
columns. Source: Kulpa, CGIP 6 (1977) 434."""
EIGHT = np.ones((3, 3), bool)
MAX_MARGIN_PX = 64
"""How far struts are drawn out beyond the border before thinning, at most."""


class Lines(NamedTuple):
    """A skeleton taken apart; masks and labels of shape (H, W)."""

    line: Mask
    """One pixel wide."""
    branch: NDArray[np.signedinteger[Any]]
    """Number of the branch point a pixel belongs to, from 1; 0 elsewhere."""
    n_branches: int
    segment: NDArray[np.signedinteger[Any]]
    """Number of the segment a pixel belongs to, from 1; 0 elsewhere."""
    length_px: NDArray[np.float64]
    """Shape (n_segments,), out to the branch points."""
    end: Mask


def lines_of(solid: Mask) -> Lines:
    """Thin the solid to its middle lines and cut them at the branch points.

    Spurs are cut off: lines with a free end, shorter than the solid is thick at their foot.

    Source: Zhang and Suen (1984) in `skimage.morphology.skeletonize`.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.morphology import skeletonize

    if solid.all() or not solid.any():
        return _taken_apart(np.zeros_like(solid))
    depth = distance_transform_edt(solid)
    # At the border of the picture a strut goes on; without that its line would fork to the corners.
    margin = int(np.ceil(min(2 * float(depth.max()), MAX_MARGIN_PX)))
    inner = (slice(margin, -margin), slice(margin, -margin))
    drawn_out = np.pad(solid, margin, mode="edge")
    thin: Mask = skeletonize(drawn_out)[inner]  # type: ignore[no-untyped-call]
    lines = _taken_apart(thin)
    # Where a spur forked, cutting its tips leaves a shorter one.
    while (spurs := _spurs(lines, depth)).any():
        lines = _taken_apart(lines.line & ~spurs[lines.segment])
    return lines


def skeleton(lines: Lines) -> Skeleton:
    """Count and measure the lines of a skeleton."""
    length = lines.length_px
    return Skeleton(
        branch_points=lines.n_branches,
        end_points=int(lines.end.sum()),
        segments=len(length),
        mean_segment_px=round(float(length.mean()), 3) if len(length) else None,
        median_segment_px=round(float(np.median(length)), 3) if len(length) else None,
        total_px=round(float(length.sum()), 3),
    )


def _taken_apart(line: Mask) -> Lines:
    from scipy.ndimage import label

    degree = np.zeros(line.shape, np.int8)
    for one, other, joined, _ in _steps(line):
        degree[one] += joined
        degree[other] += joined
    forks = line & (degree >= 3)
    branch, n_branches = label(forks, structure=EIGHT)
    segment, n = _strung(line, forks)
    inner = np.zeros_like(line)
    inner[1:-1, 1:-1] = True  # a line that leaves the picture does not end
    length = np.zeros(n + 1)
    for one, other, joined, step in _steps(line):
        # Half of each step belongs to the pixel at either end of it.
        for place in (one, other):
            length += step / 2 * np.bincount(segment[place][joined], minlength=n + 1)
    return Lines(line, branch, n_branches, segment, length[1:], line & (degree == 1) & inner)


def _strung(line: Mask, forks: Mask) -> tuple[NDArray[np.int32], int]:
    """Number the pieces of a line between its forks, from 1, and count them.

    Unlike a labelling of neighbours it does not cut the corner at a fork.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    kept = line & ~forks
    n_pixels = int(kept.sum())
    pieces = np.zeros(line.shape, np.int32)
    if not n_pixels:
        return pieces, 0
    number = np.full(line.shape, -1)
    number[kept] = np.arange(n_pixels)
    ends = [(number[one][joined], number[other][joined]) for one, other, joined, _ in _steps(line)]
    a, b = (np.concatenate(side) for side in zip(*ends, strict=True))
    a, b = a[(a >= 0) & (b >= 0)], b[(a >= 0) & (b >= 0)]
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(n_pixels, n_pixels))
    n, piece = connected_components(graph, directed=False)
    pieces[kept] = piece + 1
    return pieces, int(n)


class _Step(NamedTuple):
    """The steps of one kind: slices of their two ends, which of them are on the line, length."""

    one: tuple[slice, slice]
    other: tuple[slice, slice]
    joined: Mask
    px: float


def _steps(line: Mask) -> list[_Step]:
    """The steps along a line one pixel wide; round a corner two straight ones, no diagonal."""
    all_, first, last = slice(None), slice(None, -1), slice(1, None)
    steps = []
    for one, other in (((all_, first), (all_, last)), ((first, all_), (last, all_))):
        steps.append(_Step(one, other, line[one] & line[other], STRAIGHT_STEP))
    falling, rising = ((first, first), (last, last)), ((first, last), (last, first))
    for (one, other), (left, right) in ((falling, rising), (rising, falling)):
        joined = line[one] & line[other] & ~line[left] & ~line[right]
        steps.append(_Step(one, other, joined, DIAGONAL_STEP))
    return steps


def _spurs(lines: Lines, depth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which segments are spurs, by number; the solid is as thick as twice its depth."""
    from scipy.ndimage import maximum_filter

    n = len(lines.length_px)
    spur = np.zeros(n + 1, bool)
    has_end = np.bincount(lines.segment[lines.end], minlength=n + 1) > 0
    # How deep the solid is at the branch points that a segment touches; 0 touches none.
    foot = maximum_filter(np.where(lines.branch > 0, depth, 0), size=3)
    deepest = np.zeros(n + 1)
    np.maximum.at(deepest, lines.segment.ravel(), foot.ravel())
    spur[1:] = has_end[1:] & (deepest[1:] > 0) & (lines.length_px < 2 * deepest[1:])
    return spur
