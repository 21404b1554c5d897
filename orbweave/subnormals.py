"""Numbers too small for full precision, which a processor multiplies a hundred times slower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_subnormals"]


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Have torch round them to zero while the block runs; a training comes upon many."""
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
