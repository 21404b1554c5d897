"""How two models lie to each other: angle, length and direction, tensor by tensor.

    geometry = compare(a, b, base)         # from two parents, before a merge
    geometry = geometry_of(steps, grams)   # from what a merge measured, after it

A tensor counts as one long vector, as for `merging.kernel`. Symbols: a, b the models; d = b - a;
with a base c the task vectors x = a - c and y = b - c, what training changed in either
(Ilharco et al., arXiv:2212.04089).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from merging.compatibility import config_findings
from merging.kernel import COLLINEAR_COS, PARALLEL, ZERO_NORM, cosine
from merging.numbers import FLOATS, STORED, Array, widen
from merging.parent import Parent, layer_of
from merging.plan import Step
from merging.stream import Grams
from merging.tensors import Weights, open_weights
from orbweave.errors import ModelError, UsageError

__all__ = [
    "COLLINEAR_DEG",
    "PARTS",
    "Geometry",
    "Part",
    "Path",
    "Summary",
    "TensorGeometry",
    "compare",
    "document",
    "geometry_of",
    "part_of",
]

Part = Literal["attention", "mlp", "norm", "embedding", "head", "other"]
PARTS: tuple[Part, ...] = ("attention", "mlp", "norm", "embedding", "head", "other")
Path = Literal["slerp", "linear", "identical", "zero", "average", "mean", "copied", "mergekit"]
"""What a merge does with a tensor. `slerp`: an arc. `linear`: SLERP's own fall-back to a straight
line, the parents being parallel. `identical`: the same numbers in both, nothing to merge. `zero`:
one parent is all zeros and has no direction. After a merge also `average`: a straight line by the
recipe, `mean`: a spherical mean, `copied`: one parent's tensor as it is, `mergekit`: by one of
its methods."""

COLLINEAR_DEG = math.degrees(math.acos(COLLINEAR_COS))
"""Below this angle, 1.81 degrees, SLERP is a straight line."""
GRAM_DEG = 0.02
"""Angles a merge measures in passing are right to about this; `compare` to a millionth of it.
Found by trial, with float32 sums over rows of 1024: at angles of 0.01 degrees, where it is worst,
up to 0.01 in float32 tensors and 0.001 in bfloat16 ones."""
_CHUNK = 1 << 17
"""Elements worked on at a time: about eight megabytes a thread."""

_PARTS_BY_NAME: tuple[tuple[Part, str], ...] = (  # the first that fits: norms sit in attention too
    ("norm", r"norm|ln_|(^|\.)ln\d"),
    ("attention", r"attn|attention"),
    ("mlp", r"mlp|ffn|feed_forward|expert|(^|\.)fc\d"),
    ("head", r"lm_head|embed_out|(^|\.)output\."),
    ("embedding", r"emb|wte|wpe"),
)


class TensorGeometry(NamedTuple):
    """How one tensor of b lies to the same tensor of a; None where that has no meaning."""

    name: str
    layer: int | None
    """None outside the layers."""
    part: Part
    numel: int
    path: Path
    norm_a: float
    norm_b: float | None
    angle_deg: float | None
    """Between a and b, in [0, 180]; None if either is zero."""
    norm_ratio: float | None
    """|b| / |a|."""
    change: float | None
    """|b - a| / |a|."""
    task_norm_a: float | None = None
    """|a - base|; None without a base."""
    task_norm_b: float | None = None
    task_cosine: float | None = None
    """Of a - base and b - base, in [-1, 1], with its sign; None if either is zero."""


class Summary(NamedTuple):
    """Several tensors in one; means and shares are by number of elements."""

    layer: int | None
    part: Part | None
    """None for all of them."""
    numel: int
    angle_deg: float | None
    median_angle_deg: float | None
    norm_ratio: float | None
    change: float | None
    task_norm_a: float | None
    """Of the tensors taken together as one long vector; so are the next two."""
    task_norm_b: float | None
    task_cosine: float | None
    """With its sign. Model kinship (arXiv:2410.12613) in its cosine form is the absolute value:
    its code squares the product. In its Pearson form it is this, each vector's mean subtracted."""
    shares: dict[Path, float]
    """Path -> share of the elements, in (0, 1], largest first."""


@dataclass(frozen=True)
class Geometry:
    """How models lie to each other."""

    parents: tuple[str, ...]
    base: str | None
    tensors: tuple[TensorGeometry, ...]
    unmatched: tuple[str, ...] = ()
    """Tensors left out: not in every model, or in different shapes."""
    unlike: tuple[str, ...] = ()
    """Why tensors of one name may do different work, such as another architecture."""
    right_to_deg: float = 1e-6
    """How far off an angle may be."""

    @property
    def total(self) -> Summary:
        """All tensors in one."""
        return _summary(None, None, self.tensors)

    @property
    def by_part(self) -> list[Summary]:
        """One summary per kind of weight, over all layers."""
        groups = ((p, [t for t in self.tensors if t.part == p]) for p in PARTS)
        return [_summary(None, part, rows) for part, rows in groups if rows]

    @property
    def by_layer(self) -> list[Summary]:
        """One summary per layer and kind of weight, in order; outside the layers first."""
        groups: dict[tuple[int | None, Part], list[TensorGeometry]] = {}
        for row in self.tensors:
            groups.setdefault((row.layer, row.part), []).append(row)

        def place(key: tuple[int | None, Part]) -> tuple[int, int]:
            return -1 if key[0] is None else key[0], PARTS.index(key[1])

        return [_summary(*key, groups[key]) for key in sorted(groups, key=place)]

    @property
    def linear_share(self) -> float:
        """Share of the weights where SLERP is a straight line, identical ones included."""
        shares = self.total.shares
        return shares.get("linear", 0.0) + shares.get("identical", 0.0)

    @property
    def is_one_model(self) -> bool:
        """Whether all parents hold the same weights, as far as their inner products tell."""
        return bool(self.tensors) and not self.unmatched and all(map(_is_one, self.tensors))


def part_of(tensor: str) -> Part:
    """Return what kind of weight a tensor's name stands for."""
    return next((part for part, mark in _PARTS_BY_NAME if re.search(mark, tensor)), "other")


def compare(
    a: Parent,
    b: Parent,
    base: Parent | None = None,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Geometry:
    """Measure two models, and with a base what each of them learnt, in one read.

    Args:
        a: The model at t = 0.
        b: The model at t = 1.
        base: What both were trained from.
        on_progress: Is told (tensors done, all tensors).

    Raises:
        UsageError: the models have no weights in common.
        ModelError: a file is damaged, quantised, or holds a weight that is not finite; names it.
    """
    models = [a, b] if base is None else [a, b, base]
    for model in models:
        _check_readable(model)
    shared = [name for name in a.tensors if all(_fits(name, a, other) for other in models)]
    floats = [name for name in shared if a.tensors[name].dtype in FLOATS]
    found = [finding for other in models[1:] for finding in config_findings(a, other)]
    unlike = tuple(finding.text for finding in found if finding.level == "mismatch")
    if not floats:
        names = " and ".join(model.name for model in models)
        raise UsageError(
            f"wanted models of one shape, found no weights in common in {names}"
            f"{''.join(f' ({text})' for text in unlike[:1])}; "
            "compare models that were trained from the same one"
        )
    weights = [open_weights(model) for model in models]
    rows: dict[str, TensorGeometry] = {}

    def work(name: str) -> TensorGeometry:
        numel = math.prod(a.tensors[name].shape)
        return _measured(name, numel, _products(name, weights, numel), models)

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for future in as_completed([pool.submit(work, name) for name in floats]):
                rows[future.result().name] = future.result()
                on_progress(len(rows), len(floats))
        finally:
            pool.shutdown(cancel_futures=True)
    everything = dict.fromkeys(name for model in models for name in model.tensors)
    return Geometry(
        parents=(a.name, b.name),
        base=base.name if base else None,
        tensors=tuple(rows[name] for name in floats),
        unmatched=tuple(name for name in everything if name not in set(shared)),
        unlike=unlike,
    )


def geometry_of(steps: Sequence[Step], grams: Grams) -> Geometry:
    """Return what a merge found in passing, without another read.

    Where more than two models were merged, each tensor of the first is compared with the one
    farthest from it in angle.

    Args:
        steps: Of the merge.
        grams: What it measured.
    """
    parents = dict.fromkeys(source.parent for step in steps for source in step.sources)
    rows = tuple(_merged(step, grams[step.name]) for step in steps if step.name in grams)
    return Geometry(tuple(parents), None, rows, right_to_deg=GRAM_DEG)


def document(geometry: Geometry) -> dict[str, Any]:
    """Return everything as plain values for JSON."""
    cos = geometry.total.task_cosine
    return {
        "parents": list(geometry.parents),
        "base": geometry.base,
        "angles_right_to_deg": geometry.right_to_deg,
        "linear_share": geometry.linear_share,
        "model_kinship_cosine": None if cos is None else abs(cos),
        "total": geometry.total._asdict(),
        "by_part": [summary._asdict() for summary in geometry.by_part],
        "by_layer": [summary._asdict() for summary in geometry.by_layer],
        "tensors": [row._asdict() for row in geometry.tensors],
        "unmatched": list(geometry.unmatched),
        "unlike": list(geometry.unlike),
    }


# ---------------------------------------------------------------- measuring


def _fits(name: str, a: Parent, other: Parent) -> bool:
    return name in other.tensors and other.tensors[name].shape == a.tensors[name].shape


def _check_readable(model: Parent) -> None:
    unknown = sorted({info.dtype for info in model.tensors.values()} - STORED.keys())
    if unknown:
        raise ModelError(
            f"wanted weights in bfloat16 or float32 in {model.name}, found {', '.join(unknown)}; "
            "give the model before it was quantised"
        )


def _products(name: str, weights: Sequence[Weights], numel: int) -> Array:
    """Return the inner products of a, b, b - a and, with a base, of both task vectors.

    The differences are taken before the products, in float64: so an angle of a millionth of a
    degree is still an angle, where a cosine would long be 1.
    """
    total = np.zeros(())
    for start in range(0, max(numel, 1), _CHUNK):
        stop = min(start + _CHUNK, numel)
        a, b, *base = (
            widen(each.read(name, start, stop), each.tensors[name].dtype).astype(np.float64)
            for each in weights
        )
        with np.errstate(over="ignore", invalid="ignore"):  # told by _measured, with the name
            rows = np.stack([a, b, b - a, *(each - c for c in base for each in (a, b))])
            total = total + rows @ rows.T
    return total


def _measured(name: str, numel: int, products: Array, models: Sequence[Parent]) -> TensorGeometry:
    if not np.isfinite(products).all():
        # |a|, |b| and, where both are sound, |a - base| tell whose weights they are.
        lengths = zip(models, products.diagonal()[[0, 1, 3][: len(models)]], strict=True)
        damaged = next((model for model, length in lengths if not math.isfinite(length)), models[0])
        raise ModelError(
            f"wanted finite weights in {name} of {damaged.name}, found NaN, infinite or absurdly "
            "large ones; that model is damaged, use another"
        )
    pair, dd = products[:2, :2], float(products[2, 2])
    row = _row(name, numel, _path(pair, dd), pair, float(products[0, 2]), dd)
    if len(models) == 2:
        return row
    (xx, xy), (_, yy) = products[3:, 3:].tolist()
    x, y = math.sqrt(xx), math.sqrt(yy)
    cos = max(-1.0, min(1.0, xy / (x * y))) if x and y else None
    return row._replace(task_norm_a=x, task_norm_b=y, task_cosine=cos)


def _merged(step: Step, products: Array) -> TensorGeometry:
    """Return a merged tensor's geometry from the inner products of its sources."""
    numel, path = math.prod(step.info.shape), _path_taken(step, products)
    rows = []
    for i in range(1, len(step.sources)):
        pair = products[[0, i]][:, [0, i]]
        (aa, ab), (_, bb) = pair.tolist()
        rows.append(_row(step.name, numel, path, pair, ab - aa, max(0.0, aa + bb - 2 * ab)))
    if rows:
        return max(rows, key=lambda row: row.angle_deg or 0.0)
    norm, layer, part = math.sqrt(products.item()), layer_of(step.name), part_of(step.name)
    return TensorGeometry(step.name, layer, part, numel, path, norm, None, None, None, None)


def _row(name: str, numel: int, path: Path, pair: Array, ad: float, dd: float) -> TensorGeometry:
    """Return a tensor's geometry from the inner products of a and b, and of d = b - a."""
    (aa, ab), (_, bb) = pair.tolist()
    norm_a, norm_b = math.sqrt(aa), math.sqrt(bb)
    # |a x b| = |a x d|, so the shorter of b and d tells it best: an arccos would lose the angle.
    other, along = min((dd, ad), (bb, ab))
    cross = math.sqrt(max(0.0, aa * other - along * along))
    return TensorGeometry(
        name=name,
        layer=layer_of(name),
        part=part_of(name),
        numel=numel,
        path=path,
        norm_a=norm_a,
        norm_b=norm_b,
        angle_deg=math.degrees(math.atan2(cross, ab)) if norm_a and norm_b else None,
        norm_ratio=norm_b / norm_a if norm_a else None,
        change=math.sqrt(dd) / norm_a if norm_a else None,
    )


def _path(pair: Array, dd: float) -> Path:
    """Return what mergekit's SLERP does with a tensor for t inside (0, 1)."""
    if dd == 0:
        return "identical"
    return _arc(pair, COLLINEAR_COS)


def _path_taken(step: Step, products: Array) -> Path:
    """Return what a merge did with a tensor."""
    shares = step.shares
    if step.way == "copy" or (1.0 in shares and shares.count(0.0) == len(shares) - 1):
        return "copied"
    if step.way in {"linear", "karcher"}:
        return "average" if step.way == "linear" else "mean"
    return _arc(products, COLLINEAR_COS if step.way == "slerp" else 1 - PARALLEL)


def _arc(pair: Array, edge: float) -> Path:
    if pair.diagonal().min() <= ZERO_NORM**2:
        return "zero"
    return "linear" if abs(cosine(pair)) > edge else "slerp"


def _is_one(row: TensorGeometry) -> bool:
    # Norms too: rounding can make the distance of close neighbours 0.
    return row.norm_b is not None and not row.change and math.isclose(row.norm_a, row.norm_b)


# ---------------------------------------------------------------- many tensors in one


def _summary(layer: int | None, part: Part | None, rows: Sequence[TensorGeometry]) -> Summary:
    numel = sum(row.numel for row in rows)
    angles = [(row.angle_deg, row.numel) for row in rows]
    paths: dict[Path, int] = {}
    for row in rows:
        paths[row.path] = paths.get(row.path, 0) + row.numel
    return Summary(
        layer,
        part,
        numel,
        _mean(angles),
        _median(angles),
        _mean((row.norm_ratio, row.numel) for row in rows),
        _mean((row.change, row.numel) for row in rows),
        *_joint(rows),
        shares={p: n / max(numel, 1) for p, n in sorted(paths.items(), key=lambda item: -item[1])},
    )


def _mean(values: Iterable[tuple[float | None, int]]) -> float | None:
    """Return the mean of (value, weight), values of None apart."""
    known = [(value, weight) for value, weight in values if value is not None]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _median(values: Iterable[tuple[float | None, int]]) -> float | None:
    """Return the smallest value that half of the weight does not exceed, None apart."""
    known = sorted((value, weight) for value, weight in values if value is not None)
    half, sofar = sum(weight for _, weight in known) / 2, 0
    for value, weight in known:
        sofar += weight
        if sofar >= half:
            return value
    return None


def _joint(
    rows: Sequence[TensorGeometry],
) -> tuple[float | None, float | None, float | None]:
    """Return norms and cosine of the task vectors, all tensors strung together."""
    if all(row.task_norm_a is None for row in rows):
        return None, None, None
    xx = xy = yy = 0.0
    for row in rows:
        x, y = row.task_norm_a or 0.0, row.task_norm_b or 0.0
        xx, yy, xy = xx + x * x, yy + y * y, xy + x * y * (row.task_cosine or 0.0)
    norms = math.sqrt(xx), math.sqrt(yy)
    return *norms, xy / math.prod(norms) if all(norms) else None
