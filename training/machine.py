"""What this machine can do: GPUs, a fast bf16, operations a second and what is left of them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch

__all__ = ["Speed", "gpu_count", "has_fast_bf16", "machine_speed"]


class Speed(NamedTuple):
    """How fast this machine is."""

    flops: float
    """Operations a second of a large matrix product if nothing else runs."""
    share: float
    """Of the processor, what other work leaves now, in (0, 1]; 1 on a GPU."""
    bf16: bool
    """Whether it trains in bf16; else in float32."""


def has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 natively; elsewhere it is slower than float32."""
    check: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(check and check())


def gpu_count() -> int:
    """Return how many GPUs torch sees."""
    return torch.cuda.device_count()


def machine_speed(processes: int = 1) -> Speed:
    """Measure a large matrix product in the type trained in; takes about a second.

    On a processor the time it had counts, not the time that passed: other work would halve
    the figure, or worse. Several processes share one machine's processor, but have a GPU each.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = device == "cuda" or has_fast_bf16()
    a = torch.ones(2048, 2048, dtype=torch.bfloat16 if fast else torch.float32, device=device)
    float((a @ a)[0, 0])  # the first one sets things up
    started, had, n = time.perf_counter(), time.process_time(), 0
    while n < 4 or time.perf_counter() - started < 1.0:
        # Reading a value waits for the device.
        float((a @ a)[0, 0])
        n += 1
    passed, had = time.perf_counter() - started, time.process_time() - had
    flops = n * 2 * 2048**3
    if device == "cuda":
        return Speed(flops / passed * processes, 1.0, fast)
    used = min(passed, had / torch.get_num_threads())
    return Speed(flops / used, used / passed, fast)
