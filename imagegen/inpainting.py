"""Redraw a part of a picture and keep the rest, with any model of any family.

Image-to-image with one change: after every step, what lies outside the mask is set back to the
given picture, noised as much as the next step expects; and the finished picture takes its
pixels there, so that what was to be kept is kept exactly.

Source: Lugmayr et al., RePaint, arXiv:2201.09865, equation 8, without its resampling.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imagegen.latent_space import encoded, masked, packed
from imagegen.start import Pixels, read_picture
from orbweave.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Mask", "Outside", "joined", "read_mask"]

Mask = NDArray[np.float32]
"""(H, W) in [0, 1]: 1 is drawn anew, 0 is kept."""


def read_mask(path: Path, width: int, height: int) -> Mask:
    """Read a mask from a picture file: white is drawn anew, black kept, grey blended.

    Raises:
        UsageError: no picture, or nothing in it is to be drawn anew.
    """
    grey = read_picture(path, width, height).astype(np.float32).mean(axis=-1) / 255
    if grey.max() < 0.5:
        raise UsageError(
            f"wanted a mask with white where the picture is drawn anew, got {path}, "
            "which is dark all over; invert it"
        )
    return np.asarray(grey, dtype=np.float32)


def nothing_to_keep(mask: Path) -> UsageError:
    """Return the error for a mask over nothing but words."""
    return UsageError(
        f"wanted a picture to redraw inside the mask {mask}, got words alone; "
        "give the picture, or a structure"
    )


def joined(drawn: Pixels, kept: Pixels, mask: Mask) -> Pixels:
    """Return the drawn picture where the mask is 1, and the kept one where it is 0."""
    share = mask[..., None]
    mixed = drawn * share + kept * (1 - share)
    return np.asarray(mixed.round(), dtype=np.uint8)


class Outside:
    """The part of a picture that is kept, as latents at any step."""

    def __init__(self, pipe: Any, picture: Pixels, mask: Mask, seed: int) -> None:
        """Encode what is kept.

        Args:
            pipe: An image-to-image pipeline.
            picture: Whose outside is kept, (H, W, 3).
            mask: 1 where it is drawn anew.
            seed: Of the picture; the noise on what is kept has one of its own, beside it.
        """
        import torch

        with torch.inference_mode():
            clean = encoded(pipe, picture)
        # Not the picture's own seed: equal noise inside and outside would mirror each other.
        generator = torch.Generator("cpu").manual_seed((seed + 1) % 2**64)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        self._clean, self._noise = packed(pipe, clean), packed(pipe, noise)
        self._inside = packed(pipe, masked(mask, clean).expand_as(clean))

    def kept(self, pipe: Any, step: int, latents: Tensor) -> Tensor:
        """Return the latents after step `step`, 0 for the first, with the outside set back."""
        times = pipe.scheduler.timesteps
        # Image-to-image takes the last `num_timesteps` of them.
        following = len(times) - int(pipe.num_timesteps) + step + 1
        outside = self._clean.to(latents)
        if following < len(times):
            noise = self._noise.to(latents)
            t = times[following : following + 1]
            if hasattr(pipe.scheduler, "scale_noise"):
                outside = pipe.scheduler.scale_noise(outside, t, noise)
            else:
                outside = pipe.scheduler.add_noise(outside, noise, t)
        inside = self._inside.to(latents)
        return inside * latents + (1 - inside) * outside
