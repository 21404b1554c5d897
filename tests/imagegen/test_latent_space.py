"""Between pixels and latents: a preview finds the colours wherever the channels hide them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # torch


class MixingCoder:
    """Stands in for an autoencoder whose latents are five mixtures of shrunken colours."""

    def __init__(self, mixture: Any) -> None:
        import torch

        self.mixture, self.dtype = mixture, torch.float32
        self.config = SimpleNamespace(scaling_factor=0.5, shift_factor=0.25)

    def encode(self, picture: Any) -> Any:
        import torch
        import torch.nn.functional as F

        latents = torch.einsum("kc,nchw->nkhw", self.mixture, F.avg_pool2d(picture, 8)) + 0.1
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=latents))


def test_a_preview_shows_the_colours_that_were_encoded() -> None:
    import torch

    from imagegen.latent_space import Preview, encoded

    mixture = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * 0.4
    pipe = SimpleNamespace(vae=MixingCoder(mixture), _execution_device="cpu")
    colours = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    picture = np.repeat(np.repeat(colours, 8, 0), 8, 1)

    shown = Preview(pipe)(encoded(pipe, picture))
    assert shown.shape == (4, 6, 3)
    assert np.abs(shown.astype(int) - colours).max() <= 2


def test_noise_of_any_size_is_shown_and_not_just_black_and_white() -> None:
    import torch

    from imagegen.latent_space import Preview

    pipe = SimpleNamespace(vae=MixingCoder(torch.eye(5, 3)), _execution_device="cpu")
    noise = torch.randn(1, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    calm, loud = (Preview(pipe)(noise * size) for size in (1.0, 4000.0))
    assert np.abs(calm.astype(int) - loud).mean() < 5
    assert ((loud > 0) & (loud < 255)).mean() > 0.1


def test_a_mask_covers_every_latent_it_touches() -> None:
    import torch

    from imagegen.latent_space import masked

    mask = np.zeros((16, 16), np.float32)
    mask[7, 8] = 1
    assert masked(mask, torch.zeros(1, 4, 2, 2))[0, 0].tolist() == [[0, 1], [0, 0]]


def test_equal_pictures_are_encoded_once_and_others_anew() -> None:
    import torch

    from imagegen.latent_space import encoded, encoded_once

    coder = MixingCoder(torch.eye(5, 3))
    pipe = SimpleNamespace(vae=coder, _execution_device="cpu")
    asked: list[Any] = []
    own = coder.encode
    coder.encode = lambda picture: asked.append(picture) or own(picture)  # type: ignore[func-returns-value]
    black, grey = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 90, np.uint8)
    with encoded_once(pipe):
        first, other, again = (encoded(pipe, pixels) for pixels in (black, grey, black.copy()))
    assert len(asked) == 2
    assert torch.equal(first, again) and not torch.equal(first, other)
    encoded(pipe, black)
    assert len(asked) == 3
