"""The model card of a checkpoint: what it is, what it was made from, how well it went."""

from __future__ import annotations

from typing import Any

import yaml

from training.recipe import Recipe

__all__ = ["model_card"]


def model_card(facts: dict[str, Any], recipe: Recipe) -> str:
    """Return README.md of a checkpoint; the YAML head follows the Hub's model card fields.

    Args:
        facts: Content of the checkpoint's `provenance.json`.
        recipe: The recipe it was made by.

    Source: https://huggingface.co/docs/hub/model-cards
    """
    stage = facts["stage"]
    head = {
        "base_model": recipe.model,
        "library_name": "peft" if recipe.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["trl", stage["method"], *(["lora"] if recipe.adapter else [])],
        "datasets": list(facts["counts"]),
    }
    if facts["license"]:
        head["license"] = facts["license"]
    figures = [f"| {name} | {value} |" for name, value in facts["figures"].items()]
    data = [f"| {name} | {count:,} |" for name, count in facts["counts"].items()]
    settings = [f"| {name} | {value} |" for name, value in stage.items() if name != "data"]
    adapter = [f"| adapter {name} | {value} |" for name, value in (facts["adapter"] or {}).items()]
    came = [_parent(parent) for parent in facts["parents"]]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {recipe.name}: {facts['name']}",
        "",
        recipe.description or "A checkpoint of an Orbweave training recipe.",
        "",
        f"Made from: {' <- '.join(came)}.",
        "",
        "| data | rows |",
        "|---|---|",
        *data,
        "",
        "| setting | value |",
        "|---|---|",
        *settings,
        *adapter,
        f"| seed | {facts['seed']} |",
        "",
        "| figure | value |",
        "|---|---|",
        *figures,
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) + ".",
        "Key of data, settings and parents: `" + facts["key"] + "`.",
        "",
    ]
    return "\n".join(lines)


def _parent(parent: dict[str, Any]) -> str:
    if "model" in parent:
        return f"`{parent['model']}` (sha256 {parent['sha256'][:12]})"
    return f"{parent['recipe']}/{parent['name']} (key {parent['key'][:12]})"
