"""The arithmetic of merging against float64 oracles and its laws."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from merging.kernel import (
    combine,
    gram,
    karcher,
    karcher_weights,
    lerp,
    slerp,
    slerp_weights,
    weighted_sum,
)

TS = [0.0, 0.125, 0.4, 0.5, 0.9, 1.0]


def _pair(seed: int, *, shape: tuple[int, ...] = (7, 11), ratio: float = 1.7):
    draw = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(shape, generator=draw) for _ in range(2))
    return a, ratio * b


def _oracle(a: torch.Tensor, b: torch.Tensor, t: float, form: str) -> np.ndarray:
    """Shoemake's formula in float64, on the tensors or on unit vectors."""
    x, y = a.double().numpy().ravel(), b.double().numpy().ravel()
    m, n = np.linalg.norm(x), np.linalg.norm(y)
    omega = np.arccos(x @ y / m / n)
    if form == "paper":
        x, y = x / m, y / n
    z = (np.sin((1 - t) * omega) * x + np.sin(t * omega) * y) / np.sin(omega)
    return (z * (m ** (1 - t) * n**t if form == "paper" else 1)).reshape(a.shape)


@pytest.mark.parametrize("form", ["mergekit", "paper"])
@pytest.mark.parametrize("t", TS)
@pytest.mark.parametrize("seed", range(5))
def test_slerp_agrees_with_float64(seed, t, form):
    a, b = _pair(seed)
    np.testing.assert_allclose(slerp(a, b, t, form=form), _oracle(a, b, t, form), atol=2e-6)


@pytest.mark.parametrize("form", ["mergekit", "paper"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_ends_return_the_parents_bit_by_bit(dtype, form):
    a, b = (tensor.to(dtype) for tensor in _pair(0))
    assert torch.equal(slerp(a, b, 0.0, form=form), a)
    assert torch.equal(slerp(a, b, 1.0, form=form), b)
    assert torch.equal(lerp(a, b, 0.0), a) and torch.equal(lerp(a, b, 1.0), b)


@pytest.mark.parametrize("form", ["mergekit", "paper"])
@pytest.mark.parametrize("t", TS)
def test_slerp_is_symmetric(t, form):
    a, b = _pair(3)
    torch.testing.assert_close(slerp(a, b, t, form=form), slerp(b, a, 1 - t, form=form))


@pytest.mark.parametrize("t", TS)
@pytest.mark.parametrize("ratio", [0.01, 1.0, 40.0])
@pytest.mark.parametrize("nearness", [0.0, 0.3, 3.0, 300.0])
def test_the_papers_form_keeps_the_geometric_mean_of_the_lengths(ratio, t, nearness):
    a, b = _pair(4, ratio=ratio)
    b = b + ratio * nearness * a
    law = a.norm() ** (1 - t) * b.norm() ** t
    assert slerp(a, b, t, form="paper").norm() == pytest.approx(float(law), rel=1e-5)


@pytest.mark.parametrize("t", TS)
def test_the_forms_agree_where_the_parents_are_equally_long(t):
    a, b = _pair(5)
    b = b * (a.norm() / b.norm())
    torch.testing.assert_close(slerp(a, b, t), slerp(a, b, t, form="paper"), atol=1e-6, rtol=1e-5)


def test_half_way_between_two_axes_by_hand():
    merged = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 4.0]), 0.5)
    torch.testing.assert_close(merged, torch.tensor([1.0, 4.0]) / math.sqrt(2))
    merged = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 4.0]), 0.5, form="paper")
    torch.testing.assert_close(merged, torch.tensor([math.sqrt(2), math.sqrt(2)]))


@pytest.mark.parametrize("form", ["mergekit", "paper"])
@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, -3.0])
def test_parallel_and_opposite_parents_give_the_straight_line(factor, form):
    a = _pair(6)[0]
    merged = slerp(a, factor * a, 0.25, form=form)
    if form == "mergekit":
        torch.testing.assert_close(merged, lerp(a, factor * a, 0.25))
    elif factor > 0:
        torch.testing.assert_close(merged, a * factor**0.25)
    assert merged.isfinite().all()


@pytest.mark.parametrize("form", ["mergekit", "paper"])
def test_zero_tensors_are_safe(form):
    a, zero = _pair(7)[0], torch.zeros(7, 11)
    assert torch.equal(slerp(zero, zero, 0.3, form=form), zero)
    factor = math.sin(0.3 * math.pi / 2) if form == "mergekit" else 0.3
    torch.testing.assert_close(slerp(zero, a, 0.3, form=form), factor * a)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 4), (3, 0)])
def test_scalars_and_empty_tensors_are_merged(shape):
    a, b = torch.ones(shape), 3 * torch.ones(shape)
    assert torch.equal(slerp(a, b, 0.5), 2 * torch.ones(shape))


def test_the_parents_are_left_alone_and_need_not_be_contiguous():
    a, b = (tensor.T for tensor in _pair(8))
    before = a.clone(), b.clone()
    merged = slerp(a, b, 0.4)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])
    torch.testing.assert_close(merged, slerp(a.contiguous(), b.contiguous(), 0.4))


def test_the_size_of_the_chunks_does_not_matter():
    a, b = (tensor.reshape(-1) for tensor in _pair(9, shape=(4096,)))
    reads = [lambda start, stop, x=x: x[start:stop].numpy() for x in (a, b)]
    whole = gram(reads, 4096, chunk=4096)
    for chunk in (101, 1024, 4095, 1 << 20):
        np.testing.assert_allclose(gram(reads, 4096, chunk=chunk), whole, rtol=1e-6, atol=1e-4)
        parts: dict[int, np.ndarray] = {}
        combine(reads, (0.3, 0.8), 4096, parts.__setitem__, chunk=chunk)
        merged = torch.from_numpy(np.concatenate([parts[start] for start in sorted(parts)]))
        torch.testing.assert_close(merged, 0.3 * a + 0.8 * b)


@pytest.mark.parametrize("weights", [(0.3, 0.8, -0.2), (0.0, 0.7, 0.1), (1.0, 0.0, 0.0), (0, 0, 0)])
def test_the_sum_may_take_the_place_of_what_was_read(weights):
    """Each parent read into its own row of the scratch, the sum written over the first of them."""
    parents = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    rows = np.empty((3, 128), np.float32)

    def reader(i):
        def read(start, stop):
            rows[i, : stop - start] = parents[i, start:stop]
            return rows[i, : stop - start]

        return read

    merged = np.empty(1000, np.float32)

    def write(start, chunk):
        merged[start : start + len(chunk)] = chunk
        rows[:2] = np.nan  # which it may

    add = partial(weighted_sum, scratch=rows[:2])
    combine([reader(i) for i in range(3)], weights, 1000, write, chunk=128, add=add)
    plain = [lambda start, stop, x=x: x[start:stop] for x in parents]
    wanted: dict[int, np.ndarray] = {}
    combine(plain, weights, 1000, wanted.__setitem__)
    assert np.array_equal(merged, wanted[0])


def test_inner_products_of_near_parents_keep_their_angle():
    draw = torch.Generator().manual_seed(0)
    a = 0.02 * torch.randn(300_000, generator=draw)
    b = a + 0.0005 * torch.randn(300_000, generator=draw)
    products = gram([lambda s, e: a[s:e].numpy(), lambda s, e: b[s:e].numpy()], len(a))
    x, y = a.double().numpy(), b.double().numpy()
    assert np.abs(products / [[x @ x, x @ y], [y @ x, y @ y]] - 1).max() < 1e-7


def test_float64_is_kept():
    a, b = (tensor.double() for tensor in _pair(10))
    np.testing.assert_allclose(slerp(a, b, 0.4), _oracle(a, b, 0.4, "mergekit"), atol=1e-13)


@pytest.mark.parametrize("t", [-0.1, 1.01, math.nan])
def test_t_outside_the_arc_is_refused(t):
    with pytest.raises(ValueError, match=r"wanted t in \[0, 1\], got"):
        slerp(torch.ones(2), torch.ones(2), t)
    with pytest.raises(ValueError, match="wanted t in"):
        lerp(torch.ones(2), torch.ones(2), t)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"tensors of one shape, got \(2,\), \(3,\)"):
        slerp(torch.ones(2), torch.ones(3), 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="wanted finite weights"):
        slerp(torch.tensor([1.0, bad]), torch.ones(2), 0.5)


# ---------------------------------------------------------------- more than two parents


@pytest.mark.parametrize("t", TS)
@pytest.mark.parametrize("seed", range(3))
def test_the_spherical_mean_of_two_is_their_slerp(seed, t):
    a, b = _pair(seed)
    mean = karcher([a, b], [1 - t, t])
    torch.testing.assert_close(mean, slerp(a, b, t, form="paper"), atol=1e-5, rtol=1e-5)


def test_the_spherical_mean_balances_the_pulls_of_all_parents():
    """At the mean the weighted logarithms sum to nothing (Karcher 1977): checked in R^n."""
    draw = np.random.default_rng(0)
    parents, shares = draw.normal(size=(4, 30)), np.array([0.1, 0.2, 0.3, 0.4])
    mean = karcher([torch.tensor(p) for p in parents], list(shares)).numpy()
    point = mean / np.linalg.norm(mean)
    units = parents / np.linalg.norm(parents, axis=1, keepdims=True)
    cosines = units @ point
    logs = (units - np.outer(cosines, point)) * (np.arccos(cosines) / np.sqrt(1 - cosines**2))[
        :, None
    ]
    assert np.linalg.norm(shares @ logs) < 1e-6
    lengths = np.linalg.norm(parents, axis=1)
    assert np.linalg.norm(mean) == pytest.approx(float(np.prod(lengths**shares)))


def test_equal_axes_meet_in_the_middle():
    axes = list(torch.eye(3))
    torch.testing.assert_close(karcher(axes, [1, 1, 1]), torch.full((3,), 3**-0.5))


def test_zero_and_opposite_parents_have_a_mean():
    a = _pair(0)[0]
    torch.testing.assert_close(karcher([a, torch.zeros_like(a), a], [1, 1, 1]), a)
    assert karcher([a, -a], [1, 1]).isfinite().all()
    assert torch.equal(karcher([0 * a, 0 * a], [1, 1]), 0 * a)


def test_the_form_chooses_the_length_of_the_mean():
    products = np.array([[1.0, 0.0], [0.0, 4.0]])
    for form, length in (("paper", math.sqrt(2)), ("mergekit", 1.5)):
        on_a, on_b = karcher_weights(products, [1, 1], form)
        assert math.hypot(on_a, 2 * on_b) == pytest.approx(length)


@pytest.mark.parametrize("shares", [[0, 0], [-1, 2], [1], [1, 1, 1]])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="wanted 2 shares, none negative"):
        karcher([torch.ones(2), torch.zeros(2)], shares)


def test_weights_of_a_straight_line_beyond_the_threshold():
    cos = 0.99951
    products = np.array([[1.0, cos], [cos, 1.0]])
    assert slerp_weights(products, 0.3) == (0.7, 0.3)
    products[0, 1] = products[1, 0] = 0.9994
    assert slerp_weights(products, 0.3) != (0.7, 0.3)
