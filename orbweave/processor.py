"""What the processor multiplies natively."""

from __future__ import annotations

__all__ = ["multiplies_bfloat16"]


def multiplies_bfloat16() -> bool:
    """Return whether there are instructions for products of bfloat16.

    Most laptops have none: torch then emulates them, far slower than products of float32.
    """
    import torch

    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
