"""Train the classifier that judges whether pictures follow their prompts.

    python -m imagegen.classifier_training --out runs/classifier --steps 2000

Resumes from the newest checkpoint in `--out`; the finished weights go to `--out`/export. What is
unusual:
- it learns from drawings of the procedural generator alone, never from generated pictures: what
  the diffusion model got wrong it must not learn to call right;
- drawings come from a process of their own and stay in a pool, so that each is seen a few times,
  spoilt anew each time;
- some are bare, some drawn large and made small, some sent through the diffusion model's
  autoencoder, which knows no prompt.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagegen.assembly import WEIGHTS
from imagegen.canvas import canvas
from imagegen.checkpoint import load_average
from imagegen.classifier import Classifier, ClassifierConfig, Network, save_classifier
from imagegen.device import mixed_precision, number_type
from imagegen.distortion import distorted
from imagegen.looks import GROUNDS, MATERIALS
from imagegen.loop import fit
from imagegen.pool import Pool
from imagegen.scene import compose, lit_picture, random_structure, seed_picture
from imagegen.start import Pixels
from orbweave.records import Structure

__all__ = ["answers", "any_look", "drawn_as", "train"]

MANNERS = ("lit", "bare", "large", "through the autoencoder")
SHARES = (0.70, 0.12, 0.09, 0.09)
"""How often a drawing is made in each manner; the last two take four times as long."""
ODD_SHARE = 0.4
"""Of drawings in any colours."""
PAIR_SHARE = 0.5
"""Of drawings with two motifs."""
OPEN_SHARE = 0.5
"""Of a view that a motif laid over another must leave open, at least: beneath scales there is
nothing to see, and who is told otherwise learns to see no overlay at all."""
GLANCE_PX = 48
"""Side of the drawing by which that is told."""
UNLIKE = 50
"""Levels of 255 by which red, green or blue of a material and its ground must differ at least."""
SPAN = 256
"""Pixels of the whole view, as rendered."""
POOL = 16_000
"""Drawings kept; 49 kB each."""
COLOUR_WEIGHT = 0.5
"""Of the two colour losses against that of the families; chosen by us."""
EMA_DECAY = 0.98
"""Of the averaged weights. Short, for they are used with the latest statistics of the
normalisation: after 260 steps of 0.995 they named one family in all pictures."""

Draw = Callable[[np.random.Generator], Structure]
Autoencoder = Callable[[Pixels], Pixels]


def answers(structure: Structure, config: ClassifierConfig) -> Tensor:
    """Return what is right for a structure: families, materials and grounds in one row.

    Families are 0 or 1 each; materials and grounds are shares of one.
    """
    materials, _, ground = structure.look.partition(" on ")
    named = materials.split(" and ")
    shown = {motif.family for motif in structure.motifs}
    row = [float(name in shown) for name in config.families]
    row += [named.count(name) / len(named) for name in config.materials]
    return torch.tensor([*row, *(float(name == ground) for name in config.grounds)])


def any_look(rng: np.random.Generator) -> Structure:
    """Draw a structure to learn from, two in five of them in any colours unlike their ground.

    The others have looks as the denoiser learnt them, which suit the motif or have contrast; but
    words ask for purple on grey too.
    """
    structure = _readable(rng)
    if rng.random() > ODD_SHARE:
        return structure
    n_materials = structure.look.count(" and ") + 1
    while True:
        ground = str(rng.choice(list(GROUNDS)))
        names = [str(name) for name in rng.choice(list(MATERIALS), n_materials, replace=False)]
        behind = np.mean(GROUNDS[ground], 0)
        if all(np.abs(MATERIALS[name][1] - behind).max() >= UNLIKE for name in names):
            return structure.model_copy(update={"look": f"{' and '.join(names)} on {ground}"})


def _readable(rng: np.random.Generator) -> Structure:
    """Draw a random structure, half of them of two motifs, of which both can be seen."""
    structure = random_structure(rng, double_share=PAIR_SHARE)
    if structure.combine == "overlay":
        while structure.combine != "overlay" or not _leaves_open(structure):
            structure = random_structure(rng, double_share=1)
    return structure


def _leaves_open(structure: Structure) -> bool:
    """Whether of an overlay enough of the lower motif is seen."""
    glance = canvas(GLANCE_PX, float(SPAN))
    _, lower = compose(glance, structure, np.random.default_rng(structure.seed))
    return lower is not None and float(lower.mean()) >= OPEN_SHARE


def drawn_as(manner: str, structure: Structure, side: int, autoencoder: Autoencoder) -> Pixels:
    """Return the whole view of a structure as pixels (side, side, 3), in one of `MANNERS`."""
    if manner == "bare":
        return seed_picture(structure, side)
    if manner == "lit":
        return lit_picture(structure, side, float(SPAN))
    large = lit_picture(structure, SPAN, float(SPAN))
    return _smaller(autoencoder(large) if manner == MANNERS[3] else large, side)


def _smaller(pixels: Pixels, side: int) -> Pixels:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))


def load_autoencoder(weights: Path = WEIGHTS) -> Autoencoder:
    """Return what encodes and decodes a picture as the embedded model does."""
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file

    build: Any = AutoencoderKL.from_config  # diffusers has no types
    vae = build(AutoencoderKL.load_config(weights / "vae.json"))
    vae.load_state_dict(load_file(weights / "vae.safetensors"))
    dtype = getattr(torch, number_type())
    vae = vae.to(dtype, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def through(pixels: Pixels) -> Pixels:
        x = torch.tensor(pixels).permute(2, 0, 1)[None].to(dtype) / 127.5 - 1
        y = vae.decode(vae.encode(x).latent_dist.mean).sample[0].float()
        out: Pixels = ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        return out

    return through


def _drawings(
    seed: int, config: ClassifierConfig, draw: Draw, autoencoder: Autoencoder
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (side, side, 3) uint8 and their answers, without end."""
    rng = np.random.default_rng([seed, 1])
    while True:
        structure = draw(rng)
        manner = str(rng.choice(MANNERS, p=SHARES))
        pixels = drawn_as(manner, structure, config.side_px, autoencoder)
        yield torch.tensor(pixels), answers(structure, config)


def classifier_loss(logits: tuple[Tensor, Tensor, Tensor], right: Tensor) -> Tensor:
    """Cross-entropy of every family for itself, and of the shares of materials and grounds.

    Args:
        logits: As `Network` returns them.
        right: Rows of `answers`, (n, classes in all).
    """
    families, materials, grounds = (part.float() for part in logits)
    f, m, g = torch.split(right, [part.shape[1] for part in logits], 1)
    present = F.binary_cross_entropy_with_logits(families, f, reduction="none").sum(1).mean()
    colours = F.cross_entropy(materials, m) + F.cross_entropy(grounds, g)
    return present + COLOUR_WEIGHT * colours


def train(
    out: Path,
    config: ClassifierConfig,
    *,
    draw: Draw,
    autoencoder: Autoencoder,
    steps: int,
    batch: int,
    fresh: int,
    lr: float,
    seed: int,
) -> Classifier:
    """Train until `steps` steps in all are done, and write the weights to `out/export`.

    Args:
        out: Run folder; the newest checkpoint there is continued.
        config: What to tell apart.
        draw: Draws structures of the configuration's families.
        autoencoder: Sends a picture of 256 pixels there and back.
        steps: Steps in all, those of earlier runs included.
        batch: Pictures a step.
        fresh: Of these, drawn anew; the others come from the pool.
        lr: Highest learning rate.
        seed: Of weights, drawings and distortions.
    """
    torch.manual_seed(seed)
    network: Any = Network(config)  # torch's types lack the next line's argument
    network.to(memory_format=torch.channels_last)

    def losses(start: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        generator = torch.Generator().manual_seed(seed + start)
        pool = Pool(
            partial(_drawings, seed + start, config, draw, autoencoder),
            lambda n_kept, n: torch.randint(n_kept, (n,), generator=generator),
            size=POOL, batch=batch, fresh=fresh,
        )  # fmt: skip

        def loss() -> tuple[Tensor, dict[str, float]]:
            pixels, right = pool.batch()
            # Distortions go by place in the batch, so new and old are mixed.
            order = torch.randperm(batch, generator=generator)
            pictures, right = pixels[order].permute(0, 3, 1, 2).float() / 255, right[order]
            x = distorted(pictures, generator) * 2 - 1
            with mixed_precision():
                logits = network(x.contiguous(memory_format=torch.channels_last))
            found = logits[0].argmax(1, keepdim=True)
            hits = right[:, : len(config.families)].gather(1, found).mean().item()
            return classifier_loss(logits, right), {"top1": hits}

        return loss

    def rate(step: int) -> float:
        return lr * min(1, (step + 1) / 100) * max(0.02, 1 - (step / steps) ** 2)

    fit(out, network, losses, rate=rate, steps=steps, ema_decay=EMA_DECAY, weight_decay=0.02)
    average = Network(config)
    load_average(average, out)
    save_classifier(average, config, out / "export")
    return Classifier(average, config)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/classifier"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--fresh", type=int, default=14, help="drawn anew, of each batch")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(
        args.out, ClassifierConfig(), draw=any_look, autoencoder=load_autoencoder(),
        steps=args.steps, batch=args.batch, fresh=args.fresh, lr=args.lr, seed=args.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
