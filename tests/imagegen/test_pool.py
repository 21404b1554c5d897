"""The pool of drawings: what a batch is made of, what is kept, and what that costs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from imagegen.pool import Pool


def numbers() -> Iterator[tuple[Tensor, Tensor]]:
    for i in itertools.count():
        yield torch.tensor([i % 256], dtype=torch.uint8), torch.tensor(-float(i))


def first_places(n_kept: int, n: int) -> Tensor:
    return torch.arange(n)


def test_a_batch_is_what_just_came_and_kept_ones_by_lot() -> None:
    asked = []

    def lots(n_kept: int, n: int) -> Tensor:
        asked.append((n_kept, n))
        return first_places(n_kept, n)

    pool = Pool(numbers, lots, size=5, batch=4, fresh=2)
    batches = [pool.batch() for _ in range(3)]
    # The sixth drawing has taken the place of the first.
    assert [d.flatten().tolist() for d, _ in batches] == [[0, 1, 0, 1], [2, 3, 0, 1], [4, 5, 5, 1]]
    assert asked == [(2, 2), (4, 2), (5, 2)]
    for drawings, right in batches:
        assert drawings.dtype == torch.uint8 and drawings.shape == (4, 1)
        assert torch.equal(right, -drawings[:, 0].float())


def test_a_pool_can_be_filled_before_the_first_batch() -> None:
    pool = Pool(numbers, first_places, size=100, batch=4, fresh=2, at_first=5)
    assert pool.batch()[0].flatten().tolist() == [6, 7, 0, 1]


def test_drawings_that_are_kept_keep_no_file_open() -> None:
    pool = Pool(numbers, first_places, size=400, batch=4, fresh=2, at_first=20)
    before = len(os.listdir("/dev/fd"))
    for _ in range(190):
        pool.batch()
    assert len(os.listdir("/dev/fd")) < before + 50
