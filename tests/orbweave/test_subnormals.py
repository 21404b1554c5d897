"""Subnormal numbers are zero inside the block and numbers again behind it."""

from __future__ import annotations

import pytest

from orbweave.subnormals import without_subnormals


def test_subnormals_are_zero_while_the_block_runs_and_no_longer() -> None:
    import torch

    tiny = torch.full((8,), 1e-20)
    with pytest.raises(ValueError), without_subnormals():
        assert (tiny * 1e-20).count_nonzero() == 0
        raise ValueError
    assert (tiny * 1e-20).count_nonzero() == 8  # 1e-40, below the smallest normal number
