"""What this machine and installation are: for `orbweave env` and for every record."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version

from orbweave import __version__
from orbweave.paths import cache_root

__all__ = ["LIBRARIES", "environment", "machine", "peak_memory_mb"]

LIBRARIES = (
    "torch",
    "transformers",
    "diffusers",
    "sentence-transformers",
    "autogen-agentchat",
    "trl",
    "peft",
    "mergekit",
    "gradio",
    "vllm",
)


def environment() -> dict[str, str]:
    """Return the versions that decide a result; reads metadata only, imports nothing heavy."""
    found = {"orbweave": __version__, "python": platform.python_version()}
    for name in LIBRARIES[:5]:
        found[name] = _version(name)
    return found | {"platform": platform.platform(), "cores": str(cores())}


def machine() -> dict[str, str]:
    """Return what `orbweave env` shows: versions, memory, cache, offline switches."""
    found = environment()
    found |= {name: _version(name) for name in LIBRARIES[5:]}
    found["executable"] = sys.executable
    found["memory"] = f"{_memory_gb():.1f} GB"
    found["cache"] = str(cache_root())
    for name in ("HF_HOME", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        if name in os.environ:
            found[name] = os.environ[name]
    return found


def cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory_mb() -> float:
    """Return the most memory this process has held so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB here


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
