"""Where pictures are rendered and in which numbers: they decide the last bits of the pixels."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Literal

from orbweave import __version__

__all__ = ["Dtype", "device", "environment", "number_type"]

Dtype = Literal["auto", "bfloat16", "float32"]
"""Number type of the weights; `auto` is bfloat16 where the hardware multiplies it, else float32."""


def device() -> str:
    """Return `cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def number_type(wanted: Dtype = "auto") -> str:
    """Return `bfloat16` or `float32`.

    A processor is good at bfloat16 with AVX512-BF16 or AMX; others emulate it slowly.
    """
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    can = torch.cpu.get_capabilities()
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") else "float32"


def environment(wanted: Dtype = "auto") -> dict[str, str]:
    """Return versions, processor and number type, for the record of a picture."""
    import torch

    packages = ("torch", "diffusers", "transformers")
    return {
        "orbweave": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "device": device(),
        "dtype": number_type(wanted),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
