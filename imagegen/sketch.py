"""Motifs drawn from noise by a network, where no procedure shall draw them.

The latent denoiser alone gives words their colours but no order over the view: its latents are
local. This network is small enough to see the whole view at once. It draws one motif, coarsely,
in two layers: where there is material, and how light its elements are. What has a direction is
drawn lying and turned afterwards, so it need not be learnt at every angle. Two motifs meet as in
`imagegen.scene`, and the picture is rendered on the sketch as on any drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor

from imagegen.assembly import WEIGHTS
from imagegen.canvas import Array, Canvas, Relief, canvas
from imagegen.motifs import FAMILIES
from imagegen.network_file import load_network, save_network
from orbweave.records import Motif, Record

__all__ = [
    "N_LAYERS",
    "SketchConfig",
    "Sketcher",
    "asked",
    "build_network",
    "canvas_of",
    "has_sketcher",
    "load_sketcher",
    "place",
    "predicted",
    "save_sketcher",
]

NAME = "sketch"
"""Of its two files, `.safetensors` and `.json`."""
N_LAYERS = 2
VIEW = 256.0
"""Side of the view in the units of `imagegen.canvas`."""
WIDE_VIEW = 362.0
"""Of a motif with a direction: as wide as the diagonal, so that it fills the view when turned."""
STEPS = 24
GUIDANCE = 2.0
FINEST = 0.3
"""Place within a family's range of the finest spacing it was taught; finer ones are drawn so."""
SHARPENING = 2.0
"""Of edges that were enlarged; chosen by us."""


class SketchConfig(Record):
    """What the network draws, and its size."""

    families: tuple[str, ...] = tuple(FAMILIES)
    side_px: int = 96
    patch_px: int = 4
    """Side of what it sees as one point."""
    widths: tuple[int, ...] = (48, 96, 160, 192)
    """Channels of its levels, each half as fine as the one before; the first attends to nothing."""


def build_network(config: SketchConfig) -> Any:
    """Return an untrained UNet of diffusers with a configuration's size."""
    from diffusers import UNet2DConditionModel

    down = ("DownBlock2D", *("AttnDownBlock2D",) * (len(config.widths) - 1))
    up = (*("AttnUpBlock2D",) * (len(config.widths) - 1), "UpBlock2D")
    channels = N_LAYERS * config.patch_px**2
    build: Any = UNet2DConditionModel  # diffusers has no types
    return build(
        sample_size=config.side_px // config.patch_px,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.widths,
        down_block_types=down,
        mid_block_type="UNetMidBlock2D",
        up_block_types=up,
        layers_per_block=1,
        attention_head_dim=32,
        norm_num_groups=8,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=len(config.families) + 3,
        cross_attention_dim=8,  # of words, which this network does not read
    ).to(memory_format=torch.channels_last)


def canvas_of(family: str, side_px: int) -> Canvas:
    """Return what a family is drawn on before it is turned.

    What has a direction is drawn as far as it comes into view when turned; its outline stays as
    large as in the view.
    """
    if FAMILIES[family].directed:
        return canvas(side_px, WIDE_VIEW)._replace(extent=VIEW)
    return canvas(side_px, VIEW)


def asked(motif: Motif, config: SketchConfig) -> NDArray[np.float32]:
    """Return what the network is asked for: one family of all, and three numbers about 0."""
    numbers = np.zeros(len(config.families) + 3, np.float32)
    numbers[config.families.index(motif.family)] = 1
    thickness = _share(motif.thickness, FAMILIES[motif.family].thickness)
    numbers[-3:] = max(place(motif), FINEST) - 0.5, thickness - 0.5, motif.irregularity - 0.5
    return numbers


def place(motif: Motif) -> float:
    """Where a motif's spacing lies in the natural range of its family: 0 finest, 1 coarsest."""
    return _share(motif.spacing, FAMILIES[motif.family].spacing)


def _share(value: float, bounds: tuple[float, float]) -> float:
    return (value - bounds[0]) / (bounds[1] - bounds[0])


def predicted(network: Any, noisy: Tensor, clean: Tensor, wanted: Tensor) -> Tensor:
    """Return the sketches that noisy ones come from.

    Args:
        network: Of `build_network`.
        noisy: `clean` parts of sketch and the rest of noise, (n, layers x patch^2, h, w).
        clean: Share of the sketch, (n,), from 0 to 1.
        wanted: Rows of `asked`, or zeros for anything, (n, families + 3).
    """
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    nothing = noisy.new_zeros(len(noisy), 1, 8)
    x: Tensor = network(noisy, clean * 1000, nothing, class_labels=wanted).sample
    return x


class Sketcher:
    """The trained network; draws motifs in place of `imagegen.motifs.draw_motif`."""

    def __init__(self, network: Any, config: SketchConfig, sha256: str = "") -> None:
        """Take the network, its size, and the hash of its weights for the record."""
        self.config, self.sha256 = config, sha256
        self._network = network.eval()

    def __call__(
        self,
        c: Canvas,
        motif: Motif,
        rng: np.random.Generator,
        before_step: Callable[[], None] = lambda: None,
    ) -> Relief:
        """Draw a motif; arrays of shape (size, size), float32, in [0, 1]. Height is cover."""
        wanted = torch.from_numpy(asked(motif, self.config))[None]
        layers = self.sketches(wanted, int(rng.integers(2**31)), before_step)[0]
        along, across = c.turned(motif.direction_deg)
        scale = np.float32(1 / canvas_of(motif.family, self.config.side_px).pixel)
        middle = np.float32((self.config.side_px - 1) / 2)
        places = np.stack([middle - across * scale, middle + along * scale])
        cover, light = (_enlarged(layer, places) for layer in layers.numpy())
        tone = np.clip(light / np.maximum(cover, 0.1), 0, 1)
        enlarged = max(1.0, 1 / float(scale) / c.pixel)
        gain = np.float32(1 + (SHARPENING - 1) * min(1.0, enlarged - 1))
        cover = np.clip((np.clip(cover, 0, 1) - 0.5) * gain + 0.5, 0, 1)
        return Relief(cover, cover, tone)

    @torch.inference_mode()
    def sketches(
        self, wanted: Tensor, seed: int, before_step: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Draw one sketch for each row of `asked`: (n, N_LAYERS, side, side), about [0, 1].

        From noise to sketch along straight lines, by Euler's steps. Source: rectified flow, Liu,
        Gong and Liu (arXiv:2209.03003); the network names the end of the line, Li and He
        (arXiv:2511.13720). `before_step` is called before each and may raise to stop.
        """
        patch, n = self.config.patch_px, len(wanted)
        grid = self.config.side_px // patch
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, N_LAYERS * patch**2, grid, grid, generator=generator)
        both = torch.cat([wanted, torch.zeros_like(wanted)])
        for step in range(STEPS):
            before_step()
            t = step / STEPS
            end = predicted(self._network, torch.cat([z, z]), torch.full((2 * n,), t), both)
            end = end[n:] + GUIDANCE * (end[:n] - end[n:])
            z = z + (end - z) / (STEPS - step)
        return F.pixel_shuffle(z, patch) / 2 + 0.5


def _enlarged(layer: NDArray[np.float32], places: Array) -> Array:
    """A layer at places (2, H, W), rows and columns, by cubic splines."""
    values: Array = map_coordinates(layer, places, np.float32, order=3, mode="mirror")
    return values


def save_sketcher(network: Any, config: SketchConfig, folder: Path) -> None:
    """Write `sketch.safetensors` in fp16 and `sketch.json`."""
    save_network(network, config, folder, NAME)


def has_sketcher(folder: Path) -> bool:
    """Whether the network lies in a folder of weights."""
    return (folder / f"{NAME}.json").is_file()


def load_sketcher(folder: Path | None = None) -> Sketcher:
    """Load the network.

    Args:
        folder: Where its two files are; default: the shipped weights.

    Raises:
        ModelError: a file is missing, damaged or does not fit the other.
    """
    folder = WEIGHTS if folder is None else folder
    what = "the network that sketches"
    return Sketcher(*load_network(folder, NAME, SketchConfig, build_network, what=what))
