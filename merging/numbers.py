"""Numbers as weight files hold them, and as they are computed with.

Stored arrays have the dtype of the file, named as safetensors does; numpy knows no bfloat16, so
such numbers lie there as their sixteen bits. Wide arrays are float32, or float64 for float64.
Numpy alone: a merge from files to a file never has to load torch, which takes longer than it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLOATS",
    "STORED",
    "TORCH_NAMES",
    "Array",
    "largest",
    "narrow",
    "widen",
]

Array = NDArray[Any]
STORED: dict[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""The format's names of what can be read, and what numpy takes each for."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The format's names and torch's, which are the configuration's too."""
_NAN = 0x7FC0
"""Not a number, in bfloat16."""


def widen(stored: Array, dtype: str) -> Array:
    """Return numbers as they are computed with; float32 and float64 are not copied.

    Args:
        stored: Any shape, of the numpy dtype that belongs to `dtype`.
        dtype: One of `FLOATS`.
    """
    if dtype == "BF16":
        bits = stored.astype(np.uint32)
        np.left_shift(bits, 16, out=bits)
        return bits.view(np.float32)
    return stored.astype(np.float32) if dtype == "F16" else stored


def narrow(numbers: Array, dtype: str) -> Array:
    """Return numbers as they are stored, to the nearest, ties to even; not copied if they fit.

    Too large a number becomes infinite, one that is none stays none.

    Args:
        numbers: float32 or float64 for a float `dtype`, any shape; not changed.
        dtype: A name of `STORED`.
    """
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return numbers.astype(STORED[dtype], copy=False)
    with np.errstate(over="ignore"):
        bits = numbers.astype(np.float32).view(np.uint32)
    # to even: a tie rounds up only from an odd number
    np.add(bits, 0x7FFF + (bits >> 16 & 1), out=bits)
    np.right_shift(bits, 16, out=bits)
    stored = bits.astype(np.uint16)
    if np.isnan(numbers.min(initial=0)):  # the addition may have carried such bits to a number
        stored[np.isnan(numbers)] = _NAN
    return stored


def largest(dtype: str) -> float:
    """Return the largest number of a float dtype."""
    if dtype == "BF16":
        return float(widen(np.array([0x7F7F], np.uint16), dtype)[0])
    return float(np.finfo(TORCH_NAMES[dtype]).max)
