"""Endless training pictures without words, drawn as they are needed and never stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from imagegen.scene import lit_picture, random_structure

__all__ = ["picture_stream"]


class _Crops(IterableDataset[torch.Tensor]):
    """Lit pictures as (3, extent, extent) in [-1, 1], lines as wide as at 256 pixels."""

    def __init__(self, seed: int, extent: int) -> None:
        self.seed, self.extent = seed, extent

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        while True:
            structure = random_structure(rng)
            picture = lit_picture(structure, self.extent, float(self.extent))
            yield torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1


def picture_stream(seed: int, extent: int, batch: int) -> Iterator[torch.Tensor]:
    """Yield batches (batch, 3, extent, extent) in [-1, 1] for ever; one process draws them."""
    loader = DataLoader(_Crops(seed, extent), batch_size=batch, num_workers=1, prefetch_factor=4)
    yield from loader
