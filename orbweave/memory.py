"""Free memory, given back to the system.

The C library keeps what a training frees, in pieces that do not fit the next batch, whose rows
have another length: after a hundred steps of SmolLM2-135M it held 8 GB, 2 to 6 of them free.
glibc returns them when it is asked to; elsewhere there is no such call, and nothing is done.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]


def give_back() -> bool:
    """Return free memory to the system; tell whether there was any that could be returned.

    Source: malloc_trim(3) of the Linux manual.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(ctypes.c_size_t(0)))
