"""Train the UNet of the embedded image model on cached latents.

    python -m imagegen.denoiser --latents runs/latents-128 --out runs/unet --steps 9000

Resumes from the newest checkpoint in `--out`. What is unusual:
- most steps run on 16 x 16 latents (128-pixel views), a quarter of the cost, and only the
  last on 32 x 32; line widths in pixels are the same in both;
- captions are written anew for every sample each time it is seen;
- v-prediction with a schedule that ends in pure noise, so that dark pictures stay dark;
- min-SNR weighting (gamma 5), exponential moving average of the weights.

Sources: Salimans & Ho 2202.00512; Lin et al. 2305.08891; Hang et al. 2303.09556.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import AutoTokenizer, BertModel

from imagegen.captions import random_caption
from imagegen.checkpoint import load_checkpoint, save_checkpoint
from imagegen.latents import LatentCache

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


class TextStates:
    """Token states of MiniLM, as the pipeline computes them: padded, masked, last layer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.encoder = BertModel.from_pretrained(
            folder, local_files_only=True, add_pooling_layer=False, dtype=torch.bfloat16
        ).eval()

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> Tensor:
        """Return states of shape (n, MAX_TOKENS, 384)."""
        tokens = self.tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        return self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0].float()


def build_denoiser() -> UNet2DConditionModel:
    """Return the untrained UNet, 12 million parameters."""
    return UNet2DConditionModel(**ARCHITECTURE)


def denoising_loss(
    unet: UNet2DConditionModel, schedule: DDPMScheduler, x: Tensor, text: Tensor, t: Tensor
) -> Tensor:
    """Weighted squared error of the predicted velocity at time steps t (n,); a scalar."""
    noise = torch.randn_like(x)
    noisy = schedule.add_noise(x, noise, t)
    target = schedule.get_velocity(x, noise, t)
    with torch.autocast("cpu", torch.bfloat16):
        v = unet(noisy, t, encoder_hidden_states=text).sample
    alpha = schedule.alphas_cumprod[t]
    snr = alpha / (1 - alpha)
    weight = torch.clamp(snr, max=MIN_SNR_GAMMA) / (snr + 1)
    # The floor keeps the steps of nearly pure noise, where layout and colour are decided.
    weight = torch.clamp(weight, min=0.2)
    return (weight * (v.float() - target).square().mean((1, 2, 3))).mean()


def train(
    cache: LatentCache, words: TextStates, out: Path, steps: int, batch: int, lr: float, seed: int
) -> None:
    """Train until `steps` steps in all are done, with a checkpoint every five minutes."""
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    unet = build_denoiser()
    schedule = DDPMScheduler(**SCHEDULER)
    ema = torch.optim.swa_utils.AveragedModel(
        unet, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    optimiser = torch.optim.AdamW(
        unet.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.02, foreach=True
    )
    parts = {"unet": unet, "ema": ema, "optimiser": optimiser}
    start = load_checkpoint(out, parts)
    n = len(cache.structures)
    log.info("denoiser: step %d of %d, batch %d of %d latents", start, steps, batch, n)
    torch.manual_seed(seed + start)
    saved = told = time.monotonic()
    mean = None
    with (out / "metrics.jsonl").open("a") as metrics:
        for step, (latents, structures, rng) in zip(
            range(start, steps), cache.batches(batch, seed + start), strict=False
        ):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(lr, step, steps)
            text = words([_caption(s, rng) for s in structures])
            x = latents.float()
            loss = denoising_loss(unet, schedule, x, text, torch.randint(0, 1000, (batch,)))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            optimiser.step()
            ema.update_parameters(unet)
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % 50 == 49:
                now = time.monotonic()
                row = {
                    "step": step + 1,
                    "loss": round(mean, 4),
                    "samples_per_s": round(50 * batch / (now - told), 1),
                }
                told = now
                metrics.write(json.dumps(row) + "\n")
                metrics.flush()
                log.info("%s", row)
            if time.monotonic() - saved > 300 or step + 1 == steps:
                save_checkpoint(out, step + 1, parts)
                saved = time.monotonic()


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up over 200 steps, flat, and a linear decay over the last 40 %."""
    return peak * min(1.0, (step + 1) / 200) * min(1.0, max(0.02, (steps - step) / (0.4 * steps)))


def _caption(structure: object, rng: np.random.Generator) -> str:
    return "" if rng.uniform() < UNCONDITIONAL_SHARE else random_caption(structure, rng)  # type: ignore[arg-type]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--text-encoder", type=Path, required=True, help="folder of MiniLM")
    parser.add_argument("--out", type=Path, default=Path("runs/unet"))
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.out.mkdir(parents=True, exist_ok=True)
    words, cache = TextStates(args.text_encoder), LatentCache(args.latents)
    train(cache, words, args.out, args.steps, args.batch, args.lr, args.seed)


if __name__ == "__main__":
    main()
