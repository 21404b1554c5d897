"""How weight tensors become one: a few numbers for a tensor, then a weighted sum.

SLERP, straight lines and spherical means all give w_1 a_1 + ... + w_k a_k, and the weights w
follow from the inner products of the tensors alone. So a tensor is gone through twice, chunk by
chunk: once for the k x k matrix of inner products (`gram`), once for the sum (`combine`).
Scratch memory does not grow with the tensor, and another t costs the second pass only.

A tensor counts as one long vector, as in mergekit. Symbols: a, b parents; t in [0, 1] the place
between them; omega the angle between a and b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from merging.numbers import Array

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "COLLINEAR_COS",
    "Form",
    "PARALLEL",
    "ZERO_NORM",
    "combine",
    "cosine",
    "gram",
    "inner",
    "karcher",
    "karcher_weights",
    "lerp",
    "slerp",
    "slerp_weights",
    "weighted_sum",
]

Form = Literal["mergekit", "paper"]
"""`mergekit`: sine weights on the tensors as they are. `paper`: sine weights on unit vectors,
then the length |a|^(1-t) |b|^t. The two agree where the parents are equally long."""
Read = Callable[[int, int], Array]
"""Elements [start, stop) of one flattened parent, as what multiplies and adds them takes them. Not
looked at after the next call, so that a reader may use one array again and again."""
Inner = Callable[[Array, Array], float]
"""The inner product of two chunks, which are not changed."""
Add = Callable[[Sequence[Array], Sequence[float]], Array]
"""The sum of chunks, each times its weight; the chunks may be written over."""

CHUNK = 1 << 18
"""Elements worked on at a time. Smaller ones cost more calls, during which Python's threads wait
for each other; larger ones leave the processor's cache. The fastest of 2^15 to 2^18."""
COLLINEAR_COS = 0.9995
"""Above this |cos| mergekit's form is a straight line (mergekit 0.1.5, slerp)."""
PARALLEL = 1e-7
"""Below this 1 - |cos| no float32 tensor has a usable angle."""
ZERO_NORM = 1e-8
"""A tensor this short has no direction (mergekit 0.1.5, slerp)."""
_ROW = 1024
"""Products summed in their own dtype, on 16 or more lanes, before float64 takes over."""


def slerp(a: Tensor, b: Tensor, t: float, *, form: Form = "mergekit") -> Tensor:
    """Interpolate two weight tensors along the arc between their directions.

    Args:
        a: Weights at t = 0, shape (*s), any float dtype. Not modified.
        b: Weights at t = 1, same shape.
        t: Position on the arc, dimensionless, in [0, 1]; 0 and 1 return the parent exactly.
        form: Which of the two formulas, see `Form`.

    Returns:
        Shape (*s), dtype and device of a; computed in float32, or float64 if either is.

    Raises:
        ValueError: the shapes differ, t lies outside [0, 1], or a weight is not finite.

    Source: Shoemake, SIGGRAPH 1985; mergekit 0.1.5; arXiv 2409.03444, section on SLERP.
    """
    return _merged([a, b], lambda g: slerp_weights(g, t, form))


def lerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolate along the straight line, (1-t) a + t b; otherwise as `slerp`."""
    _check_t(t)
    return _merged([a, b], lambda g: (1 - t, t))


def karcher(tensors: Sequence[Tensor], shares: Sequence[float], *, form: Form = "paper") -> Tensor:
    """Return the weighted spherical mean of several tensors; see `karcher_weights`."""
    return _merged(tensors, lambda g: karcher_weights(g, shares, form))


def inner(a: Array, b: Array) -> float:
    """Return the inner product of two vectors; infinite or not a number if it overflows.

    Args:
        a: float32 or float64, shape (n,); not changed.
        b: Likewise.
    """
    whole = len(a) - len(a) % _ROW
    # Rows too short for BLAS to give them threads of its own, which would fight with ours.
    rows = np.vecdot(a[:whole].reshape(-1, _ROW), b[:whole].reshape(-1, _ROW))
    total = float(rows.sum(dtype=np.float64))
    return total + float(np.vecdot(a[whole:], b[whole:])) if whole < len(a) else total


def weighted_sum(
    parts: Sequence[Array], weights: Sequence[float], scratch: Array | None = None
) -> Array:
    """Return the sum of vectors, each times its weight.

    Args:
        parts: float32 or float64, shape (n,) each.
        weights: One per part.
        scratch: Shape (2, n) or more, the dtype of the parts; written over. The sum lies in its
            first row then, which may be the first part, as its second may be the second.
            Without it the sum is an array of its own.
    """
    sum_out, term_out = (None, None) if scratch is None else scratch[:, : len(parts[0])]
    total: Array = np.multiply(parts[0], weights[0], out=sum_out)
    # Not fused, so that w a - w a is 0 and order does not matter.
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total = np.add(total, np.multiply(part, weight, out=term_out), out=sum_out)
    return total


def gram(
    reads: Sequence[Read], n_elements: int, *, chunk: int = CHUNK, inner: Inner = inner
) -> Array:
    """Return the inner products of all pairs of k parents, shape (k, k), float64.

    Products are summed in float32 within a row of 1024 and in float64 between rows: at cos 0.9997
    the angle is right to a part in 10^5.
    """
    k = len(reads)
    total = np.zeros((k, k))
    with np.errstate(all="ignore"):  # what overflows is infinite or not a number then
        for start, stop in _spans(n_elements, chunk):
            parts = [read(start, stop) for read in reads]
            for i in range(k):
                for j in range(i, k):
                    total[i, j] += inner(parts[i], parts[j])
    return total + np.triu(total, 1).T


def combine(
    reads: Sequence[Read],
    weights: Sequence[float],
    n_elements: int,
    write: Callable[[int, Array], None],
    *,
    chunk: int = CHUNK,
    add: Add = weighted_sum,
) -> None:
    """Hand `write` the weighted sum of the parents, chunk after chunk.

    The sum is the same bit by bit, whatever the chunk.

    Args:
        reads: One per parent; a parent of weight 0 is not read.
        weights: One per parent.
        n_elements: Length of each flattened parent.
        write: Is given the place of a chunk's first element and what `add` made of the chunk.
        chunk: Elements at a time.
        add: Takes the chunks that were read.
    """
    used = [(read, weight) for read, weight in zip(reads, weights, strict=True) if weight]
    used = used or [(reads[0], 0.0)]
    for start, stop in _spans(n_elements, chunk):
        parts = [read(start, stop) for read, _ in used]
        write(start, add(parts, [weight for _, weight in used]))


def cosine(products: Array) -> float:
    """Return the cosine of the angle between parents 0 and 1, from their inner products.

    A zero tensor has no direction; like mergekit, it counts as orthogonal to everything.
    """
    length = [_norm(products, i) for i in (0, 1)]
    a, b = (norm if norm > ZERO_NORM else 1.0 for norm in length)
    return max(-1.0, min(1.0, float(products[0, 1]) / (a * b)))


def slerp_weights(products: Array, t: float, form: Form = "mergekit") -> tuple[float, float]:
    """Return the weights of a and b on the arc between them.

    Where the arc is not defined (parallel or opposite parents, and in the paper's form a zero
    parent) a straight line is taken.

    Args:
        products: Inner products of a and b, shape (2, 2), see `gram`.
        t: Position on the arc, in [0, 1].
        form: Which of the two formulas, see `Form`.

    Raises:
        ValueError: t lies outside [0, 1], or an inner product is not finite.
    """
    _check_t(t)
    _check_finite(products)
    a, b = _norm(products, 0), _norm(products, 1)
    if t in {0.0, 1.0} or (form == "paper" and min(a, b) <= ZERO_NORM):
        return 1 - t, t
    cos = cosine(products)
    edge = COLLINEAR_COS if form == "mergekit" else 1 - PARALLEL
    if abs(cos) > edge:
        on_a, on_b = 1 - t, t
    else:
        omega = math.acos(cos)
        on_a = math.sin((1 - t) * omega) / math.sin(omega)
        on_b = math.sin(t * omega) / math.sin(omega)
    if form == "paper":  # from unit vectors to the length a^(1-t) b^t
        on_a, on_b = on_a * (b / a) ** t, on_b * (a / b) ** (1 - t)
    return on_a, on_b


def karcher_weights(
    products: Array, shares: Sequence[float], form: Form = "paper"
) -> tuple[float, ...]:
    """Return the weights of the spherical mean: the point nearest to all directions.

    It minimises the sum of share x angle^2, and lies in the span of the parents, so it is found
    in coordinates, from their inner products alone. Of two parents it is their SLERP at
    t = second share. Zero parents have no direction and do not count for it.

    Args:
        products: Inner products of the k parents, shape (k, k), see `gram`.
        shares: k shares, not negative, not all 0; only their proportions count.
        form: Length of the result: `paper` takes the geometric mean of the parents' lengths,
            `mergekit` the arithmetic one.

    Raises:
        ValueError: a share is negative, all are 0, or an inner product is not finite.

    Source: Karcher, CPAM 30, 1977; mergekit 0.1.5, karcher, stops at 10 rounds, this at rest.
    """
    _check_finite(products)
    norms = np.sqrt(products.diagonal().clip(min=0))
    share = np.array(shares, dtype=np.float64)
    if len(share) != len(norms) or (share < 0).any() or not share.sum() > 0:
        raise ValueError(f"wanted {len(norms)} shares, none negative, got {list(shares)}")
    share = share / share.sum()
    used = (norms > ZERO_NORM) & (share > 0)
    if not used.any():
        return tuple(share.tolist())
    unit = products[used][:, used] / np.outer(norms[used], norms[used])
    direction = _mean_direction(unit.clip(-1, 1), share[used] / share[used].sum())
    if form == "mergekit":
        length = (share * norms).sum()
    else:
        length = np.exp((share[used] / share[used].sum() * np.log(norms[used])).sum())
    weights = np.zeros_like(share)
    weights[used] = direction * length / norms[used]
    return tuple(weights.tolist())


def _mean_direction(cosines: Array, share: Array) -> Array:
    """Return the spherical mean of unit vectors as coordinates along them, shape (k,)."""
    mean = share.copy()
    if _length(mean, cosines) < PARALLEL:  # balanced opposites: any direction is as near
        mean = np.zeros_like(share)
        mean[0] = 1.0
    mean = mean / _length(mean, cosines)
    for _ in range(100):
        cos = (cosines @ mean).clip(-1, 1)
        sin = np.sqrt(1 - cos**2)
        # theta / sin(theta), 1 at theta = 0; an opposite vector pulls nowhere in particular
        pull = np.where(sin > PARALLEL, np.arccos(cos) / sin.clip(min=PARALLEL), np.sign(cos))
        pull = share * pull.clip(min=0)
        tangent = pull - (pull * cos).sum() * mean
        step = _length(tangent, cosines)
        if step < PARALLEL:
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent
        mean = mean / _length(mean, cosines)
    return mean


def _length(coordinates: Array, cosines: Array) -> float:
    return math.sqrt(max(0.0, float(coordinates @ cosines @ coordinates)))


def _merged(tensors: Sequence[Tensor], weigh: Callable[[Array], Sequence[float]]) -> Tensor:
    """Return the merge of whole tensors in memory."""
    import torch  # whoever has tensors has loaded it

    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(f"wanted tensors of one shape, got {shapes}")
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    result = torch.empty_like(flat[0])

    def widening(part: Tensor) -> Read:
        wide = torch.promote_types(part.dtype, torch.float32)
        return lambda start, stop: part[start:stop].to(wide).numpy()

    def write(start: int, chunk: Array) -> None:
        result[start : start + len(chunk)] = torch.from_numpy(chunk)

    reads = [widening(part) for part in flat]
    combine(reads, weigh(gram(reads, len(result))), len(result), write)
    return result.reshape(first.shape)


def _spans(n_elements: int, chunk: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n_elements, chunk):
        yield start, min(start + chunk, n_elements)


def _norm(products: Array, i: int) -> float:
    return math.sqrt(max(0.0, float(products[i, i])))


def _check_t(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"wanted t in [0, 1], got {t}")


def _check_finite(products: Array) -> None:
    if not np.isfinite(products).all():
        raise ValueError("wanted finite weights, got NaN, infinite or too large ones to square")
