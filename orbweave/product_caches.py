"""How many prepared products oneDNN and torch keep."""

from __future__ import annotations

import os

__all__ = ["cap_product_caches"]

_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""For each shape of a bf16 product half a megabyte and more is kept, by each library for 1,024
shapes. Every length of a text brings new ones, some thirty in all."""


def cap_product_caches() -> None:
    """Have 128 shapes kept at most; call it before the first product.

    What a person has set stays. With 1,024 a training of many lengths grew by gigabytes, and so
    did a long batch.
    """
    for variable in _VARIABLES:
        os.environ.setdefault(variable, "128")
