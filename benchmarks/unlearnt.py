"""Training items that a shipped model never learnt: what its provenance says it saw is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.items import ITEMS
from training.mix import mix
from training.recipe import Stage, load_recipe
from ui.material import team_material

__all__ = ["ROOT", "WEIGHTS", "items_of", "unlearnt"]

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "training" / "weights" / "generalist"


def items_of(*kinds: str) -> list[dict[str, Any]]:
    """Return the shipped items of some kinds, in the order of the files."""
    files = sorted(ITEMS.rglob("*.jsonl"))
    items = (json.loads(line) for f in files for line in f.read_text("utf-8").splitlines())
    return [item for item in items if item["kind"] in kinds]


def unlearnt(*kinds: str, weights: Path = WEIGHTS) -> list[dict[str, Any]]:
    """Return the items of which the model in `weights` learnt no row in its last stage.

    The mixture of that stage is put together again from the recipe, the shares and the seed
    that its provenance names.
    """
    provenance = json.loads((weights / "provenance.json").read_text("utf-8"))
    recipe = load_recipe(provenance["recipe"])
    recipe = recipe.model_copy(update={"seed": provenance["seed"]})
    stage = Stage.model_validate(provenance["stage"])
    learnt = {row.id for row in mix(stage, recipe, team_material()).learnt}
    return [
        item
        for item in items_of(*kinds)
        if item["id"] not in learnt and not any(i.startswith(f"{item['id']}-") for i in learnt)
    ]
