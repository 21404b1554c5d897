"""A recipe worked out for given parents: for every tensor, what it is made of.

    steps = plan(recipe, parents)
    steps[0]   # Step(name="model.embed_tokens.weight", sources=..., shares=(0.5, 0.5), ...)

Worked out from headers alone; the same steps are shown by a dry run and carried out by
`merging.stream`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from merging.parent import Parent, layer_of
from merging.recipe import Input, Recipe
from orbweave.errors import UsageError
from orbweave.weights import TensorInfo

__all__ = [
    "Cell",
    "Source",
    "Step",
    "plan",
    "renumbered",
    "share_table",
    "taken_from",
    "tensors_of",
]

FLOATS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
"""The YAML's names of dtypes and safetensors'."""

Way = Literal["slerp", "slerp-paper", "linear", "karcher", "copy"]


class Source(NamedTuple):
    """One tensor of one parent."""

    parent: str
    """Name of the parent in the recipe."""
    tensor: str


class Step(NamedTuple):
    """How one tensor of the merged model is made."""

    name: str
    sources: tuple[Source, ...]
    shares: tuple[float, ...]
    """One per source. For SLERP (1 - t, t), for the others the weights of the average."""
    way: Way
    info: TensorInfo
    """Dtype and shape of the result."""
    rounded_to: str
    """Dtype the sources are rounded to first, as in mergekit."""


class Cell(NamedTuple):
    """The shares of one kind of weight in one layer."""

    layer: int | None
    """None outside the layers."""
    part: str
    """`self_attn`, `mlp` or the tensor's own name."""
    shares: tuple[float, ...]


def plan(recipe: Recipe, parents: Mapping[str, Parent], *, partial: bool = False) -> list[Step]:
    """Return the steps of a merge, in order of layers.

    Args:
        recipe: One that `Recipe.is_ours`, found sound by `merging.compatibility`.
        parents: By the names in the recipe.
        partial: Take tensors from the base that the others lack or have in another shape.

    Raises:
        UsageError: a parameter is missing for some tensor.
    """
    inputs = recipe.inputs
    lead = parents[inputs[0].model]
    first, last = _layers(inputs[0], lead)
    steps = []
    for name, tensor in tensors_of(inputs[0], lead).items():
        info = lead.tensors[tensor]
        sources = tuple(
            Source(part.model, renumbered(name, _layers(part, parents[part.model])[0]))
            for part in inputs
        )
        if partial:
            sources = tuple(s for s in sources if _shape(parents, s) == info.shape)
        depth = _depth(layer_of(tensor), first, last)
        steps.append(_step(recipe, inputs, name, sources, info, depth))
    return steps


def taken_from(steps: Sequence[Step]) -> dict[tuple[str, ...], list[str]]:
    """Return parents -> the tensors that come from just these."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for step in steps:
        groups.setdefault(tuple(source.parent for source in step.sources), []).append(step.name)
    return groups


def tensors_of(part: Input, parent: Parent) -> dict[str, str]:
    """Return what a model brings to a merge: name in the merged model -> name in its own files.

    Layers outside the range are left out, the others counted from 0.
    """
    first, last = _layers(part, parent)
    return {
        renumbered(tensor, -first): tensor
        for tensor in parent.tensors
        if (layer := layer_of(tensor)) is None or first <= layer < last
    }


def renumbered(tensor: str, offset: int) -> str:
    """Return the name of the same weight `offset` layers further on."""
    layer = layer_of(tensor)
    if layer is None or offset == 0:
        return tensor
    return tensor.replace(f".{layer}.", f".{layer + offset}.", 1)


def share_table(steps: Sequence[Step]) -> list[Cell]:
    """Return layer by layer what share each kind of weight takes, each once."""
    cells = []
    for step in steps:
        layer = layer_of(step.name)
        if layer is None:
            part = step.name.removesuffix(".weight").split(".")[-1]
        else:
            part = step.name.partition(f".{layer}.")[2].split(".")[0]
        cells.append(Cell(layer, part, step.shares))
    return list(dict.fromkeys(cells))


def _step(
    recipe: Recipe,
    inputs: Sequence[Input],
    name: str,
    sources: tuple[Source, ...],
    info: TensorInfo,
    depth: float,
) -> Step:
    rounded_to = FLOATS[recipe.dtype] if recipe.dtype else info.dtype
    result = TensorInfo(FLOATS[recipe.out_dtype] if recipe.out_dtype else rounded_to, info.shape)
    if not info.dtype.endswith(("F16", "F32", "F64")):  # a buffer of whole numbers
        return Step(name, sources, (), "copy", info, info.dtype)
    if len(sources) == 1:
        return Step(name, sources, (1.0,), "copy", result, rounded_to)
    way, shares = _shares(recipe, inputs, name, sources, depth)
    return Step(name, sources, shares, way, result, rounded_to)


def _shares(
    recipe: Recipe, inputs: Sequence[Input], name: str, sources: Sequence[Source], depth: float
) -> tuple[Way, tuple[float, ...]]:
    if recipe.merge_method == "slerp":
        t = recipe.value("t", name, depth)
        if t is None:
            raise _no_value("t", name)
        return ("slerp-paper" if "paper" in recipe.settings("form") else "slerp"), (1 - t, t)
    by_name = {part.model: part for part in inputs}
    weights = []
    for source in sources:
        weight = recipe.value("weight", source.tensor, depth, by_name[source.parent])
        if weight is None and recipe.merge_method == "linear":
            raise _no_value(f"weight of {source.parent}", name)
        weights.append(1.0 if weight is None else weight)
    if recipe.merge_method == "linear" and recipe.value("normalize", name, depth) == 0:
        return "linear", tuple(weights)
    total = sum(weights)
    if total <= 0:
        raise UsageError(f"wanted weights with a sum above 0 for {name}, got {weights}")
    way: Way = "linear" if recipe.merge_method == "linear" else "karcher"
    return way, tuple(weight / total for weight in weights)


def _no_value(parameter: str, name: str) -> UsageError:
    return UsageError(
        f"wanted the merge parameter {parameter} for every tensor, found none for {name}; "
        "set it, or add a last rule without a filter"
    )


def _layers(part: Input, parent: Parent) -> tuple[int, int]:
    """Return a model's first layer in the merge and the one after its last."""
    return part.layer_range or (0, parent.n_layers)


def _depth(layer: int | None, first: int, last: int) -> float:
    """Return the place on a gradient, 0 outside the layers; as mergekit, 1 for a lone layer."""
    if layer is None:
        return 0.0
    return (layer - first) / (last - first - 1) if last - first > 1 else 1.0


def _shape(parents: Mapping[str, Parent], source: Source) -> tuple[int, ...] | None:
    info = parents[source.parent].tensors.get(source.tensor)
    return info.shape if info else None
