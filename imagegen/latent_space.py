"""Between pixels and a family's latents: encoding a picture, a mask, a preview.

Transformers such as FLUX keep latents packed, four latent pixels in one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imagegen.start import Pixels

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Preview", "encoded", "encoded_once", "given_back", "masked", "packed", "unpacked"]

PATCH_PX = 16
"""Side of the colour patches from which a preview learns what latents look like."""
N_PATCHES = 12
"""Patches per side: 144 samples at least, for 17 unknowns with the usual 16 channels."""


def encoded(pipe: Any, pixels: Pixels) -> Tensor:
    """Return the latents of a picture (H, W, 3), shape (1, channels, h, w), the mean of them."""
    import torch

    vae = pipe.vae
    dtype = vae.dtype
    # As diffusers does: SDXL's encoder overflows in half precision.
    upcasts = dtype == torch.float16 and bool(getattr(vae.config, "force_upcast", False))
    if upcasts:
        vae.to(dtype=torch.float32)
    picture = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
    # In the order of diffusers' own arithmetic, so that `encoded_once` knows the picture again.
    picture = (picture.float() / 255 * 2 - 1).to(pipe._execution_device, vae.dtype)
    try:
        found = vae.encode(picture)
    finally:
        if upcasts:
            vae.to(dtype=dtype)
    mean: Tensor = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latents
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    latents: Tensor = (mean - shift) * vae.config.scaling_factor
    return latents


@contextmanager
def encoded_once(pipe: Any) -> Iterator[None]:
    """Let a pipeline's autoencoder encode equal pictures once; noise is drawn on them anew."""
    import torch

    vae, known = pipe.vae, list[tuple[Any, Any]]()
    encode, hooked = vae.encode, vae.__dict__.get("encode")

    def remembered(picture: Any, **options: Any) -> Any:
        for before, latents in known:
            if not options and before.dtype == picture.dtype and torch.equal(before, picture):
                return latents
        latents = encode(picture, **options)
        if not options:
            known.append((picture, latents))
        return latents

    vae.encode = remembered
    try:
        yield
    finally:
        del vae.encode
        if hooked is not None:
            vae.encode = hooked


def given_back(pipe: Any, pixels: Pixels) -> NDArray[np.float32]:
    """Return a picture (H, W, 3) as the autoencoder gives it back, in [0, 1]."""
    import torch

    vae = pipe.vae
    with torch.inference_mode():
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        latents = encoded(pipe, pixels) / vae.config.scaling_factor + shift
        back = vae.decode(latents.to(vae.dtype)).sample[0].float().cpu()
    picture: NDArray[np.float32] = (back / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
    return picture


def masked(mask: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    """Return a mask (H, W) in [0, 1] on the grid of latents (1, c, h, w): 1 where any is set."""
    import torch
    import torch.nn.functional as F

    grid = torch.from_numpy(mask.astype(np.float32))[None, None].to(like)
    return F.adaptive_max_pool2d(grid, like.shape[-2:])


def packed(pipe: Any, latents: Tensor) -> Tensor:
    """Return latents (1, c, h, w) as the family's denoiser keeps them."""
    if not hasattr(pipe, "_pack_latents"):
        return latents
    tokens: Tensor = pipe._pack_latents(latents, *latents.shape)
    return tokens


def unpacked(pipe: Any, latents: Tensor, width: int, height: int) -> Tensor:
    """Return the latents of a denoising step as (1, c, h, w); sides of the picture in pixels."""
    if latents.ndim == 4:
        return latents
    grid: Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return grid


class Preview:
    """Thumbnails of unfinished latents, by a linear map that the autoencoder itself shows.

    Colour patches are encoded once, and least squares finds how red, green and blue follow
    from the latent channels. It needs no table per family; where three channels are a thumbnail
    already, as in the embedded model, it finds them.
    """

    def __init__(self, pipe: Any) -> None:
        """Encode the patches; takes as long as encoding a picture of 192 pixels."""
        import torch
        import torch.nn.functional as F

        colours = np.random.default_rng(0).integers(0, 256, (N_PATCHES, N_PATCHES, 3), np.uint8)
        patches = np.repeat(np.repeat(colours, PATCH_PX, 0), PATCH_PX, 1)
        with torch.inference_mode():
            latents = encoded(pipe, patches)[0].float().cpu()
        h = latents.shape[-1]
        wanted = F.adaptive_avg_pool2d(
            torch.from_numpy(patches).permute(2, 0, 1).float()[None] / 255, h
        )[0]
        samples, wanted = latents.flatten(1).double().T, wanted.flatten(1).double().T
        self._middle, self._colour = samples.mean(0), wanted.mean(0)
        # A channel no colour moves must count for nothing: by rounding alone it could count for
        # anything, so directions a thousand times narrower than the widest are left out.
        spread = torch.linalg.pinv(samples - self._middle, rtol=1e-3)
        self._map = spread @ (wanted - self._colour)

    def __call__(self, latents: Tensor) -> Pixels:
        """Return a thumbnail (h, w, 3) of latents (1, c, h, w); noise shows as noise."""
        import torch

        grid = latents[0].float().cpu()
        # Some samplers scale noisy latents up by their sigma, from 14 to thousands.
        grid = grid / max(1.0, float(grid.std()))
        flat = (grid.flatten(1).double().T - self._middle) @ self._map + self._colour
        picture = (flat.clamp(0, 1) * 255).round().to(torch.uint8)
        thumbnail: Pixels = picture.reshape(*grid.shape[1:], 3).numpy()
        return thumbnail
