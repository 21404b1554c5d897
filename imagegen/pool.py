"""The latest drawings of a training, made by a process ahead of it and shown a few times each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["Pool"]

Sample = tuple[Tensor, Tensor]
"""A drawing and what is right for it."""


class _Made(IterableDataset[Sample]):
    """What a function makes, in the process of the loader."""

    def __init__(self, samples: Callable[[], Iterator[Sample]]) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[Sample]:
        return self._samples()


class Pool:
    """Drawings that are kept; each batch is what just came and others by lot."""

    def __init__(
        self,
        samples: Callable[[], Iterator[Sample]],
        lots: Callable[[int, int], Tensor],
        *,
        size: int,
        batch: int,
        fresh: int,
        at_first: int = 0,
    ) -> None:
        """Start the process that draws.

        Args:
            samples: Called there; yields drawings without end, all of one shape.
            lots: Given how many are kept and how many are wanted, says which: places, (wanted,).
            size: Drawings kept, the latest.
            batch: Drawings of a batch.
            fresh: Of these, drawn anew; at most `size`.
            at_first: Drawings made before the first batch.
        """
        loader = DataLoader(_Made(samples), batch_size=fresh, num_workers=1, prefetch_factor=8)
        self._stream = iter(loader)
        self._lots, self._size, self._n_old = lots, size, batch - fresh
        self._kept: list[Tensor] = []
        self._n_drawn = 0
        while self._n_drawn < at_first:
            self._take()

    def batch(self) -> Sample:
        """Return drawings (batch, ...) and what is right for them; those that just came first."""
        new = self._take()
        old = self._lots(min(self._n_drawn, self._size), self._n_old)
        drawings, right = (kept[torch.cat([new, old])] for kept in self._kept)
        return drawings, right

    def _take(self) -> Tensor:
        """Put the next drawings in place of the oldest and return their places, (fresh,)."""
        came = next(self._stream)
        if not self._kept:
            self._kept = [part.new_empty(self._size, *part.shape[1:]) for part in came]
        places = torch.arange(self._n_drawn, self._n_drawn + len(came[0])) % self._size
        # Copied: what comes from another process keeps a file open as long as it lives.
        for kept, part in zip(self._kept, came, strict=True):
            kept[places] = part
        self._n_drawn += len(places)
        return places
