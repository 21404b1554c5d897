"""The same picture on fewer, larger pixels."""

from __future__ import annotations

import numpy as np

from imagegen.luma import Luma
from imagegen.phases import Mask

__all__ = ["coarser", "coarser_phase"]


def coarser(luma: Luma, side_px: int) -> Luma:
    """Return a picture with its longer side at most `side_px`, by means over areas."""
    h, w = luma.shape
    factor = max(h, w) / side_px
    if factor <= 1:
        return luma
    rows = _area_means(luma, max(round(h / factor), 1))
    return _area_means(rows.T, max(round(w / factor), 1)).T


def coarser_phase(solid: Mask, side_px: int) -> Mask:
    """Return the solid with its longer side at most `side_px`; never finer than given.

    The new pixels whose areas are fullest of solid are solid, as many as keep its fraction.
    """
    from scipy.ndimage import uniform_filter

    if max(solid.shape) <= side_px:
        return solid
    shares = coarser(solid.astype(np.float64), side_px)
    # Of two pixels equally full the one in a fuller neighbourhood comes first.
    rank = (shares + 1e-3 * uniform_filter(shares, 3, mode="wrap")).ravel()
    coarse = np.zeros(rank.size, bool)
    coarse[np.argsort(-rank, kind="stable")[: round(solid.mean() * rank.size)]] = True
    return coarse.reshape(shares.shape)


def _area_means(values: Luma, n: int) -> Luma:
    """Means over n even strips of rows, shape (n, W)."""
    # The running sum, read between the old rows, gives every strip exactly.
    total = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    at = np.linspace(0, len(values), n + 1)
    low = np.minimum(at.astype(int), len(values) - 1)
    sums = total[low] + (at - low)[:, None] * (total[low + 1] - total[low])
    means: Luma = np.diff(sums, axis=0) * (n / len(values))
    return means
