"""The model card of a merge: what it is, from which parents, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from merging.recipe import Recipe

if TYPE_CHECKING:
    from merging.geometry import Geometry, Path

__all__ = ["Ancestor", "model_card"]

_PATHS: dict[Path, str] = {
    "slerp": "along the arc (SLERP)",
    "linear": "straight line, the parents being parallel",
    "zero": "a parent is zero and has no direction",
    "average": "weighted average",
    "mean": "spherical mean",
    "copied": "copied from one parent",
    "mergekit": "by mergekit",
}


class Ancestor(NamedTuple):
    """One parent, as the card names it."""

    name: str
    """The reference in the recipe."""
    digest: str
    """Of its weights, adapters included; see `merging.digests`."""
    known_as: str | None
    """Name on the Hugging Face Hub of it or of what it was made from."""
    licence: str | None


def model_card(
    title: str,
    recipe: Recipe,
    ancestors: Sequence[Ancestor],
    geometry: Geometry | str,
    taken: Mapping[tuple[str, ...], Sequence[str]] | None = None,
) -> str:
    """Return README.md of a merged model.

    Args:
        title: Name of the model.
        recipe: What was done.
        ancestors: Every model that went in.
        geometry: How the parents lie to each other, or why that makes no sense here.
        taken: Of a partial merge: parents -> the tensors that come from just these.

    Source: https://huggingface.co/docs/hub/model-cards#specifying-a-base-model
    """
    known = dict.fromkeys(a.known_as for a in ancestors if a.known_as)
    licences = {a.licence.lower() for a in ancestors if a.licence}
    head: dict[str, Any] = {"base_model": list(known)} if known else {}
    head |= {"base_model_relation": "merge"} if known else {}
    head |= {"license": licences.pop()} if len(licences) == 1 else {}
    head |= {"library_name": "transformers", "tags": ["merge", "mergekit", "orbweave"]}
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {title}",
        "",
        f"A merge of language models by the method `{recipe.merge_method}`, made by Orbweave.",
        "",
        "| parent | hash of its weights |",
        "|---|---|",
        *(f"| `{a.name}` | `{a.digest}` |" for a in ancestors),
        "",
        *(_taken(taken) if taken else ()),
        *([f"No geometry: {geometry}.", ""] if isinstance(geometry, str) else _tables(geometry)),
        "The recipe, in mergekit's format:",
        "",
        "```yaml",
        recipe.to_yaml().rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _taken(groups: Mapping[tuple[str, ...], Sequence[str]]) -> list[str]:
    """Return what came from whom; tensors of a single parent are all named."""
    rows = []
    for names, tensors in groups.items():
        whose = " and ".join(f"`{name}`" for name in names)
        told = ", ".join(f"`{tensor}`" for tensor in tensors)
        if len(names) > 1:
            rows.append(f"| {whose} | {len(tensors)} | all of one name and one shape in them |")
        else:
            rows.append(f"| {whose} alone | {len(tensors)} | {told} |")
    return ["A partial merge:", "", "| taken from | tensors | which |", "|---|---|---|", *rows, ""]


def _tables(geometry: Geometry) -> list[str]:
    """Return which way the weights went, and how far apart the parents were."""
    shares = geometry.total.shares.items()
    angles = [(s.part, s.median_angle_deg) for s in geometry.by_part]
    known = [f"| {part} | {angle:.2f}° |" for part, angle in angles if angle is not None]
    ways = ["| path | share of the weights |", "|---|---|"]
    ways += [f"| {_PATHS[path]} | {100 * share:.1f} % |" for path, share in shares]
    if known:
        known = ["", "| weights | median angle between the parents |", "|---|---|", *known]
    if geometry.total.task_cosine is not None:
        known += ["", _learnt(geometry)]
    return [*ways, *known, "", "`geometry.json` has the angles and norms of every tensor.", ""]


def _learnt(geometry: Geometry) -> str:
    children = " and ".join(f"`{name}`" for name in geometry.parents)
    return (
        f"Cosine of what {children} learnt beyond `{geometry.base}`: "
        f"{geometry.total.task_cosine:+.3f}."
    )
