"""How a prompt becomes a picture, and what the picture shows.

The face is small and loads lazily: `import imagegen` costs neither torch nor diffusers.
Measuring is in `imagegen.measure`, a module and so no name here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagegen.pipeline import Renderer
    from imagegen.png import PngNote, read_note, read_request

__all__ = ["PngNote", "Renderer", "read_note", "read_request"]

_HOMES = {"PngNote": "png", "Renderer": "pipeline", "read_note": "png", "read_request": "png"}


def __getattr__(name: str) -> object:
    """Import a public name from its file on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'imagegen' has no attribute {name!r}")
    return getattr(import_module(f"imagegen.{_HOMES[name]}"), name)
