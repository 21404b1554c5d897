"""Fine detail of a drawing, which the autoencoder loses, put back into its rendering.

Lines thinner than three pixels fade or swell on their way through the autoencoder, whatever the
denoiser does. But the drawing is known, and so is what the autoencoder makes of it: where the
rendering follows that, it is made to follow the drawing itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagegen.start import Pixels

__all__ = ["restored"]

Picture = NDArray[np.float32]
"""(H, W, 3), in [0, 1]."""

WINDOW_PX = 13
"""Side of the neighbourhood in which a rendering follows a drawing in one way; chosen by us."""
CONTRAST = 0.05
"""Standard deviation of a channel below which a neighbourhood tells less of this than the whole
picture; likewise."""


def restored(rendered: Pixels, drawn: Pixels, seen: Picture) -> Pixels:
    """Return a rendering with the detail of its drawing.

    In every neighbourhood the rendering is taken for a linear function of the drawing as the
    autoencoder shows it, and the same function of what is missing there is added: nothing where
    the two have nothing to do with each other. Where a neighbourhood is even, as hatching is
    that the autoencoder wiped out, the whole picture says which function.

    Args:
        rendered: The rendering, (H, W, 3).
        drawn: What it started from, of the same shape.
        seen: `drawn` as the autoencoder gives it back, see `imagegen.latent_space.given_back`.

    Source: the local linear model of He, Sun and Tang, Guided Image Filtering, TPAMI 35 (2013).
    """
    y: Picture = rendered.astype(np.float32) / np.float32(255)
    s: Picture = drawn.astype(np.float32) / np.float32(255)
    mean_y, mean_seen = _mean(y), _mean(seen)
    covariance = _mean(y * seen) - mean_y * mean_seen
    variance = _mean(seen * seen) - mean_seen**2
    floor = np.float32(CONTRAST**2)
    slope = np.clip(_mean((covariance + floor * _overall(y, seen)) / (variance + floor)), -1, 1)
    whole = np.clip(y + slope * (s - seen), 0, 1)
    pixels: Pixels = (whole * 255).round().astype(np.uint8)
    return pixels


def _overall(y: Picture, seen: Picture) -> Picture:
    """How much a rendering as a whole changes with the drawing, each channel for itself."""
    means = (0, 1)
    covariance = (y * seen).mean(means) - y.mean(means) * seen.mean(means)
    slopes: Picture = covariance / (seen.var(means) + np.float32(CONTRAST**2))
    return slopes


def _mean(values: Picture) -> Picture:
    """Mean over the neighbourhood of every pixel, each channel for itself."""
    from scipy.ndimage import uniform_filter

    means: Picture = uniform_filter(values, (WINDOW_PX, WINDOW_PX, 1), mode="reflect")
    return means
