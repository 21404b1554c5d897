"""Laws of the arithmetic that hold for any tensors, searched for counterexamples.

What rounding may cost is said once, in `_slack`: inner products are right to some parts in
10^7, and between nearly opposite parents an angle magnifies that, as in any other program.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from merging.kernel import COLLINEAR_COS, combine, gram, lerp, slerp, slerp_weights
from merging.plan import Source, Step
from merging.stream import merge_into_memory
from merging.tensors import LoadedWeights

LAW = settings(max_examples=80, deadline=None, derandomize=True, database=None)
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
FORMS = st.sampled_from(["mergekit", "paper"])
TS = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0, 1e-12, 1 - 1e-12])
SIZES = st.sampled_from([1, 2, 3, 17, 64, 301])


@st.composite
def pairs(draw, dtypes=DTYPES, cosines=(-1.0, 1.0), sizes=SIZES) -> tuple[Tensor, Tensor]:
    """Two tensors of any lengths and any angle between them, rounded to one dtype."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = cosines
    near = st.floats(1, 6).map(lambda u: 1 - 10**-u)  # most bends lie close to 1 and -1
    near |= near.map(lambda cos: -cos)
    cos = draw(st.floats(low, high) | near.filter(lambda cos: low <= cos <= high))
    n = draw(sizes)
    if n == 1:  # a number knows no angle but these two
        cos = 1.0 if cos >= 0 else -1.0
    along = _unit(rng.normal(size=n))
    across = rng.normal(size=n)
    across = _unit(across - (across @ along) * along)
    lengths = [10 ** draw(st.floats(-2, 2)) for _ in "ab"]
    parents = along, cos * along + np.sqrt(max(0.0, 1 - cos**2)) * across
    dtype = draw(st.sampled_from(dtypes))
    a, b = (torch.tensor(s * x).to(dtype) for s, x in zip(lengths, parents, strict=True))
    return a, b


@st.composite
def odd_pairs(draw) -> tuple[Tensor, Tensor]:
    """Two tensors element by element: zeros, denormals, parallel and opposite ones, one number."""
    dtype, n = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 5))
    limit = 1e3 if dtype == torch.float16 else 1e15
    numbers = st.floats(-limit, limit) | st.sampled_from([0.0, -0.0, 1e-40, 1e-45, 6e-8, 1.0])
    a = torch.tensor([draw(numbers) for _ in range(n)], dtype=torch.float64)
    b = draw(
        st.sampled_from([0.0, 1.0, -1.0, 0.5, -3.0, 1e-20]).map(lambda factor: factor * a)
        | st.lists(numbers, min_size=n, max_size=n).map(lambda x: torch.tensor(x).double())
    )
    return a.to(dtype), b.to(dtype)


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x)
    return x / length if length > 1e-12 else np.zeros_like(x)


def _wide(x: Tensor) -> np.ndarray:
    return x.double().numpy()


def _cos(a: Tensor, b: Tensor) -> float:
    return float(_unit(_wide(a)) @ _unit(_wide(b)))


def _slack(a: Tensor, b: Tensor) -> float:
    """How far a float32 result may be off, in units of the longer parent."""
    return 2e-6 + 1e-6 / max(1 + _cos(a, b), 1e-7)


def _assert_close(got: Tensor, wanted: np.ndarray, a: Tensor, b: Tensor) -> None:
    limits = torch.finfo(got.dtype)
    scale = max(np.linalg.norm(_wide(a)), np.linalg.norm(_wide(b)))
    np.testing.assert_allclose(
        _wide(got), wanted, rtol=limits.eps, atol=_slack(a, b) * scale + limits.tiny
    )


def _formula(a: Tensor, b: Tensor, t: float, form: str) -> np.ndarray:
    """The two formulas as they are printed, in float64; for parents with a direction."""
    x, y = _wide(a), _wide(b)
    m, n = np.linalg.norm(x), np.linalg.norm(y)
    cos = np.clip(x @ y / m / n, -1, 1)
    if form == "mergekit" and abs(cos) > COLLINEAR_COS:
        return (1 - t) * x + t * y
    omega = np.arccos(cos)
    if form == "paper":
        x, y = x / m, y / n
    arc = np.sin((1 - t) * omega) / np.sin(omega) * x + np.sin(t * omega) / np.sin(omega) * y
    return m ** (1 - t) * n**t * arc if form == "paper" else arc


def streamed(a: Tensor, b: Tensor, t: float, *, form: str = "mergekit") -> Tensor:
    """SLERP as files are merged: two of bfloat16 by machine code."""
    weights = {name: LoadedWeights({"w": tensor}) for name, tensor in (("a", a), ("b", b))}
    info = weights["a"].tensors["w"]
    way = "slerp-paper" if form == "paper" else "slerp"
    sources = tuple(Source(name, "w") for name in weights)
    step = Step("w", sources, (1 - t, t), way, info, info.dtype)
    return merge_into_memory([step], weights)["w"]


BOTH_WAYS = pytest.mark.parametrize("slerp", [slerp, streamed])


@BOTH_WAYS
@LAW
@given(pairs() | odd_pairs(), FORMS)
def test_the_ends_are_the_parents(slerp, pair, form):
    a, b = pair
    assert torch.equal(slerp(a, b, 0.0, form=form), a)
    assert torch.equal(slerp(a, b, 1.0, form=form), b)
    assert torch.equal(lerp(a, b, 0.0), a) and torch.equal(lerp(a, b, 1.0), b)


@BOTH_WAYS
@LAW
@given(pairs(cosines=(-0.9999, 0.9999), sizes=st.sampled_from([2, 3, 17, 301])), TS, FORMS)
def test_both_forms_agree_with_their_formula_in_float64(slerp, pair, t, form):
    a, b = pair
    assume(abs(_cos(a, b)) < 0.99995)
    assume(abs(abs(_cos(a, b)) - COLLINEAR_COS) > 1e-5)
    _assert_close(slerp(a, b, t, form=form), _formula(a, b, t, form), a, b)


@LAW
@given(pairs(dtypes=[torch.float64], cosines=(-0.999, 0.999)), TS, FORMS)
def test_float64_agrees_with_the_formula_to_twelve_digits(pair, t, form):
    a, b = pair
    assume(len(a) > 1)
    wanted = _formula(a, b, t, form)
    # Between opposites the arc is longer than its ends, and so is the rounding.
    scale = max(a.norm().item(), b.norm().item(), np.linalg.norm(wanted))
    np.testing.assert_allclose(_wide(slerp(a, b, t, form=form)), wanted, rtol=0, atol=1e-12 * scale)


@LAW
@given(pairs(), TS, FORMS)
def test_the_way_back_is_the_same_way(pair, t, form):
    a, b = pair
    assume(abs(abs(_cos(a, b)) - COLLINEAR_COS) > 1e-5 and _cos(a, b) > -0.9999)
    _assert_close(slerp(a, b, t, form=form), _wide(slerp(b, a, 1 - t, form=form)), a, b)


@BOTH_WAYS
@LAW
@given(pairs() | odd_pairs(), FORMS)
def test_half_way_is_the_same_from_both_sides_bit_by_bit(slerp, pair, form):
    a, b = pair
    assert torch.equal(slerp(a, b, 0.5, form=form), slerp(b, a, 0.5, form=form))


@LAW
@given(pairs(dtypes=[torch.float32, torch.float64], cosines=(-0.999, 1.0)), TS)
def test_the_papers_form_has_the_geometric_mean_of_the_lengths(pair, t):
    a, b = pair
    assume(_cos(a, b) > -0.9999)
    law = np.linalg.norm(_wide(a)) ** (1 - t) * np.linalg.norm(_wide(b)) ** t
    got = np.linalg.norm(_wide(slerp(a, b, t, form="paper")))
    assert got == pytest.approx(law, rel=_slack(a, b))


@LAW
@given(pairs(dtypes=[torch.float32, torch.float64], cosines=(-0.999, COLLINEAR_COS - 1e-5)), TS)
def test_the_forms_agree_where_the_parents_are_equally_long(pair, t):
    a, b = pair
    assume(len(a) > 1)
    b = (b.double() * (a.double().norm() / b.double().norm())).to(b.dtype)
    _assert_close(slerp(a, b, t), _wide(slerp(a, b, t, form="paper")), a, b)


@LAW
@given(pairs(dtypes=[torch.float64], cosines=(-0.99, 0.99)), TS, TS)
def test_part_of_the_way_to_a_point_on_the_arc_is_on_the_arc(pair, t, part):
    a, b = pair
    assume(len(a) > 1)
    there = slerp(a, b, t, form="paper")
    got, wanted = slerp(a, there, part, form="paper"), slerp(a, b, part * t, form="paper")
    scale = max(a.norm(), b.norm()).item()
    np.testing.assert_allclose(_wide(got), _wide(wanted), rtol=0, atol=1e-7 * scale)


@BOTH_WAYS
@LAW
@given(odd_pairs(), TS, FORMS)
def test_no_pair_of_finite_tensors_gives_anything_but_numbers(slerp, pair, t, form):
    a, b = pair
    before = a.clone(), b.clone()
    merged = slerp(a, b, t, form=form)
    assert merged.isfinite().all()
    assert (merged.shape, merged.dtype) == (a.shape, a.dtype)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


@LAW
@given(pairs(dtypes=[torch.float32, torch.float64]), TS)
def test_a_tensor_too_short_for_a_direction_counts_as_orthogonal(pair, t):
    """As in mergekit, where the limit is a length of 1e-8."""
    a, b = pair
    sine = np.sin([(1 - t) * np.pi / 2, t * np.pi / 2])
    wanted = sine[0] * 1e-13 * _wide(a) + sine[1] * _wide(b)
    np.testing.assert_allclose(_wide(slerp(1e-13 * a, b, t)), wanted, rtol=1e-6, atol=1e-17)


@LAW
@given(pairs(), st.integers(-10, 40), TS, FORMS)
def test_scaling_both_parents_scales_the_merge_bit_by_bit(pair, power, t, form):
    """By powers of two, which round nothing: no length is special between 1e-5 and 1e14."""
    a, b = (x if x.dtype == torch.float64 else x.float() for x in pair)
    scale = 2.0**power
    wanted = scale * slerp(a, b, t, form=form)
    assert torch.equal(slerp(scale * a, scale * b, t, form=form), wanted)


@LAW
@given(pairs(dtypes=[torch.float64]), TS, FORMS)
def test_lengths_of_1e30_are_merged_in_float64(pair, t, form):
    a, b = pair
    huge = slerp(2.0**100 * a, 2.0**100 * b, t, form=form)
    assert torch.equal(huge, 2.0**100 * slerp(a, b, t, form=form))


@LAW
@given(pairs(dtypes=[torch.bfloat16, torch.float32]), TS, FORMS)
def test_lengths_of_1e30_are_refused_in_narrow_types(pair, t, form):
    """No healthy weight is so large that its square overflows; a flipped bit makes it so."""
    a, b = pair
    with pytest.raises(ValueError, match="too large ones to square"):
        slerp(2.0**100 * a, b, t, form=form)


@LAW
@given(pairs(), TS, FORMS, st.integers(1, 400))
def test_the_size_of_the_chunks_does_not_show(pair, t, form, chunk):
    """The sum is the same bit by bit; the inner products to the last digits of float32."""
    a = pair[0]
    wide = [(x if x.dtype == torch.float64 else x.float()).numpy() for x in pair]
    reads = [lambda start, stop, x=x: x[start:stop] for x in wide]
    products, whole = gram(reads, len(a), chunk=chunk), gram(reads, len(a))
    assert np.abs(products - whole).max() <= 3e-7 * whole.diagonal().max()
    weights = slerp_weights(whole, t, form)
    merged, chunks = np.empty(len(a)), np.empty(len(a))
    combine(reads, weights, len(a), _into(merged))
    combine(reads, weights, len(a), _into(chunks), chunk=chunk)
    assert np.array_equal(merged, chunks)


def _into(result: np.ndarray):
    def write(start: int, chunk: np.ndarray) -> None:
        result[start : start + len(chunk)] = chunk

    return write
