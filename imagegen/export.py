"""Turn training checkpoints into the weights the project ships.

    python -m imagegen.export vae --run runs/vae --out imagegen/weights
    python -m imagegen.export denoiser --run runs/denoiser --out imagegen/weights

The exponential moving averages are written, as fp16 safetensors beside their diffusers
configuration. For the autoencoder, the mean and deviation of each latent channel, measured
on fresh pictures, are folded into the 1 x 1 convolutions around the latent, so that latents
are standardised and the pipeline's one scaling factor is 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from imagegen.autoencoder import build_autoencoder
from imagegen.checkpoint import load_average
from imagegen.denoiser import MAX_TOKENS, SCHEDULER, Denoiser
from imagegen.samples import picture_stream

__all__ = ["fold_latent_statistics"]


@torch.inference_mode()
def latent_statistics(vae: Any, n_batches: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per latent channel over fresh pictures, each (channels,)."""
    stream = picture_stream(seed, 128, 16)
    latents = torch.cat([vae.encode(next(stream)).latent_dist.mean for _ in range(n_batches)])
    return latents.mean((0, 2, 3)), latents.std((0, 2, 3))


@torch.no_grad()
def fold_latent_statistics(vae: Any, mean: Tensor, deviation: Tensor) -> None:
    """Make `vae` encode to and decode from standardised latents, in place.

    Encoding gives (z - mean) / deviation, decoding expects it; pictures come out the same.
    """
    encode, decode = vae.quant_conv, vae.post_quant_conv
    n = len(mean)
    encode.weight[:n] /= deviation[:, None, None, None]
    encode.bias[:n] = (encode.bias[:n] - mean) / deviation
    encode.bias[n:] -= 2 * deviation.log()
    decode.bias += (decode.weight[..., 0, 0] @ mean[:, None])[:, 0]
    decode.weight *= deviation[None, :, None, None]


def write(model: Any, out: Path, name: str) -> None:
    """Write `name.safetensors` in fp16 and `name.json`."""
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.float16).contiguous() for k, v in model.state_dict().items()}
    save_file(state, out / f"{name}.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in dict(model.config).items() if not k.startswith("_")}
    config |= {"_class_name": type(model).__name__}
    (out / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["vae", "denoiser"])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("imagegen/weights"))
    args = parser.parse_args()
    if args.part == "vae":
        vae = build_autoencoder()
        load_average(vae, args.run)
        fold_latent_statistics(vae, *latent_statistics(vae, n_batches=20, seed=99))
        write(vae, args.out, "vae")
    else:
        denoiser = Denoiser()
        load_average(denoiser, args.run)
        write(denoiser.unet, args.out, "unet")
        write(denoiser.control, args.out, "controlnet")
        loom = {"max_tokens": MAX_TOKENS, "scheduler": SCHEDULER}
        (args.out / "loom.json").write_text(json.dumps(loom, indent=2) + "\n")


if __name__ == "__main__":
    main()
