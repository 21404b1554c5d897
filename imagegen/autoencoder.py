"""Train the autoencoder of the embedded image model on procedural micrographs.

    python -m imagegen.autoencoder --out runs/vae --steps 7200

Resumes from the newest checkpoint in `--out`. What is unusual:
- sixteen latent channels: thin threads need more than the usual four;
- the first three latent channels are tied to a thumbnail of the picture;
- two groups per normalisation: with eight, two channels each, every layer forgot the
  absolute colour, and greens came out olive;
- a gradient loss, since thin threads are what the pictures are about;
- the latent mean and deviation per channel are folded into quant_conv and
  post_quant_conv at export, for the pipeline knows only one scaling factor.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from imagegen.device import mixed_precision
from imagegen.loop import fit
from imagegen.samples import picture_stream

ARCHITECTURE = {
    "block_out_channels": (16, 32, 64, 128),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "mid_block_add_attention": False,
    "sample_size": 256,
    "scaling_factor": 1.0,
}
KL_WEIGHT = 1e-5
"""Per latent value against losses per pixel value; chosen by us."""


THUMBNAIL_GAIN = 3.0
"""Latents are about three times as spread as pixels in [-1, 1]."""


def build_autoencoder() -> Any:
    """Return the untrained autoencoder, 2.6 million parameters, 8x downsampling."""
    build: Any = AutoencoderKL  # diffusers has no types
    return build(**ARCHITECTURE)


def reconstruction_loss(x: Tensor, y: Tensor) -> Tensor:
    """L1 and L2 on pixels, L1 on their differences to the right and below, and on opponent colours.

    x, y: (batch, 3, height, width) in [-1, 1].
    """
    error = y - x
    pixel = error.abs().mean()
    edges = (error[..., 1:] - error[..., :-1]).abs().mean()
    edges = edges + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    r, g, b = F.avg_pool2d(error, 4).unbind(1)
    chroma = (r - g).abs().mean() + (b - (r + g) / 2).abs().mean()
    return pixel + error.square().mean() + 0.3 * edges + 1.5 * chroma


def thumbnail_loss(x: Tensor, latent: Tensor) -> Tensor:
    """Squared error between the first three latent channels and the picture at one eighth.

    Left alone, colour collapsed to one warm-cool axis (greens came out olive). It also gives
    a preview of a latent for nothing.
    """
    return F.mse_loss(latent[:, :3].float(), F.avg_pool2d(x, 8) * THUMBNAIL_GAIN)


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(y.clamp(-1, 1), x)))


def train(out: Path, steps: int, batch: int, extent: int, lr: float, seed: int) -> None:
    """Train until `steps` steps in all are done; pictures of `extent` pixels, `batch` a step."""
    torch.manual_seed(seed)
    vae = build_autoencoder().to(memory_format=torch.channels_last)

    def losses(start: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        pictures = picture_stream(seed + start, extent, batch)

        def loss() -> tuple[Tensor, dict[str, float]]:
            x = next(pictures).to(memory_format=torch.channels_last)
            with mixed_precision():
                latent = vae.encode(x).latent_dist
                y = vae.decode(latent.sample()).sample
            mean, var, logvar = latent.mean.float(), latent.var.float(), latent.logvar.float()
            kl = 0.5 * (mean**2 + var - 1 - logvar)
            total = reconstruction_loss(x, y.float()) + KL_WEIGHT * kl.sum(1).mean()
            total = total + 0.5 * thumbnail_loss(x, latent.mean)
            return total, {"psnr": psnr(x, y.detach().float()), "kl": kl.mean().item()}

        return loss

    def rate(step: int) -> float:
        return lr * min(1, (step + 1) / 100) * max(0.02, 1 - (step / steps) ** 2)

    fit(out, vae, losses, rate=rate, steps=steps, ema_decay=0.995, weight_decay=0.01)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/vae"))
    parser.add_argument("--steps", type=int, default=7200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--extent", type=int, default=128, help="crop side in pixels")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(args.out, args.steps, args.batch, args.extent, args.lr, args.seed)


if __name__ == "__main__":
    main()
