"""How two models become one, and what came of it.

The face is small and loads lazily: `import merging` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merging.build import merge, resolve_model
    from merging.kernel import karcher, lerp, slerp
    from merging.recipe import Recipe, load_recipe

__all__ = ["Recipe", "karcher", "lerp", "load_recipe", "merge", "resolve_model", "slerp"]

_HOMES = {
    "Recipe": "recipe",
    "karcher": "kernel",
    "lerp": "kernel",
    "load_recipe": "recipe",
    "merge": "build",
    "resolve_model": "build",
    "slerp": "kernel",
}


def __getattr__(name: str) -> object:
    """Import a public name from its file on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'merging' has no attribute {name!r}")
    return getattr(import_module(f"merging.{_HOMES[name]}"), name)
