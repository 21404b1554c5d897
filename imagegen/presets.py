"""The settings image models are meant to be used with; `presets.yaml` holds them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

__all__ = ["preset", "trigger_of"]

PRESETS = Path(__file__).with_name("presets.yaml")


def preset(model: str) -> dict[str, Any]:
    """Return fields of a `RenderRequest` that suit a model; at least its name, as `model`."""
    known: dict[str, Any] = _document()["presets"].get(model, {})
    return {"model": model} | known


def trigger_of(adapter: str) -> str | None:
    """Return the trigger words of an adapter that is known by name."""
    known: str | None = _document()["triggers"].get(adapter)
    return known


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(PRESETS.read_text(encoding="utf-8"))
    return document
