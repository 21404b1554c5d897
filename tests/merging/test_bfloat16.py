"""The machine code for bfloat16, against numpy's float32 and float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.bfloat16 import inner, weighted_sum
from merging.numbers import narrow, widen

EVERY_BFLOAT16 = np.arange(1 << 16, dtype=np.uint16)
LENGTHS = [0, 1, 31, 32, 33, 95, 1023, 1024, 1025, 1056, 5000]
ONE = narrow(np.ones(1, np.float32), "BF16")


def _drawn(n: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return narrow(draw.normal(size=n).astype(np.float32), "BF16")


def _in_numpy(parts: list[np.ndarray], weights: list[float]) -> np.ndarray:
    total = widen(parts[0], "BF16") * np.float32(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total = total + widen(part, "BF16") * np.float32(weight)
    return narrow(total, "BF16")


@pytest.mark.parametrize("n", LENGTHS)
def test_the_inner_product_is_that_of_float64(n):
    a, b = _drawn(n, 0), _drawn(n, 1)
    x, y = (widen(each, "BF16").astype(np.float64) for each in (a, b))
    assert inner(a, b) == inner(b, a) == pytest.approx(x @ y, abs=1e-7 * n)
    assert inner(a, a) == pytest.approx(x @ x, rel=3e-7)


@pytest.mark.parametrize("n", [1, 32, 1024, 5000])
def test_every_place_counts_once(n):
    powers = narrow(2.0 ** (np.arange(n) % 16).astype(np.float32), "BF16")
    ones = np.full(n, ONE[0])
    assert inner(powers, ones) == widen(powers, "BF16").sum()  # exact in float32


def test_inner_products_that_overflow_or_are_none_are_not_finite():
    huge, none = (np.full(100, bits, np.uint16) for bits in (0x7F00, 0x7FC0))
    assert inner(huge, huge) == np.inf
    assert np.isnan(inner(none, huge))


@pytest.mark.parametrize("weights", [[1.0], [0.3, 0.9], [-0.7, 0.2, 1.1], [0.0]])
@pytest.mark.parametrize("n", LENGTHS)
def test_the_sum_is_numpys_bit_by_bit_and_lies_in_the_first_part(n, weights):
    parts = [_drawn(n, seed) for seed in range(len(weights))]
    wanted, others = _in_numpy(parts, weights), [part.copy() for part in parts[1:]]
    got = weighted_sum(parts, weights)
    assert got is parts[0] and np.array_equal(got, wanted)
    assert all(map(np.array_equal, parts[1:], others))


def test_nothing_behind_the_parts_is_written():
    whole = np.full(64, ONE[0])
    weighted_sum([whole[:33], _drawn(33, 0)], [0.5, 0.5])
    assert (whole[33:] == ONE[0]).all()


def test_every_bfloat16_keeps_its_bits():
    finite = EVERY_BFLOAT16[np.isfinite(widen(EVERY_BFLOAT16, "BF16"))]
    assert np.array_equal(weighted_sum([finite.copy()], [1.0]), finite)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.floats(width=32, allow_nan=False))
def test_any_float32_is_rounded_as_by_narrowing(number):
    assert weighted_sum([ONE.copy()], [number]) == narrow(np.array([number], np.float32), "BF16")


def test_ties_go_to_the_even_number():
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001], np.uint32).view(np.float32)
    rounded = [int(weighted_sum([ONE.copy()], [tie])[0]) for tie in ties.tolist()]
    assert rounded == [0x3F80, 0x3F82, 0x3F81]


def test_a_part_less_itself_is_nothing():
    """Products and sums are not fused, so nothing of a rounding is left over."""
    a = _drawn(5000, 0)
    assert not widen(weighted_sum([a.copy(), a], [0.3, -0.3]), "BF16").any()


def test_threads_that_ask_at_once_find_the_same():
    a, b = _drawn(100_000, 0), _drawn(100_000, 1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: inner(a, b), range(64)))
    assert len(set(found)) == 1
