"""How wide the pores and how thick the struts of a picture are.

Local thickness: the diameter of the largest disc that fits into the phase and covers the
pixel (Hildebrand and Rüegsegger, J. Microscopy 185 (1997) 67). Beyond the border of the
picture the phase is taken to go on.
"""

from __future__ import annotations

import numpy as np

from imagegen.luma import Luma
from imagegen.phases import Mask
from orbweave.records import Sizes

__all__ = ["local_thickness", "sizes"]

HALF_PIXEL = 0.5
"""A strut w pixels wide has its middle w / 2 or (w + 1) / 2 from the nearest void pixel."""
RADIUS_STEP = 0.06
"""Radii are tried in steps of 6 %, and at least half a pixel."""


def local_thickness(phase: Mask) -> Luma:
    """Return the local thickness of a phase in pixels, shape (H, W); 0 outside the phase.

    Right within about half a pixel. Time grows with the pixels and the largest radius: 256 x
    256 pixels take 0.2 s.
    """
    from scipy.ndimage import distance_transform_edt

    thickness = np.zeros(phase.shape)
    if not phase.any():
        return thickness
    if phase.all():
        return np.full(phase.shape, float(min(phase.shape)))
    inside = distance_transform_edt(phase)
    # From large to small: a pixel keeps the largest disc that covers it.
    for r in _radii(float(inside.max())):
        fits = inside >= r
        covered = (thickness == 0) & (distance_transform_edt(~fits) < r)
        thickness[covered & phase] = 2 * r - HALF_PIXEL
    return thickness


def _radii(largest: float) -> list[float]:
    """Radii to try, the largest first, down to one pixel."""
    radii = [largest]
    while radii[-1] > 1:
        radii.append(max(min(radii[-1] * (1 - RADIUS_STEP), radii[-1] - 0.5), 1.0))
    return radii


def sizes(thickness: Luma) -> Sizes | None:
    """Return mean, median and the 10th and 90th percentiles; None where the phase is empty."""
    found = thickness[thickness > 0]
    if not found.size:
        return None
    p10, median, p90 = (round(float(p), 3) for p in np.percentile(found, (10, 50, 90)))
    return Sizes(mean_px=round(float(found.mean()), 3), median_px=median, p10_px=p10, p90_px=p90)
