"""Train the UNet of the embedded image model, and the ControlNet beside it, on cached latents.

    python -m imagegen.denoiser --latents runs/latents-128 --out runs/denoiser --steps 9000

Resumes from the newest checkpoint in `--out`. What is unusual:
- UNet and ControlNet learn together: most samples of a batch are given the flat drawing of
  their structure, the rest have only words; some drawings are grey, so that words colour them;
- most steps run on 16 x 16 latents (128-pixel views), a quarter of the cost, and only the
  last on 32 x 32; line widths in pixels are the same in both;
- two captions per sample, encoded once and kept in memory;
- v-prediction with a schedule that ends in pure noise, so that dark pictures stay dark;
- min-SNR weighting (gamma 5), exponential moving average of the weights.

Sources: Salimans & Ho 2202.00512; Lin et al. 2305.08891; Hang et al. 2303.09556; Zhang et
al. 2302.05543.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from imagegen.captions import random_caption
from imagegen.checkpoint import load_average
from imagegen.device import mixed_precision, number_type
from imagegen.latents import LatentCache, Samples
from imagegen.loop import fit
from imagegen.text_encoder import load_text_encoder
from orbweave.records import Structure

log = logging.getLogger(__name__)

MAX_TOKENS = 77
LATENT_CHANNELS = 16
ARCHITECTURE = {
    "sample_size": 32,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": (64, 128, 192),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 384,
    "attention_head_dim": 4,  # diffusers reads this as the number of heads
    "norm_num_groups": 8,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "clip_sample": False,
}
MIN_SNR_GAMMA = 5.0
UNCONDITIONAL_SHARE = 0.12
"""Samples trained without words, for classifier-free guidance."""
DRAWN_SHARE = 0.4
"""Samples of a batch that are given their drawing. The first 2,500 steps had 0.75; once drawings
were followed, words alone were the harder half."""
GREY_SHARE = 0.3
"""Drawings without their colours."""
DRAWING_CHANNELS = (8, 16, 32, 64)
"""Of the ControlNet's layers from a drawing to a latent's size."""
DRAWING_GAIN = 1.2
"""Makes their output about as large as what the noisy latent gives; found by trial."""
CAPTIONS_PER_SAMPLE = 2
"""Few, so that their token states can be kept: encoding was 28 % of a step."""


class TextStates:
    """Token states of MiniLM, as the pipeline computes them: padded, masked, last layer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer, self.encoder = load_text_encoder(folder, getattr(torch, number_type()))
        self._known: dict[str, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> Tensor:
        """Return states of shape (n, MAX_TOKENS, 384); every text is encoded once and kept."""
        new = list({t: None for t in texts if t not in self._known})
        if new:
            tokens = self.tokenizer(
                new, padding="max_length", max_length=MAX_TOKENS, truncation=True,
                return_tensors="pt",
            )  # fmt: skip
            states = self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
            self._known |= zip(new, states, strict=True)
        return torch.stack([self._known[t] for t in texts]).float()


class Denoiser(nn.Module):
    """A UNet of 12 million parameters and a ControlNet of half as many."""

    def __init__(self, unet_from: Path | None = None) -> None:
        """Build both untrained, or with the UNet that an earlier run came to."""
        super().__init__()
        build: Any = UNet2DConditionModel
        beside: Any = ControlNetModel
        self.unet = build(**ARCHITECTURE)
        if unet_from is not None:
            load_average(self.unet, unet_from)
        self.control = beside.from_unet(
            self.unet, conditioning_embedding_out_channels=DRAWING_CHANNELS
        )
        # Zero layers on both ends protect a finished UNet. Here both learn, and a drawing that
        # is heard from the first step saves hundreds.
        embedding = self.control.controlnet_cond_embedding
        for layer in (embedding.conv_in, *embedding.blocks, embedding.conv_out):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data *= DRAWING_GAIN

    def forward(self, noisy: Tensor, t: Tensor, text: Tensor, drawings: Tensor) -> Tensor:
        """Predict the velocity.

        Args:
            noisy: Latents, shape (n, channels, h, w).
            t: Time steps (n,).
            text: Token states (n, tokens, 384).
            drawings: Of the first k samples, shape (k, 3, 8 h, 8 w) in [0, 1].
        """
        k = len(drawings)
        beside: dict[str, Any] = {}
        if k:
            down, middle = self.control(
                noisy[:k], t[:k], text[:k], controlnet_cond=drawings, return_dict=False
            )
            beside["down_block_additional_residuals"] = [_padded(d, len(noisy)) for d in down]
            beside["mid_block_additional_residual"] = _padded(middle, len(noisy))
        v: Tensor = self.unet(noisy, t, text, **beside).sample
        return v


def _padded(x: Tensor, n: int) -> Tensor:
    """Append zeros along the first axis up to `n`."""
    return torch.cat([x, x.new_zeros(n - len(x), *x.shape[1:])])


def denoising_loss(
    model: Any, schedule: Any, x: Tensor, text: Tensor, t: Tensor, drawings: Tensor
) -> Tensor:
    """Weighted squared error of the predicted velocity at time steps t (n,), shape (n,)."""
    noise = torch.randn_like(x)
    noisy = schedule.add_noise(x, noise, t)
    target = schedule.get_velocity(x, noise, t)
    with mixed_precision():
        v = model(noisy, t, text, drawings)
    alpha = schedule.alphas_cumprod[t]
    snr = alpha / (1 - alpha)
    weight = torch.clamp(snr, max=MIN_SNR_GAMMA) / (snr + 1)
    # The floor keeps the steps of nearly pure noise, where layout and colour are decided.
    weight = torch.clamp(weight, min=0.2)
    error: Tensor = (v.float() - target).square().mean((1, 2, 3))
    return weight * error


def train(
    cache: LatentCache,
    words: TextStates,
    out: Path,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    unet_from: Path | None = None,
) -> None:
    """Train until `steps` steps in all are done, `batch` samples of `cache` a step."""
    torch.manual_seed(seed)
    model = Denoiser(unet_from)
    scheduler: Any = DDPMScheduler  # diffusers has no types
    schedule = scheduler(**SCHEDULER)
    n_drawn = round(DRAWN_SHARE * batch)

    def losses(start: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        log.info("denoiser: step %d of %d, %d latents", start, steps, len(cache.structures))
        torch.manual_seed(seed + start)
        batches = cache.batches(batch, seed + start)
        means = {"drawn": 0.0, "words": 0.0}

        def loss() -> tuple[Tensor, dict[str, float]]:
            samples, rng = next(batches)
            text = words([_caption(s, rng) for s in samples.structures])
            drawings = _drawings(samples, n_drawn, rng)
            t = torch.randint(0, 1000, (batch,))
            each = denoising_loss(model, schedule, samples.latents.float(), text, t, drawings)
            for name, part in (("drawn", each[:n_drawn]), ("words", each[n_drawn:])):
                means[name] = 0.98 * means[name] + 0.02 * float(part.detach().mean())
            return each.mean(), means

        return loss

    def rate(step: int) -> float:
        return learning_rate(lr, step, steps)

    fit(out, model, losses, rate=rate, steps=steps, ema_decay=0.998, weight_decay=0.02)


def _drawings(samples: Samples, n: int, rng: np.random.Generator) -> Tensor:
    """Drawings of the first `n` samples, (n, 3, H, W) in [0, 1], some of them grey."""
    drawings = samples.drawings[:n].permute(0, 3, 1, 2).float() / 255
    grey = torch.from_numpy(rng.uniform(size=n) < GREY_SHARE)
    drawings[grey] = drawings[grey].mean(1, keepdim=True)
    return drawings


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up over 200 steps, flat, and a linear decay over the last 40 %."""
    return peak * min(1.0, (step + 1) / 200) * min(1.0, max(0.02, (steps - step) / (0.4 * steps)))


def _caption(structure: Structure, rng: np.random.Generator) -> str:
    """One of the sample's captions, or none."""
    if rng.uniform() < UNCONDITIONAL_SHARE:
        return ""
    variant = int(rng.integers(CAPTIONS_PER_SAMPLE))
    return random_caption(structure, np.random.default_rng([structure.seed, variant]))


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--text-encoder", type=Path, required=True, help="folder of MiniLM")
    parser.add_argument("--out", type=Path, default=Path("runs/denoiser"))
    parser.add_argument("--unet-from", type=Path, help="an earlier run to take the UNet from")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    words, cache = TextStates(args.text_encoder), LatentCache(args.latents)
    train(cache, words, args.out, args.steps, args.batch, args.lr, args.seed, args.unet_from)


if __name__ == "__main__":
    main()
