"""A laboratory from some of the weights: what a sweep would be like, told in seconds.

samples = {name: read_sample(parent) for name, parent in parents.items()}
sketch = open_sketch(matrix, parents, samples)
len({made.key for made in sketch.made()})   # different models, as far as the sample tells
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from merging.numbers import FLOATS
from merging.parent import Parent, layer_of
from merging.plan import plan
from merging.stream import Grams, merge_into_memory
from merging.sweep import Laboratory, hashes_of
from merging.tensors import LoadedWeights, open_weights
from merging.variants import Variant, alone

__all__ = ["Sample", "open_sketch", "read_sample"]

_LARGEST = 1 << 23
"""Elements of the largest tensor that is read: of a large model, norms and the small matrices."""


class Sample(NamedTuple):
    """Some of a model's tensors."""

    tensors: dict[str, Any]
    """Torch tensors by name, adapters laid over them."""
    seconds: float
    """Reading all of the model would take, by how long these took."""
    share: float
    """Of the model's weights, in (0, 1]."""


def read_sample(parent: Parent) -> Sample:
    """Read the tensors of the first, the middle and the last layer, and what is outside them.

    Raises:
        ModelError: a weight is not finite, or a file cannot be read.
    """
    layers = {None, 0, parent.n_layers // 2, parent.n_layers - 1}
    steps = plan(alone(parent.name), {parent.name: parent})
    sizes = {step.name: math.prod(step.info.shape) for step in steps}
    few = [
        step
        for step in steps
        if layer_of(step.name) in layers
        and step.info.dtype in FLOATS
        and sizes[step.name] <= _LARGEST
    ]
    begin = time.perf_counter()
    tensors = merge_into_memory(few, {parent.name: open_weights(parent)})
    share = sum(sizes[step.name] for step in few) / max(1, sum(sizes.values()))
    seconds = (time.perf_counter() - begin) / share if share else 0.0
    return Sample(tensors, seconds, share)


def open_sketch(
    matrix: Sequence[Variant], parents: Mapping[str, Parent], samples: Mapping[str, Sample]
) -> Laboratory:
    """Return a laboratory that tells which models are different, and merges nothing but samples.

    Where no tensor of the samples lies on an arc, SLERP is taken for the LERP.

    Args:
        matrix: As for `merging.sweep.open_laboratory`, found sound by `merging.compatibility`.
        parents: By their names there.
        samples: Of each of them.

    Raises:
        ModelError: weights are damaged.
    """
    weights = {name: LoadedWeights(samples[name].tensors) for name in parents}
    merge = next(variant for variant in matrix if variant.way != "parent")
    shared = set.intersection(*(set(samples[name].tensors) for name in parents))
    steps = [step for step in plan(merge.recipe, parents) if step.name in shared]
    grams: Grams = {}
    begin = time.perf_counter()
    merge_into_memory(steps, weights, grams=grams)
    share = min(samples[name].share for name in parents)
    measuring_s = (time.perf_counter() - begin) / share if share else 0.0
    return Laboratory(
        tuple(matrix),
        dict(parents),
        [],
        {name: samples[name].tensors for name in parents},
        weights,
        {name: hashes_of(parent) for name, parent in parents.items()},
        grams,
        measuring_s,
        is_sketch=True,
    )
