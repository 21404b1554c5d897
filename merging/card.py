"""The model card of a merge: what it is, from which parents, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from merging.recipe import Recipe

__all__ = ["Ancestor", "model_card"]


class Ancestor(NamedTuple):
    """One parent, as the card names it."""

    name: str
    """The reference in the recipe."""
    sha256: str
    """Of its weights, adapters included."""
    known_as: str | None
    """Name on the Hugging Face Hub of it or of what it was made from."""
    licence: str | None


def model_card(
    title: str, recipe: Recipe, ancestors: Sequence[Ancestor], geometry: Mapping[str, object]
) -> str:
    """Return README.md of a merged model.

    Args:
        title: Name of the model.
        recipe: What was done.
        ancestors: Every model that went in.
        geometry: See `merging.stream.geometry`; empty where mergekit did the work.

    Source: https://huggingface.co/docs/hub/model-cards#specifying-a-base-model
    """
    known = dict.fromkeys(a.known_as for a in ancestors if a.known_as)
    licences = {a.licence.lower() for a in ancestors if a.licence}
    head: dict[str, Any] = {"base_model": list(known)} if known else {}
    head |= {"base_model_relation": "merge"} if known else {}
    head |= {"license": licences.pop()} if len(licences) == 1 else {}
    head |= {"library_name": "transformers", "tags": ["merge", "mergekit", "orbweave"]}
    figures = [f"| {name} | {value} |" for name, value in geometry.items()]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {title}",
        "",
        f"A merge of language models by the method `{recipe.merge_method}`, made by Orbweave.",
        "",
        "| parent | sha256 of its weights |",
        "|---|---|",
        *(f"| `{a.name}` | `{a.sha256}` |" for a in ancestors),
        "",
        *(["| tensors | |", "|---|---|", *figures, ""] if figures else []),
        "The recipe, in mergekit's format:",
        "",
        "```yaml",
        recipe.to_yaml().rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)
