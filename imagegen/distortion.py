"""Drawings spoilt as a diffusion model would spoil them, so that structure counts and not finish.

Blur, noise, other contrast and saturation, JPEG's blocks, small warps. The colours stay those
that a person would name. The autoencoder's own manner comes from `imagegen.classifier_training`,
which sends some drawings through it.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

__all__ = ["distorted"]

SIGMA_PX = 1.6
"""Widest blur, at a side of 128 pixels."""
ZOOM = (0.85, 1.2)
TILT_DEG = 12.0
WARP = 0.035
"""Largest shift of a point by warping, as a share of the picture."""
CONTRAST = (0.88, 1.12)
SATURATION = (0.88, 1.12)
BRIGHTNESS = 0.03
CAST = 0.02
"""Largest change of a single colour channel, as a share of its value."""
NOISE = 0.06
JPEG_SHARE = 0.25
JPEG_QUALITY = (25, 85)


def distorted(x: Tensor, generator: Generator) -> Tensor:
    """Return pictures (n, 3, side, side) in [0, 1], each turned, warped and spoilt on its own.

    Args:
        x: Pictures in [0, 1]; not changed.
        generator: Decides everything.
    """
    x = _warped(_turned(x, generator), generator)
    x = _blurred(x, generator)
    x = _toned(x, generator)
    x = _noisy(x, generator).clamp(0, 1)
    return _compressed(x, generator)


def _uniform(low: float, high: float, n: int, generator: Generator) -> Tensor:
    """One number per picture, shape (n, 1, 1, 1)."""
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)


def _turned(x: Tensor, generator: Generator) -> Tensor:
    """Mirror and turn by right angles: what a motif is does not depend on them."""
    turns: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda a: a.flip(3),
        lambda a: a.flip(2),
        lambda a: a.transpose(2, 3),
    )
    for turn in turns:
        chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
        x = torch.where(chosen, turn(x), x)
    return x


def _warped(x: Tensor, generator: Generator) -> Tensor:
    """Zoom, tilt and bend; beyond the border the picture is mirrored."""
    n = len(x)
    scale = 1 / _uniform(*ZOOM, n, generator).view(n)
    tilt = torch.deg2rad(_uniform(-TILT_DEG, TILT_DEG, n, generator).view(n))
    c, s = scale * tilt.cos(), scale * tilt.sin()
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([c, -s, zero], 1), torch.stack([s, c, zero], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    # A coarse field of shifts, drawn smooth; coordinates run from -1 to 1.
    coarse = (torch.rand(n, 2, 5, 5, generator=generator) * 2 - 1) * 2 * WARP
    bend = F.interpolate(coarse, x.shape[2:], mode="bicubic", align_corners=True)
    return F.grid_sample(
        x, grid + bend.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False
    )


def _blurred(x: Tensor, generator: Generator) -> Tensor:
    """Blur three quarters of the pictures, in three groups, each by its own width."""
    groups = list(x.chunk(4))
    for i, group in enumerate(groups[1:], 1):
        sigma = float(0.3 + (SIGMA_PX - 0.3) * torch.rand((), generator=generator))
        at = torch.arange(-4, 5)
        kernel = torch.exp(-(at**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(3, 1, 1, 9)
        padded = F.pad(group, (4, 4, 4, 4), mode="reflect")
        rows = F.conv2d(padded, kernel, groups=3)
        groups[i] = F.conv2d(rows, kernel.transpose(2, 3), groups=3)
    return torch.cat(groups)


def _toned(x: Tensor, generator: Generator) -> Tensor:
    n = len(x)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(*SATURATION, n, generator)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * _uniform(*CONTRAST, n, generator)
    cast = 1 + CAST * (2 * torch.rand(n, 3, 1, 1, generator=generator) - 1)
    return x * cast + _uniform(-BRIGHTNESS, BRIGHTNESS, n, generator)


def _noisy(x: Tensor, generator: Generator) -> Tensor:
    """Add noise of single pixels and of blotches eight pixels wide."""
    n, _, height, width = x.shape
    fine = torch.randn(x.shape, generator=generator) * _uniform(0, NOISE, n, generator)
    blotches = torch.randn(n, 3, height // 8, width // 8, generator=generator)
    blotches = blotches * _uniform(0, NOISE / 2, n, generator)
    return x + fine + F.interpolate(blotches, (height, width), mode="bilinear")


def _compressed(x: Tensor, generator: Generator) -> Tensor:
    """Send a share of the pictures through JPEG."""
    x = x.clone()
    low, high = JPEG_QUALITY
    for i in torch.nonzero(torch.rand(len(x), generator=generator) < JPEG_SHARE).flatten():
        quality = int(torch.randint(low, high + 1, (), generator=generator))
        buffer = io.BytesIO()
        pixels = (x[i].permute(1, 2, 0) * 255).to(torch.uint8).numpy()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        read = np.array(Image.open(buffer), dtype=np.float32) / 255
        x[i] = torch.from_numpy(read).permute(2, 0, 1)
    return x
