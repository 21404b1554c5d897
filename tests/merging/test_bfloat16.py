"""The machine code for bfloat16, against numpy's float32 and float64."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.bfloat16 import _compiled, inner, weighted_sum
from merging.numbers import narrow, widen
from orbweave.errors import ModelError

EVERY_BFLOAT16 = np.arange(1 << 16, dtype=np.uint16)
LENGTHS = [0, 1, 31, 32, 33, 95, 1023, 1024, 1025, 1056, 5000]
ONE = narrow(np.ones(1, np.float32), "BF16")


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """The machine code as in a new process, before the test and after it."""
    _compiled.cache_clear()
    yield
    _compiled.cache_clear()


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


def test_what_is_too_large_for_its_dtype_is_infinite_or_no_number():
    largest = np.full(33, 0x7F7F, np.uint16)
    both = widen(weighted_sum([largest.copy(), largest], [1.0, 1.0]), "BF16")
    assert (both == np.inf).all()
    none = widen(weighted_sum([largest.copy(), largest], [2.0, -2.0]), "BF16")
    assert np.isnan(none).all()  # 2 x is infinite in float32, before anything is taken away


def test_threads_that_ask_at_once_compile_once(uncompiled):
    a, n = _drawn(100, 0), 32
    start = Barrier(n)
    with ThreadPoolExecutor(n) as pool:
        found = list(pool.map(lambda _: start.wait() >= 0 and inner(a, a), range(n)))
    assert len(set(found)) == 1 and _compiled.cache_info().misses == 1


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="compiles for x86-64")
def test_the_oldest_processor_finds_the_same_bits(uncompiled, monkeypatch):
    import llvmlite.binding as llvm

    a, b = _drawn(5000, 0), _drawn(5000, 1)
    here = inner(a, b), weighted_sum([a.copy(), b], [0.3, 0.9]).tobytes()
    _compiled.cache_clear()
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: "x86-64")
    monkeypatch.setattr(llvm, "get_host_cpu_features", llvm.FeatureMap)
    assert (inner(a, b), weighted_sum([a.copy(), b], [0.3, 0.9]).tobytes()) == here


def test_a_missing_compiler_is_told(uncompiled, monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    with pytest.raises(ModelError, match=r"wanted to compile .* found .*; install llvmlite again"):
        inner(ONE, ONE)


FORBIDDEN = """
import ctypes
import numpy as np
from merging.bfloat16 import inner
from orbweave.errors import ModelError
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, since Linux 6.3
    raise SystemExit("the system cannot forbid it")
try:
    inner(np.ones(32, np.uint16), np.ones(32, np.uint16))
except ModelError as err:
    print(err)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to forbid it")
def test_a_system_that_forbids_machine_code_is_told_of():
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True)
    if "the system cannot forbid it" in done.stderr:
        pytest.skip("this Linux cannot forbid it")
    assert done.returncode == 0, done.stderr
    assert "the system forbids programs to run code they have made" in done.stdout
    assert "set dtype: float32 and out_dtype: bfloat16" in done.stdout


def test_threads_that_ask_at_once_find_the_same():
    a, b = _drawn(100_000, 0), _drawn(100_000, 1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: inner(a, b), range(64)))
    assert len(set(found)) == 1
