"""Stored numbers and wide ones, against torch's conversions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.numbers import (
    FLOATS,
    STORED,
    TORCH_NAMES,
    largest,
    narrow,
    widen,
)

EVERY_BFLOAT16 = np.arange(1 << 16, dtype=np.uint16)


def _torch(stored: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16)


def test_every_bfloat16_is_widened_as_torch_does():
    wanted = _torch(EVERY_BFLOAT16).float().numpy()
    assert np.array_equal(widen(EVERY_BFLOAT16, "BF16").view(np.uint32), wanted.view(np.uint32))


def test_every_bfloat16_comes_back():
    numbers = widen(EVERY_BFLOAT16, "BF16")
    are_numbers = ~np.isnan(numbers)
    back = narrow(numbers, "BF16")
    assert np.array_equal(back[are_numbers], EVERY_BFLOAT16[are_numbers])
    assert np.isnan(widen(back, "BF16")[~are_numbers]).all()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_any_bits_are_rounded_as_torch_does(bits):
    numbers = np.array(bits, np.uint32).view(np.float32)
    before = numbers.copy()
    for dtype in ("BF16", "F16"):
        wanted = torch.from_numpy(numbers).to(getattr(torch, TORCH_NAMES[dtype])).float().numpy()
        assert np.array_equal(widen(narrow(numbers, dtype), dtype), wanted, equal_nan=True)
    assert np.array_equal(numbers, before, equal_nan=True)


def test_ties_go_to_the_even_number():
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    assert narrow(ties, "BF16").tolist() == [0x3F80, 0x3F82, 0x3F81]


def test_numbers_that_are_none_stay_none():
    """Rounding would carry the first of them over to minus zero, the second to infinity."""
    numbers = np.array([0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(widen(narrow(numbers, "BF16"), "BF16")).all()


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_the_largest_number_is_torchs(dtype):
    assert largest(dtype) == torch.finfo(getattr(torch, TORCH_NAMES[dtype])).max


def test_every_stored_type_has_torchs_size():
    assert STORED.keys() == TORCH_NAMES.keys()
    for dtype, kind in STORED.items():
        assert np.dtype(kind).itemsize == getattr(torch, TORCH_NAMES[dtype]).itemsize
