"""Where Orbweave keeps what it can build again."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_dir

__all__ = ["CACHE_VARIABLE", "cache_root"]

CACHE_VARIABLE = "ORBWEAVE_CACHE"
"""Environment variable that moves the cache, for instance to a larger disk."""


def cache_root() -> Path:
    """Return the absolute cache folder; it need not exist yet, and nothing is created."""
    chosen = os.environ.get(CACHE_VARIABLE, "").strip()
    return Path(chosen or user_cache_dir("orbweave")).expanduser().absolute()
