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
    "pack",
    "packed",
    "unpack",
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
_UPPER = np.uint32(0xFFFF0000)
"""The half of a float32's bits that bfloat16 keeps."""


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
    _round(bits, np.empty_like(bits))
    np.right_shift(bits, 16, out=bits)
    stored = bits.astype(np.uint16)
    if np.isnan(numbers.min(initial=0)):  # the addition may have carried such bits to a number
        stored[np.isnan(numbers)] = _NAN
    return stored


def packed(numbers: Array) -> Array:
    """Return the part of n float32's own memory that `unpack` reads: n uint16, a view."""
    n = len(numbers)
    return numbers.view(np.uint16)[n - n % 2 :][:n]


def unpack(numbers: Array) -> None:
    """Widen in place what lies in `packed(numbers)`: elements 0, 2, 4, ..., then 1, 3, 5, ...

    Two neighbours lie in one word, its lower half and its upper: so each half of the result is
    one operation on words, half the work of widening in order. Sums over elements, and of arrays
    unpacked alike, do not ask for the order.

    Args:
        numbers: float32, shape (n,); written over.
    """
    m, bits = len(numbers) // 2, numbers.view(np.uint32)
    if len(bits) % 2:
        bits[-1] = np.uint32(packed(numbers)[-1]) << 16
    even, odd = bits[:m], bits[m : 2 * m]
    np.left_shift(odd, 16, out=even)
    np.bitwise_and(odd, _UPPER, out=odd)


def pack(numbers: Array, scratch: Array) -> Array:
    """Return the bfloat16 that `unpack` makes such numbers of, rounded as by `narrow`.

    Args:
        numbers: float32, shape (n,), none of them NaN; written over, the result lies in them.
        scratch: float32, shape (n,); written over.

    Returns:
        Bits of bfloat16, shape (n,), in the order they had before `unpack`.
    """
    m, bits = len(numbers) // 2, numbers.view(np.uint32)
    even, odd = bits[:m], bits[m : 2 * m]
    _round(bits, scratch.view(np.uint32))
    np.right_shift(even, 16, out=even)
    np.bitwise_and(odd, _UPPER, out=odd)
    np.bitwise_or(even, odd, out=even)
    stored = bits.view(np.uint16)[: len(bits)]
    if len(bits) % 2:
        stored[-1] = bits[-1] >> 16
    return stored


def _round(bits: Array, scratch: Array) -> None:
    """Round bits of float32, in place, so that their upper halves are the nearest bfloat16."""
    np.right_shift(bits, 16, out=scratch)
    np.bitwise_and(scratch, 1, out=scratch)  # to even: a tie rounds up only from an odd number
    np.add(scratch, 0x7FFF, out=scratch)
    np.add(bits, scratch, out=bits)


def largest(dtype: str) -> float:
    """Return the largest number of a float dtype."""
    if dtype == "BF16":
        return float(widen(np.array([0x7F7F], np.uint16), dtype)[0])
    return float(np.finfo(TORCH_NAMES[dtype]).max)
