"""A cache of encoded training pictures: latents on disk, structures and drawings beside them.

    python -m imagegen.latents --vae runs/vae-export --out runs/latents-128 --size 128 --count 40000

Shards are written whole; a second run continues after the last one.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from imagegen.device import number_type
from imagegen.scene import random_structure, training_pair
from orbweave.records import Structure

__all__ = ["LatentCache", "Samples", "encode_samples"]

log = logging.getLogger(__name__)
SHARD = 1_000


class _Scenes(Dataset[tuple[Tensor, Tensor, str]]):
    """Sample i of the endless set: picture, drawing and structure as JSON.

    The picture is (3, size, size) in [-1, 1], the drawing (size, size, 3) uint8.
    """

    def __init__(
        self, start: int, count: int, size_px: int, seed: int, double_share: float
    ) -> None:
        self.start, self.count, self.size_px, self.seed = start, count, size_px, seed
        self.double_share = double_share

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        if index >= self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, self.size_px, self.start + index])
        # A smaller field of view holds fewer repeats; finer motifs keep the whole in sight.
        scale = 1.0 if self.size_px >= 256 else 0.75
        structure = random_structure(rng, double_share=self.double_share, scale=scale)
        drawing, picture = training_pair(structure, self.size_px, float(self.size_px))
        tensor = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
        return tensor, torch.from_numpy(drawing), structure.model_dump_json()


@torch.inference_mode()
def encode_samples(
    vae: Any, out: Path, size_px: int, count: int, *, seed: int, double_share: float
) -> None:
    """Draw and encode `count` samples into shards of `SHARD`, skipping those already there."""
    out.mkdir(parents=True, exist_ok=True)
    dtype = getattr(torch, number_type())
    vae = vae.to(dtype, memory_format=torch.channels_last)
    for shard in tqdm(range(count // SHARD), unit="shard"):
        target = out / f"{shard:05d}.safetensors"
        if target.exists():
            continue
        scenes = _Scenes(shard * SHARD, SHARD, size_px, seed, double_share)
        latents, drawings, structures = [], [], []
        for pictures, drawn, texts in DataLoader(scenes, batch_size=20, num_workers=1):
            x = pictures.to(dtype, memory_format=torch.channels_last)
            latents.append(vae.encode(x).latent_dist.mean.to(torch.float16).contiguous())
            drawings.append(drawn)
            structures.extend(texts)
        text = "\n".join(structures).encode()
        temporary = target.with_suffix(".tmp")
        save_file(
            {
                "latents": torch.cat(latents),
                "drawings": torch.cat(drawings),
                "structures": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            },
            temporary,
        )
        temporary.replace(target)


class Samples(NamedTuple):
    """A batch of the cache."""

    latents: Tensor
    """(n, channels, h, w) float16."""
    drawings: Tensor
    """(n, 8 h, 8 w, 3) uint8."""
    structures: list[Structure]


class LatentCache:
    """All shards of a folder in memory."""

    def __init__(self, folder: Path) -> None:
        shards = [load_file(p) for p in sorted(folder.glob("*.safetensors"))]
        self.latents = torch.cat([s["latents"] for s in shards])
        self.drawings = torch.cat([s["drawings"] for s in shards])
        texts = [bytes(s["structures"].numpy().tobytes()).decode() for s in shards]
        self.structures = [
            Structure.model_validate_json(line) for text in texts for line in text.split("\n")
        ]

    def batches(self, size: int, seed: int) -> Iterator[tuple[Samples, np.random.Generator]]:
        """Yield shuffled batches for ever, with a generator for whatever else is random."""
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(self.structures))
            for i in range(0, len(order) - size + 1, size):
                picked = order[i : i + size]
                structures = [self.structures[j] for j in picked]
                yield Samples(self.latents[picked], self.drawings[picked], structures), rng


def main() -> None:
    """Parse the command line and encode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True, help="exported autoencoder folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--double-share", type=float, default=0.3, help="share with two motifs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    load: Any = AutoencoderKL.from_pretrained  # diffusers has no types
    vae = load(args.vae)
    encode_samples(
        vae, args.out, args.size, args.count, seed=args.seed, double_share=args.double_share
    )


if __name__ == "__main__":
    main()
