"""The model card of a merge: what it is, from which parents, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
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
    title: str, recipe: Recipe, ancestors: Sequence[Ancestor], geometry: Geometry | None
) -> str:
    """Return README.md of a merged model.

    Args:
        title: Name of the model.
        recipe: What was done.
        ancestors: Every model that went in.
        geometry: What the merge found in passing; None where mergekit did the work.

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
        *(_tables(geometry) if geometry else ()),
        "The recipe, in mergekit's format:",
        "",
        "```yaml",
        recipe.to_yaml().rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _tables(geometry: Geometry) -> list[str]:
    """Return which way the weights went, and how far apart the parents were."""
    shares = geometry.total.shares.items()
    angles = [(s.part, s.median_angle_deg) for s in geometry.by_part]
    known = [f"| {part} | {angle:.2f}° |" for part, angle in angles if angle is not None]
    ways = ["| path | share of the weights |", "|---|---|"]
    ways += [f"| {_PATHS[path]} | {100 * share:.1f} % |" for path, share in shares]
    if known:
        known = ["", "| weights | median angle between the parents |", "|---|---|", *known]
    return [*ways, *known, "", "`geometry.json` has the angles and norms of every tensor.", ""]
