"""How far apart the elements of a picture are, and how strictly they repeat.

Two answers to two questions. A *period* is a peak of the power spectrum: the distance of
rows, and a hexagonal lattice of constant a has rows 0.87 a apart. A *repeat* is the
shortest shift that brings the picture back onto itself, found in the autocorrelation: a.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.luma import FLAT_RANGE, Luma
from orbweave.records import Symmetry

__all__ = ["Rays", "Repeat", "Spectrum", "rays_of", "repeat_of", "spectrum_of", "symmetry"]

MIN_SIDE_PX = 16
"""Smaller pictures have too few pixels for a period."""
MIN_CYCLES = 3
"""Fewer repeats across the shorter side are no period but a gradient or a single shape."""
MIN_PERIOD_PX = 2.5
"""Shorter periods cannot be told from pixel noise."""
MIN_PEAK_RATIO = 2.0
"""How far a ring of the spectrum must stand above its neighbourhood."""
MIN_PEAK_SIGMA = 4.5
"""And above the scatter that noise alone has in a ring of as many samples."""
SAMPLES_PER_NOISE = 4.5
"""Samples of a ring that say the same: the Hann window ties 2.25, mirroring doubles it."""
MAX_PERIODS = 3
MIN_POWER = 1e-6
"""Rings with less of the strongest wave's power hold what leaks from it."""
SECTOR_DEG = 15.0
"""Half the opening of the sector of the spectrum that counts as one direction."""


class Spectrum(NamedTuple):
    """Power of a picture's waves."""

    power: Luma
    """Shape (H, W)."""
    fx: Luma
    """Cycles per pixel to the right, shape (1, W)."""
    fy: Luma
    """Cycles per pixel upwards, shape (H, 1)."""

    def periods(self, across_deg: float | None = None) -> tuple[float, ...]:
        """Return up to three periods in pixels, the strongest first; () if there are none.

        Power is averaged over rings one cycle per (shorter) side wide. A ring's background is
        the larger of the medians over the octaves below and above it, so that a falling
        spectrum has no peak. The rings with most energy above their background win, if they
        pass the `MIN_PEAK_...` thresholds. A period is one over the power-weighted mean
        frequency of its ring and the ring's neighbours.

        Chosen by us and tried on noise (white, blurred, 1/f: a period in 1 of 100), gratings
        (within 2 %) and the project's own motifs.

        Args:
            across_deg: Only waves that run in this direction, within `SECTOR_DEG`.
        """
        ring, n, mean, background = self._rings(across_deg)
        noise = MIN_PEAK_SIGMA * np.sqrt(SAMPLES_PER_NOISE / n)  # relative: power is exponential
        is_peak = mean >= background * np.maximum(MIN_PEAK_RATIO, 1 + noise)
        is_peak &= (np.arange(len(n)) >= MIN_CYCLES) & (mean > MIN_POWER * self.power.max())
        excess = np.where(is_peak, (mean - background) * n, 0.0)
        found: list[float] = []
        while len(found) < MAX_PERIODS and excess.any():
            k = _fundamental(excess, int(np.argmax(excess)))
            chosen = np.abs(ring - k) <= 1
            down, right = np.nonzero(chosen)
            f = np.hypot(self.fx[0, right], self.fy[down, 0])
            weight = np.clip(self.power[chosen] - background[k], 0, None)
            found.append(round(float(weight.sum() / (weight * f).sum()), 6))
            # What lies within a quarter of an octave is the same peak.
            excess[int(k / 1.19) : int(np.ceil(k * 1.19)) + 1] = 0
        return tuple(found)

    def rms_at(self, period_px: float) -> float:
        """Return the root mean square brightness of the waves of one period.

        What stands above the background in its ring and in the two beside it.
        """
        _, n, mean, background = self._rings()
        k = round(min(self.power.shape) / period_px)
        excess = np.clip((mean - background) * n, 0, None)[k - 1 : k + 2].sum()
        windows = (_hann(side) for side in self.power.shape)
        squares = self.power.size * math.prod(float((w**2).sum()) for w in windows)
        return math.sqrt(float(excess) / squares)

    def _rings(
        self, across_deg: float | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], Luma, Luma]:
        """Return the rings, and of each ring its samples, their mean power and its background.

        The rings are (H, W), -2 for samples in none.
        """
        side = min(self.power.shape)
        place = np.hypot(self.fx, self.fy)
        place *= side
        ring = np.rint(place, out=place).astype(np.int32)
        del place  # half a gigabyte of a large scan
        n_rings = int(side / MIN_PERIOD_PX) + 1
        inside = ring < n_rings
        if across_deg is not None:
            off = np.degrees(np.arctan2(self.fy, self.fx)) - across_deg
            inside &= np.abs((off + 90) % 180 - 90) <= SECTOR_DEG
        n = np.maximum(np.bincount(ring[inside], minlength=n_rings), 1)
        mean = np.bincount(ring[inside], weights=self.power[inside], minlength=n_rings) / n
        ring[~inside] = -2  # beside no ring
        return ring, n, mean, _background(mean)


def _fundamental(excess: Luma, k: int) -> int:
    """Return the ring of which ring `k` is the second harmonic; `k` itself if there is none.

    The window spreads a wave over three rings, so three together are compared.
    """
    together = np.convolve(excess, np.ones(3), "same") * (excess > 0)
    first = (k - 1) // 2
    half = first + int(np.argmax(together[first : k // 2 + 2]))
    return half if together[half] > together[k] else k


def spectrum_of(luma: Luma) -> Spectrum | None:
    """Return the power spectrum, mean removed, under a Hann window.

    None if the picture is constant or smaller than `MIN_SIDE_PX`.
    """
    from scipy.fft import fft2

    if min(luma.shape) < MIN_SIDE_PX or np.ptp(luma) <= FLAT_RANGE:
        return None
    h, w = luma.shape
    power = np.abs(fft2(_windowed(luma))) ** 2
    fx, fy = np.meshgrid(np.fft.fftfreq(w), -np.fft.fftfreq(h), sparse=True)
    return Spectrum(power, fx, fy)


def _windowed(luma: Luma) -> Luma:
    """A picture without its mean, under a Hann window; the window itself is not kept."""
    h, w = luma.shape
    window = np.outer(_hann(h), _hann(w))
    centred: Luma = luma - (luma * window).sum() / window.sum()
    centred *= window
    return centred


def _hann(n: int) -> Luma:
    window: Luma = np.hanning(n + 2)[1:-1]
    return window


def _background(mean: Luma) -> Luma:
    """What a ring's power would be without a peak there, from both sides of it."""
    n = len(mean)
    background = mean.copy()
    for k in range(MIN_CYCLES, n):
        below = mean[max(2, k // 2) : max(k - 1, 3)]
        above = mean[min(k + 2, n - 1) : 2 * k + 1]
        background[k] = max(np.median(below), np.median(above))
    return background


class Rays(NamedTuple):
    """The autocorrelation of a picture along rays from its middle."""

    value: NDArray[np.float64]
    """Shape (n_rays, n_steps); 1 at the middle. Rays go evenly from 0 to 180 degrees."""
    step_px: float


RAY_DEG = 1.0
RAY_STEP_PX = 0.5


def rays_of(luma: Luma) -> Rays | None:
    """Return the autocorrelation along rays out to half the shorter side; None if too small."""
    from scipy.ndimage import map_coordinates

    if min(luma.shape) < MIN_SIDE_PX or np.ptp(luma) <= FLAT_RANGE:
        return None
    correlation = _autocorrelation(luma)
    reach = min(luma.shape) // 2 - 1
    r = np.arange(0, reach, RAY_STEP_PX)
    a = np.deg2rad(np.arange(0, 180, RAY_DEG))[:, None]
    middle = [n // 2 for n in correlation.shape]
    at = [middle[0] - r * np.sin(a), middle[1] + r * np.cos(a)]
    return Rays(map_coordinates(correlation, at, order=1), RAY_STEP_PX)


def _autocorrelation(luma: Luma) -> Luma:
    """Correlation of a picture with itself moved, over what overlaps, in [-1, 1]; 0 in the middle.

    Shape about (H, W): shifts of up to half the picture each way.
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    h, w = luma.shape
    shape = (next_fast_len(h + h // 2, real=True), next_fast_len(w + w // 2, real=True))
    there = rfft2(np.ones_like(luma), shape)
    f, f2 = rfft2(luma - luma.mean(), shape), rfft2((luma - luma.mean()) ** 2, shape)

    def together(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> Luma:
        moved = np.fft.fftshift(irfft2(np.conj(a) * b, shape))
        top, left = (shape[0] // 2 - h // 2, shape[1] // 2 - w // 2)
        near: Luma = moved[top : top + 2 * (h // 2) + 1, left : left + 2 * (w // 2) + 1]
        return near

    n = together(there, there)
    here, moved = together(there, f) / n, together(f, there) / n
    spread = together(there, f2) / n - here**2
    spread_moved = together(f2, there) / n - moved**2
    floor = 1e-9 * float(np.var(luma))
    scale = np.sqrt(np.maximum(spread, floor) * np.maximum(spread_moved, floor))
    covariance: Luma = together(f, f) / n - here * moved
    likeness: Luma = np.clip(covariance / scale, -1.0, 1.0)
    return likeness


class Repeat(NamedTuple):
    """The shortest shift that brings a picture back onto itself."""

    px: float | None
    deg: float | None
    """Direction of the shift, [0, 180)."""
    periodicity: float
    """Autocorrelation there, in [0, 1]."""


MIN_PERIODICITY = 0.12
"""Lower peaks are none whatever the noise."""
SURE_PERIODICITY = 0.4
"""Higher peaks are some, even if one large shape, such as a disc, makes chance look great."""
MIN_SIGMA = 4.5
"""How many standard deviations of chance a peak must reach; its highest of 1,000 has 3.3."""
NEARLY = 0.85
"""A peak this high, as a share of the highest, is as good a repeat; the shortest is taken."""


def repeat_of(rays: Rays) -> Repeat:
    """Return the shortest shift whose autocorrelation is about as high as the highest.

    A peak counts if it stands behind a valley on its ray: along straight lines, where a
    picture is its own copy at any shift, there is no valley and so no repeat.
    """
    peaks = np.array([(h, r, k) for k, ray in enumerate(rays.value) for h, r in _peaks(ray)])
    top = float(peaks[:, 0].max()) if len(peaks) else 0.0
    if top < np.clip(MIN_SIGMA * _chance(rays), MIN_PERIODICITY, SURE_PERIODICITY):
        return Repeat(None, None, round(max(top, 0.0), 6))
    good = peaks[peaks[:, 0] >= NEARLY * top]
    _, r, k = good[good[:, 1].argmin()]
    # Neighbouring rays pass the same peak at its flank: take the one through its summit.
    turn = np.abs((good[:, 2] - k + 90) % 180 - 90)
    same = good[(turn <= 12) & (good[:, 1] <= 1.1 * r)]
    h, r, k = same[same[:, 0].argmax()]
    return Repeat(
        round(float(r) * rays.step_px, 3), float(k) * RAY_DEG, round(min(float(h), 1.0), 6)
    )


def _chance(rays: Rays) -> float:
    """Scatter of the autocorrelation of noise as coarse as the picture, at half overlap.

    Source: Bartlett's formula, variance = sum of squared correlations over the pixels; of a
    noise whose correlation falls to 1/e at r that sum is pi r^2 / 2.
    """
    mean = rays.value.mean(0)
    fallen = np.flatnonzero(mean < np.exp(-1))
    r = (fallen[0] if len(fallen) else len(mean)) * rays.step_px
    side = 2 * len(mean) * rays.step_px
    return float(np.sqrt(np.pi * r * r / 2 / (side * side / 2)))


MIN_RISE = 0.15
"""How far a peak must rise above the valley before it; less is a ripple."""


def _peaks(ray: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Yield (height, place in steps) of the peaks of a ray."""
    rising = np.diff(ray) > 0
    valley = ray[0]
    for k in np.flatnonzero(rising[1:] != rising[:-1]) + 1:
        if not rising[k - 1]:
            valley = min(valley, ray[k])
        elif ray[k] - valley > MIN_RISE:
            left, middle, right = (float(v) for v in ray[k - 1 : k + 2])
            bend = left - 2 * middle + right
            yield middle, float(k) + (0.5 * (left - right) / bend if bend < 0 else 0.0)


def symmetry(luma: Luma, rays: Rays | None) -> Symmetry:
    """Return how like the picture is to its mirrored and turned self.

    Mirrored and half turned: the highest correlation over all cyclic shifts, so the place of
    the axis does not matter. Quarter and sixth turns: correlation of the autocorrelation's
    rays with those 90 or 60 degrees on.
    """
    from scipy.fft import irfft2, rfft2

    if rays is None:
        return Symmetry(
            mirror_left_right=0.0,
            mirror_up_down=0.0,
            half_turn=0.0,
            lattice_quarter_turn=0.0,
            lattice_sixth_turn=0.0,
        )
    centred = luma - luma.mean()
    spectrum, norm = rfft2(centred), float((centred**2).sum())

    def best(other: Luma) -> float:
        return round(float(irfft2(np.conj(spectrum) * rfft2(other), luma.shape).max()) / norm, 6)

    # Around the middle every picture is like itself: leave out what falls from there.
    outer = rays.value[:, int(rays.value.shape[1] * 0.1) :]
    weight = np.sqrt(np.arange(outer.shape[1]) + 1.0)
    outer = (outer - np.average(outer, axis=1, weights=weight**2).mean()) * weight

    def turned(deg: float) -> float:
        other = np.roll(outer, round(deg / RAY_DEG), axis=0)
        return round(float((outer * other).sum() / (outer**2).sum()), 6)

    return Symmetry(
        mirror_left_right=best(centred[:, ::-1]),
        mirror_up_down=best(centred[::-1]),
        half_turn=best(centred[::-1, ::-1]),
        lattice_quarter_turn=turned(90),
        lattice_sixth_turn=turned(60),
    )
