"""Training items that the shipped models never learnt, in no stage of any of their recipes."""

from __future__ import annotations

import json
from typing import Any

from training.items import ITEMS
from training.mix import mix
from training.recipe import load_recipe
from ui.material import team_material

__all__ = ["items_of", "unlearnt"]


def items_of(*kinds: str) -> list[dict[str, Any]]:
    """Return the shipped items of some kinds, in the order of the files."""
    files = sorted(ITEMS.rglob("*.jsonl"))
    items = (json.loads(line) for f in files for line in f.read_text("utf-8").splitlines())
    return [item for item in items if item["kind"] in kinds]


def unlearnt(*kinds: str, recipe: str = "smollm2-135m-generalist") -> list[dict[str, Any]]:
    """Return the items of which a recipe learns no row, whatever the stage.

    The mixtures are put together again from the shares and the seed of the recipe. What it holds
    out is held out by every shipped recipe, the experts' too: an item's id alone decides.
    """
    known = load_recipe(recipe)
    material = team_material()
    # One by one: of rows joined into a chat only the first keeps its id.
    stages = [stage.model_copy(update={"join": 1}) for stage in known.stages]
    rows = {row.id for stage in stages for row in mix(stage, known, material).learnt}
    # A row is called as its item, or as its item with `-` and a word behind.
    learnt = {row[:end] for row in rows for end in (*_dashes(row), len(row))}
    return [item for item in items_of(*kinds) if item["id"] not in learnt]


def _dashes(text: str) -> list[int]:
    return [place for place, letter in enumerate(text) if letter == "-"]
