"""Train the network that sketches motifs from noise.

    python -m imagegen.sketch_training --out runs/sketch --steps 10000

Resumes from the newest checkpoint in `--out`; the finished weights go to `--out`/export. It learns
from the procedural generator's drawings of single motifs: those with a direction all lie the same
way, and how two motifs meet is left to `imagegen.scene`. So what it has to learn is order over
the view; what that gave against drawings at every angle stands in `docs/experiments.md`.
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

from imagegen.checkpoint import load_average
from imagegen.loop import fit
from imagegen.motifs import draw_motif, random_motif
from imagegen.pool import Pool
from imagegen.sketch import (
    FINEST,
    SketchConfig,
    Sketcher,
    asked,
    build_network,
    canvas_of,
    place,
    predicted,
    save_sketcher,
)

__all__ = ["drawn_sketch", "train"]

POOL = 60_000
"""Drawings kept; 18 kB each."""
AT_FIRST = 2_000
"""Drawings made before the first step, since each batch takes few new ones."""
UNASKED_SHARE = 0.1
"""Drawings shown without what was asked for, so that guidance has something to lead away from."""
LIGHT_WEIGHT = 0.5
"""Of the layer of lightness against that of the material."""
NOISE_MIDDLE, NOISE_SPREAD = -0.8, 0.9
"""Of the logit of the clean share: most is learnt where most is still noise."""
MAX_WEIGHT = 400.0
EMA_DECAY = 0.999
"""Of the averaged weights; for thousands of steps, of which it keeps the last thousand."""

Sample = tuple[Tensor, Tensor]
"""Layers (N_LAYERS, side, side) uint8 and the row that asks for them."""


def drawn_sketch(family: str, rng: np.random.Generator, config: SketchConfig) -> Sample:
    """Draw a random motif of a family as the network shall."""
    motif = random_motif(family, rng)
    motif = motif.model_copy(update={"direction_deg": 0.0})
    while place(motif) < FINEST:
        motif = motif.model_copy(update={"spacing": random_motif(family, rng).spacing})
    relief = draw_motif(canvas_of(family, config.side_px), motif, rng)
    layers = np.stack([relief.cover, relief.cover * relief.tone])
    pixels = (np.clip(layers, 0, 1) * 255).round().astype(np.uint8)
    return torch.from_numpy(pixels), torch.from_numpy(asked(motif, config))


def _drawings(seed: int, config: SketchConfig) -> Iterator[Sample]:
    """Random motifs without end, families in turn."""
    rng = np.random.default_rng([seed, 3])
    while True:
        for family in config.families:
            yield drawn_sketch(family, rng, config)


def sketch_loss(
    network: Any, layers: Tensor, wanted: Tensor, generator: torch.Generator, patch: int
) -> Tensor:
    """How far the network is from the sketches, as an error of the way there.

    Args:
        network: Of `imagegen.sketch.build_network`.
        layers: Drawings in [-1, 1], (n, N_LAYERS, side, side).
        wanted: What each was asked for, (n, numbers).
        generator: Of noise and of its shares.
        patch: Side of what the network sees as one point.
    """
    n = len(layers)
    x = F.pixel_unshuffle(layers, patch)
    # One of each equal part of the noise's shares: the loss scatters less.
    part = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    spread = torch.special.ndtri(part.clamp(1e-4, 1 - 1e-4))
    clean = torch.sigmoid(NOISE_MIDDLE + NOISE_SPREAD * spread)
    unasked = torch.rand(n, generator=generator) < UNASKED_SHARE
    wanted = wanted.masked_fill(unasked[:, None], 0)
    share = clean[:, None, None, None]
    noisy = share * x + (1 - share) * torch.randn(x.shape, generator=generator)
    error = (predicted(network, noisy, clean, wanted) - x).square()
    weight = torch.tensor([1.0, LIGHT_WEIGHT]).repeat_interleave(patch**2)[:, None, None]
    of_each = (error * weight).mean((1, 2, 3)) * (1 - clean).pow(-2).clamp(max=MAX_WEIGHT)
    loss: Tensor = of_each.mean()
    return loss


def train(
    out: Path,
    config: SketchConfig,
    *,
    steps: int,
    batch: int,
    fresh: int,
    lr: float,
    seed: int,
) -> Sketcher:
    """Train until `steps` steps in all are done, and write the weights to `out/export`.

    Args:
        out: Run folder; the newest checkpoint there is continued.
        config: What to draw, and the network's size.
        steps: Steps in all, those of earlier runs included.
        batch: Drawings a step.
        fresh: Of these, drawn anew; the others come from the pool.
        lr: Highest learning rate.
        seed: Of weights, drawings and noise.
    """
    torch.manual_seed(seed)
    network = build_network(config)

    def losses(start: int) -> Callable[[], tuple[Tensor, dict[str, float]]]:
        generator = torch.Generator().manual_seed(seed + start)
        rng = np.random.default_rng(seed + start)
        pool = Pool(
            partial(_drawings, seed + start, config),
            lambda n_kept, n: torch.from_numpy(rng.integers(n_kept, size=n)),
            size=POOL, batch=batch, fresh=fresh, at_first=AT_FIRST,
        )  # fmt: skip

        def loss() -> tuple[Tensor, dict[str, float]]:
            pixels, wanted = pool.batch()
            layers = pixels.float() / 127.5 - 1
            return sketch_loss(network, layers, wanted, generator, config.patch_px), {}

        return loss

    def rate(step: int) -> float:
        return lr * min(1.0, (step + 1) / 100) * min(1.0, max(0.02, (steps - step) / (0.3 * steps)))

    fit(out, network, losses, rate=rate, steps=steps, ema_decay=EMA_DECAY, weight_decay=0.01)
    average = build_network(config)
    load_average(average, out)
    save_sketcher(average, config, out / "export")
    return Sketcher(average, config)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/sketch"))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--fresh", type=int, default=16, help="drawn anew, of each batch")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(
        args.out, SketchConfig(), steps=args.steps, batch=args.batch, fresh=args.fresh,
        lr=args.lr, seed=args.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
