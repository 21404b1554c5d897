"""What a rendering loses of its drawing, put back: fine detail and colours.

Lines thinner than three pixels fade or swell on their way through the autoencoder, whatever the
denoiser does. And a small denoiser shades well but dyes badly: green on cream it draws as lime,
white threads take on the colour of what they cross. But the drawing is known, and so is what the
autoencoder makes of it: where the rendering follows that, it is made to follow the drawing itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imagegen.start import Pixels

__all__ = ["recoloured", "restored"]

Picture = NDArray[np.float32]
"""(H, W, 3), in [0, 1]."""

WINDOW_PX = 13
"""Side of the neighbourhood in which a rendering follows a drawing in one way; chosen by us."""
CONTRAST = 0.05
"""Standard deviation of a channel below which a neighbourhood tells less of this than the whole
picture; likewise."""
DARK = np.float32(0.02)
"""Brightness added to both before colours are scaled from one to the other, so that those of
a nearly black drawing are not taken for more than they are; likewise."""


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
    y, s = _unit(rendered), _unit(drawn)
    whole = y + np.clip(_following(y, seen), -1, 1) * (s - seen)
    return _bytes(whole)


def recoloured(rendered: Pixels, drawn: Pixels) -> Pixels:
    """Return a rendering in the colours of its drawing, each pixel as bright as it was.

    Where it is darker than the drawing its colour is weaker in proportion, as in shade; where it
    is brighter it is the drawing's, with white light added. Nothing changes where the two have
    nothing to do with each other, and little where the drawing is about equally bright all over:
    then its lines do not tell whether they are followed.

    Args:
        rendered: The rendering, (H, W, 3), in light that has no colour of its own.
        drawn: What it started from, of the same shape.
    """
    from imagegen.looks import LUMA  # needs scipy

    y, s = _unit(rendered), _unit(drawn)
    bright_y, bright_s = (y @ LUMA)[..., None], (s @ LUMA)[..., None]
    shade = np.minimum((bright_y + DARK) / (bright_s + DARK), 1)
    dyed = bright_y + shade * (s - bright_s)
    share = np.clip(_following(bright_y, bright_s), 0, 1)
    return _bytes(y + share * (dyed - y))


def _following(y: Picture, seen: Picture) -> Picture:
    """How much a rendering changes with what is seen of its drawing around every pixel.

    Each channel for itself, (H, W, channels): 1 as much, 0 not at all.
    """
    mean_y, mean_seen = _mean(y), _mean(seen)
    covariance = _mean(y * seen) - mean_y * mean_seen
    variance = _mean(seen * seen) - mean_seen**2
    floor = np.float32(CONTRAST**2)
    return _mean((covariance + floor * _overall(y, seen)) / (variance + floor))


def _overall(y: Picture, seen: Picture) -> Picture:
    """The same of the picture as a whole, (channels,)."""
    means = (0, 1)
    covariance = (y * seen).mean(means) - y.mean(means) * seen.mean(means)
    slopes: Picture = covariance / (seen.var(means) + np.float32(CONTRAST**2))
    return slopes


def _unit(pixels: Pixels) -> Picture:
    values: Picture = pixels.astype(np.float32) / np.float32(255)
    return values


def _bytes(picture: Picture) -> Pixels:
    pixels: Pixels = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    return pixels


def _mean(values: Picture) -> Picture:
    """Mean over the neighbourhood of every pixel, each channel for itself."""
    from scipy.ndimage import uniform_filter

    means: Picture = uniform_filter(values, (WINDOW_PX, WINDOW_PX, 1), mode="reflect")
    return means
