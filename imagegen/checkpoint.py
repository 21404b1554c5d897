"""Training checkpoints: weights and optimiser states as safetensors, the newest wins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["load_average", "load_checkpoint", "save_checkpoint"]


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def _flatten(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a module's or optimiser's state under dotted names."""
    if "param_groups" not in state:
        return {
            k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in state.items()
        }
    return {
        f"{i}.{k}": torch.as_tensor(v).detach().clone(memory_format=torch.contiguous_format)
        for i, slots in state["state"].items()
        for k, v in slots.items()
    }


def save_checkpoint(folder: Path, step: int, parts: Mapping[str, _Stateful]) -> Path:
    """Write `checkpoint-<step>/` whole or not at all, and drop older ones."""
    target, temporary = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, part in parts.items():
        save_file(_flatten(part.state_dict()), temporary / f"{name}.safetensors")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    for old in _checkpoints(folder)[:-1]:
        shutil.rmtree(old)
    return target


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))


def load_checkpoint(folder: Path, parts: Mapping[str, _Stateful]) -> int:
    """Load the newest checkpoint into `parts` and return its step; 0 if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _checkpoints(folder)
    if not found:
        return 0
    for name, part in parts.items():
        with safe_open(found[-1] / f"{name}.safetensors", "pt") as f:
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        state = part.state_dict()
        if "param_groups" in state:
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                i, _, slot = key.partition(".")
                slots.setdefault(int(i), {})[slot] = value
            state["state"] = slots
            part.load_state_dict(state)
        else:
            part.load_state_dict(tensors)
    return int(found[-1].name.rpartition("-")[2])


def load_average(model: nn.Module, run: Path, part: str = "") -> None:
    """Load the moving average of a run's newest checkpoint into `model`.

    Args:
        model: What takes the weights.
        run: A folder `imagegen.loop.fit` trained in.
        part: Attribute of the trained module that `model` is; empty if it is the whole.
    """
    state = load_file(_checkpoints(run)[-1] / "ema.safetensors")
    start = f"module.{part}." if part else "module."
    model.load_state_dict(
        {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    )
