"""Whether every weight of a model is a sound number, read in pieces of a few megabytes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from merging.kernel import inner
from merging.numbers import FLOATS, widen
from merging.tensors import Weights
from orbweave.errors import Cancelled

__all__ = ["unsound_tensor"]

_CHUNK = 1 << 18
"""Elements looked at together."""


def unsound_tensor(
    weights: Weights, is_cancelled: Callable[[], bool] = lambda: False
) -> str | None:
    """Return the name of a tensor that holds NaN, infinite or absurdly large weights, or None.

    Absurdly large is what our own merges refuse: numbers whose squares overflow, as a flipped bit
    of the exponent leaves them.

    Raises:
        ModelError: a file cannot be read.
        Cancelled: `is_cancelled`, which is asked after every tensor, said so.
    """
    names = [name for name, info in weights.tensors.items() if info.dtype in FLOATS]

    def is_sound(name: str) -> bool:
        dtype, shape = weights.tensors[name]
        n = math.prod(shape)
        chunks = (weights.read(name, i, min(i + _CHUNK, n)) for i in range(0, n, _CHUNK))
        wide = (widen(chunk, dtype) for chunk in chunks)
        with np.errstate(all="ignore"):  # what overflows is infinite or not a number then
            return all(math.isfinite(inner(numbers, numbers)) for numbers in wide)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            futures = {pool.submit(is_sound, name): name for name in names}
            for future in as_completed(futures):
                if not future.result():
                    return futures[future]
                if is_cancelled():
                    raise Cancelled("the merge was stopped; nothing half made was kept")
        finally:
            pool.shutdown(cancel_futures=True)
    return None
