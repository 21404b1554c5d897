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
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "COLLINEAR_COS",
    "Form",
    "PARALLEL",
    "ZERO_NORM",
    "combine",
    "cosine",
    "gram",
    "karcher",
    "karcher_weights",
    "lerp",
    "slerp",
    "slerp_weights",
]

Form = Literal["mergekit", "paper"]
"""`mergekit`: sine weights on the tensors as they are. `paper`: sine weights on unit vectors,
then the length |a|^(1-t) |b|^t. The two agree where the parents are equally long."""
Read = Callable[[int, int], Tensor]
"""Elements [start, stop) of one flattened parent, in any float dtype."""

CHUNK = 1 << 17
"""Elements worked on at a time. Two float32 chunks fit a processor's second-level cache, which
makes the two passes several times as fast as whole tensors."""
COLLINEAR_COS = 0.9995
"""Above this |cos| mergekit's form is a straight line (mergekit 0.1.5, slerp)."""
PARALLEL = 1e-7
"""Below this 1 - |cos| no float32 tensor has a usable angle."""
ZERO_NORM = 1e-8
"""A tensor this short has no direction (mergekit 0.1.5, slerp)."""


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


def gram(reads: Sequence[Read], n_elements: int, *, chunk: int = CHUNK) -> Tensor:
    """Return the inner products of all pairs of k parents, shape (k, k), float64.

    Products are summed in float32 within a chunk (pairwise, as torch sums) and in float64
    between chunks: at cos 0.9997 the angle is right to a part in 10^5.
    """
    k = len(reads)
    total = torch.zeros(k, k, dtype=torch.float64)
    for start, stop in _spans(n_elements, chunk):
        parts = [_wide(read(start, stop)) for read in reads]
        for i in range(k):
            for j in range(i, k):
                total[i, j] += (parts[i] * parts[j]).sum().item()
    return total + total.triu(1).T


def combine(
    reads: Sequence[Read],
    weights: Sequence[float],
    n_elements: int,
    write: Callable[[int, Tensor], None],
    *,
    chunk: int = CHUNK,
) -> None:
    """Hand `write` the weighted sum of the parents, chunk after chunk.

    The sum is the same bit by bit, whatever the chunk.

    Args:
        reads: One per parent; a parent of weight 0 is not read.
        weights: One per parent.
        n_elements: Length of each flattened parent.
        write: Is given the place of a chunk's first element and the chunk, float32 or float64.
        chunk: Elements at a time.
    """
    used = [(read, weight) for read, weight in zip(reads, weights, strict=True) if weight]
    used = used or [(reads[0], 0.0)]
    for start, stop in _spans(n_elements, chunk):
        (read, weight), *others = used
        total = _wide(read(start, stop)) * weight
        for read, weight in others:  # not fused, so that w a - w a is 0 and order does not matter
            total = total + _wide(read(start, stop)) * weight
        write(start, total)


def cosine(products: Tensor) -> float:
    """Return the cosine of the angle between parents 0 and 1, from their inner products.

    A zero tensor has no direction; like mergekit, it counts as orthogonal to everything.
    """
    length = [_norm(products, i) for i in (0, 1)]
    a, b = (norm if norm > ZERO_NORM else 1.0 for norm in length)
    return max(-1.0, min(1.0, products[0, 1].item() / (a * b)))


def slerp_weights(products: Tensor, t: float, form: Form = "mergekit") -> tuple[float, float]:
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
    products: Tensor, shares: Sequence[float], form: Form = "paper"
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
    norms = products.diagonal().clamp(min=0).sqrt()
    share = torch.tensor(shares, dtype=torch.float64)
    if len(share) != len(norms) or (share < 0).any() or not share.sum() > 0:
        raise ValueError(f"wanted {len(norms)} shares, none negative, got {list(shares)}")
    share = share / share.sum()
    used = (norms > ZERO_NORM) & (share > 0)
    if not used.any():
        return tuple(share.tolist())
    unit = products[used][:, used] / norms[used].outer(norms[used])
    direction = _mean_direction(unit.clamp(-1, 1), share[used] / share[used].sum())
    if form == "mergekit":
        length = (share * norms).sum()
    else:
        length = (share[used] / share[used].sum() * norms[used].log()).sum().exp()
    weights = torch.zeros_like(share)
    weights[used] = direction * length / norms[used]
    return tuple(weights.tolist())


def _mean_direction(cosines: Tensor, share: Tensor) -> Tensor:
    """Return the spherical mean of unit vectors as coordinates along them, shape (k,)."""
    mean = share.clone()
    if _length(mean, cosines) < PARALLEL:  # balanced opposites: any direction is as near
        mean = torch.zeros_like(share)
        mean[0] = 1.0
    mean = mean / _length(mean, cosines)
    for _ in range(100):
        cos = (cosines @ mean).clamp(-1, 1)
        sin = (1 - cos**2).sqrt()
        # theta / sin(theta), 1 at theta = 0; an opposite vector pulls nowhere in particular
        pull = torch.where(sin > PARALLEL, cos.acos() / sin.clamp(min=PARALLEL), cos.sign())
        pull = share * pull.clamp(min=0)
        tangent = pull - (pull * cos).sum() * mean
        step = _length(tangent, cosines)
        if step < PARALLEL:
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent
        mean = mean / _length(mean, cosines)
    return mean


def _length(coordinates: Tensor, cosines: Tensor) -> float:
    return math.sqrt(max(0.0, (coordinates @ cosines @ coordinates).item()))


def _merged(tensors: Sequence[Tensor], weigh: Callable[[Tensor], Sequence[float]]) -> Tensor:
    """Return the merge of whole tensors in memory."""
    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(f"wanted tensors of one shape, got {shapes}")
    flat = [tensor.reshape(-1) for tensor in tensors]
    reads: list[Read] = [lambda start, stop, f=f: f[start:stop] for f in flat]  # type: ignore[misc]
    result = torch.empty_like(flat[0])

    def write(start: int, chunk: Tensor) -> None:
        result[start : start + len(chunk)] = chunk

    combine(reads, weigh(gram(reads, len(result))), len(result), write)
    return result.reshape(first.shape)


def _spans(n_elements: int, chunk: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n_elements, chunk):
        yield start, min(start + chunk, n_elements)


def _wide(chunk: Tensor) -> Tensor:
    return chunk if chunk.dtype == torch.float64 else chunk.float()


def _norm(products: Tensor, i: int) -> float:
    return math.sqrt(max(0.0, products[i, i].item()))


def _check_t(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"wanted t in [0, 1], got {t}")


def _check_finite(products: Tensor) -> None:
    if not products.isfinite().all():
        raise ValueError("wanted finite weights, got NaN, infinite or too large ones to square")
