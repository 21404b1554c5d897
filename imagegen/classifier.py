"""Which motifs and colours a picture shows, by two small networks that learnt from drawings alone.

Motifs are told by convolutions, colours by how often each occurs: convolutions confused near
colours, white and silver for one, in every tenth picture. They judge generated pictures and so
have never seen one: theirs were the procedural generator's, spoilt as `imagegen.distortion` does.
`imagegen.classifier_training` is the recipe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from imagegen.assembly import WEIGHTS
from imagegen.looks import GROUNDS, MATERIALS
from imagegen.motifs import FAMILIES
from imagegen.network_file import load_network, save_network
from imagegen.start import Pixels
from orbweave.records import Record

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "Network",
    "Verdict",
    "colour_shares",
    "load_classifier",
    "save_classifier",
]

NAME = "classifier"
"""Of its two files, `.safetensors` and `.json`."""
BINS = (12, 14, 14)
"""Of lightness, red against blue, and green against both."""
REACH = (1.0, 0.9, 0.5)
"""Largest value of each; the two differences lie on both sides of 0, and farther out colours
count as outermost."""


class ClassifierConfig(Record):
    """What the network tells apart, and its size."""

    families: tuple[str, ...] = tuple(FAMILIES)
    materials: tuple[str, ...] = tuple(MATERIALS)
    grounds: tuple[str, ...] = tuple(GROUNDS)
    side_px: int = 128
    """Side of the pictures it is shown, the whole view of a 256-pixel picture."""
    widths: tuple[int, int, int, int] = (24, 48, 88, 144)
    """Channels at a half, a quarter, an eighth and a sixteenth of the side."""


class Verdict(NamedTuple):
    """What a picture shows; probabilities in [0, 1]."""

    families: dict[str, float]
    """Each for itself: two may be there."""
    materials: dict[str, float]
    """Shares of one; two materials have about a half each."""
    grounds: dict[str, float]
    """Shares of one."""


class _Residual(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.second(self.first(x)))
        return torch.relu(x + y)


def _convolution(before: int, after: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    # Normalised over the batch: over the picture it would forget the absolute colour.
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


def colour_shares(x: Tensor) -> Tensor:
    """Return the square roots of how often each colour occurs, (n, bins).

    A pixel between bins counts for all that it lies between, the nearer the more.

    Args:
        x: Pictures (n, 3, h, w) in [-1, 1].
    """
    red, green, blue = (x * 0.5 + 0.5).unbind(1)
    lightness = 0.3 * red + 0.59 * green + 0.11 * blue
    values = lightness * 2 - 1, red - blue, green - (red + blue) / 2
    shares = x.new_zeros(len(x), math.prod(BINS))
    lower, above = [], []
    for value, n, reach in zip(values, BINS, REACH, strict=True):
        at = (value.flatten(1) / reach * 0.5 + 0.5).clamp(0, 1) * (n - 1)
        lower.append(at.floor().clamp(max=n - 2))
        above.append(at - lower[-1])
    for corner in itertools.product((0, 1), repeat=3):
        index = torch.zeros_like(lower[0], dtype=torch.long)
        weight = torch.ones_like(above[0])
        for n, low, share, side in zip(BINS, lower, above, corner, strict=True):
            index = index * n + low.long() + side
            weight = weight * (share if side else 1 - share)
        shares.scatter_add_(1, index, weight)
    return (shares / shares.sum(1, keepdim=True)).sqrt()


class Network(nn.Module):
    """Convolutions and a layer for motifs; layers on the shares of colours for what is which."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        a, b, c, d = config.widths
        self.body = nn.Sequential(
            _convolution(3, a, 2, 5),
            _convolution(a, b, 2),
            _Residual(b),
            _convolution(b, c, 2),
            _Residual(c),
            _convolution(c, d, 2),
            _Residual(d),
        )
        self.head = nn.Linear(2 * d, len(config.families))
        self.sizes = (len(config.materials), len(config.grounds))
        self.colours = nn.Sequential(
            nn.Linear(math.prod(BINS), 256),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(256, 128),
            nn.ReLU(),
            nn.Linear(128, sum(self.sizes)),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of families, materials and grounds, each (n, classes).

        Args:
            x: Pictures (n, 3, side, side) in [-1, 1].
        """
        seen = self.body(x)
        # The maximum finds a motif that fills a corner only.
        families = self.head(torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1))
        materials, grounds = self.colours(colour_shares(x)).split(self.sizes, 1)
        return families, materials, grounds


class Classifier:
    """A trained network with the names of its answers."""

    def __init__(self, network: Network, config: ClassifierConfig) -> None:
        self.config = config
        self._network = network.eval()

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Pixels]) -> list[Verdict]:
        """Judge pictures of shape (side, side, 3) with the configuration's side, uint8."""
        x = torch.stack([torch.tensor(p) for p in pictures]).permute(0, 3, 1, 2).float()
        families, materials, grounds = self._network(x / 127.5 - 1)
        shares = families.sigmoid(), materials.softmax(1), grounds.softmax(1)
        config = self.config
        return [
            Verdict(
                dict(zip(config.families, f, strict=True)),
                dict(zip(config.materials, m, strict=True)),
                dict(zip(config.grounds, g, strict=True)),
            )
            for f, m, g in zip(*(share.tolist() for share in shares), strict=True)
        ]


def save_classifier(network: Network, config: ClassifierConfig, folder: Path) -> None:
    """Write `classifier.safetensors` in fp16 and `classifier.json`."""
    save_network(network, config, folder, NAME)


def load_classifier(folder: Path | None = None) -> Classifier:
    """Load the classifier.

    Args:
        folder: Where its two files are; default: the shipped weights.

    Raises:
        ModelError: a file is missing, damaged or does not fit the other.
    """
    folder = WEIGHTS if folder is None else folder
    what = "the classifier of pictures"
    saved = load_network(folder, NAME, ClassifierConfig, Network, what=what)
    return Classifier(saved.network, saved.config)
