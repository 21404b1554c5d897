"""Where pictures are rendered and in which numbers: they decide the last bits of the pixels."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from orbweave import __version__
from orbweave.processor import multiplies_bfloat16

if TYPE_CHECKING:
    import torch

__all__ = [
    "Dtype",
    "Placement",
    "device",
    "environment",
    "free_bytes",
    "mixed_precision",
    "number_type",
    "placement",
]

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
"""Number type of the weights; `auto` is bfloat16 where the hardware multiplies it, else float32,
and float16 on Apple's GPUs."""
Placement = Literal["whole", "by part", "by layer"]
"""How a model lies in the GPU's memory: all of it, the part that works, or the layer that works."""
WORKING_SHARE = 0.7
"""Of the free memory, for weights; the rest is for what lies between the layers."""
LARGEST_PART_SHARE = 0.75
"""Of a model's bytes that its largest part has: 0.74 for SDXL's UNet, 0.71 for FLUX's transformer,
less for SD 3 with its T5; from the parameter counts on their model cards."""


def device() -> str:
    """Return `cuda` where there is a GPU, `mps` on Apple's, else `cpu`."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def free_bytes() -> int | None:
    """Return the free memory of the GPU; None where the weights lie in the machine's own."""
    import torch

    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None


def placement(n_bytes: int, free: int | None) -> Placement:
    """Choose how a model lies in the GPU's memory; offloading costs time, not pixels.

    Args:
        n_bytes: Of its weights, as stored.
        free: Bytes of GPU memory; None if there is none apart from the machine's own.
    """
    if free is None or n_bytes <= WORKING_SHARE * free:
        return "whole"
    return "by part" if LARGEST_PART_SHARE * n_bytes <= WORKING_SHARE * free else "by layer"


def number_type(wanted: Dtype = "auto") -> str:
    """Return `bfloat16`, `float16` or `float32`."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if torch.backends.mps.is_available():
        return "float16"
    return "bfloat16" if multiplies_bfloat16() else "float32"


def mixed_precision() -> torch.autocast:
    """Return the context in which a network of float32 weights learns in `number_type()`."""
    import torch

    chosen = number_type()
    return torch.autocast(device(), getattr(torch, chosen), enabled=chosen != "float32")


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
