"""The threads that share torch's work with the one that asked for it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["dismissing_team"]

_SOFT = 1
"""`omp_pause_soft` of OpenMP 5.0: what is no thread may be kept."""


@contextmanager
def dismissing_team() -> Iterator[None]:
    """End the threads that torch keeps for the calling one; its next product gets new ones.

    GNU's OpenMP keeps a team for every thread that ever computed. Once all teams together are
    more threads than the cores, they sleep between any two products, and waking them takes
    longer than the product: beside one idle team a token took 74 ms instead of 53 (base model,
    float32, two cores). So whoever computes now and then does so in here, and so does the engine
    for each token: a new team costs less than 0.1 ms. Other kinds of OpenMP are left alone.
    """
    try:
        yield
    finally:
        if (library := _gnu_openmp()) is not None:
            library.omp_pause_resource_all(_SOFT)


@cache
def _gnu_openmp() -> Any:
    """Return GNU's OpenMP as torch loaded it, None if it loaded another."""
    import torch  # noqa: F401

    try:
        library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except (AttributeError, OSError):  # a system without that way to open it, or not loaded
        return None
    return library if hasattr(library, "omp_pause_resource_all") else None
