"""Pictures that continue themselves across their edges: every convolution wraps around."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imagegen.families import Family
from orbweave.errors import UsageError

__all__ = ["check_tiles", "wrapping"]


def check_tiles(family: Family) -> None:
    """Raise UsageError for a family that cannot make seamless tiles."""
    if not family.tiles:
        raise UsageError(
            f"wanted a seamless tile, {family.name} cannot make one: a transformer knows where in "
            "the picture each token is; take a Stable Diffusion 1, 2 or XL model, or loom"
        )


@contextmanager
def wrapping(pipe: Any) -> Iterator[None]:
    """Let the convolutions of a pipeline see the opposite edge where the picture ends."""
    from torch import nn

    layers = [
        layer
        for part in pipe.components.values()
        if isinstance(part, nn.Module)
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros"
    ]
    for layer in layers:
        layer.padding_mode = "circular"
    try:
        yield
    finally:
        for layer in layers:
            layer.padding_mode = "zeros"
