"""Training checkpoints: weights and optimiser states as safetensors, the newest wins."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orbweave.errors import OutputError

__all__ = ["load_average", "load_checkpoint", "newest_step", "save_checkpoint"]

_NAME = re.compile(r"checkpoint-([0-9]+)")


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
    """Write `checkpoint-<step>/` whole or not at all, and drop older ones of the same parts.

    Raises:
        OutputError: something else has that name.
    """
    target, temporary = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.tmp"
    if target.exists():
        raise OutputError(
            f"wanted to write the checkpoint {target}, found something else there; "
            "move it away and run it again"
        )
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, part in parts.items():
        save_file(_flatten(part.state_dict()), temporary / f"{name}.safetensors")
    os.replace(temporary, target)
    for old in _checkpoints(folder, parts)[:-1]:
        for name in parts:
            (old / f"{name}.safetensors").unlink()
        with suppress(OSError):  # what somebody else laid beside them stays
            old.rmdir()
    return target


def newest_step(folder: Path, parts: Iterable[str]) -> int:
    """Return the step of the newest checkpoint of these parts; 0 if there is none."""
    return max(map(_step, _checkpoints(folder, parts)), default=0)


def _checkpoints(folder: Path, parts: Iterable[str]) -> list[Path]:
    """Checkpoints of these parts, the newest last; others may lie beside them."""
    named = [path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in named if _holds(path, parts)), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _holds(path: Path, parts: Iterable[str]) -> bool:
    """Whether all these parts are in a folder, which makes it one of ours."""
    return all((path / f"{part}.safetensors").is_file() for part in parts)


def load_checkpoint(folder: Path, parts: Mapping[str, _Stateful]) -> int:
    """Load the newest checkpoint into `parts` and return its step; 0 if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _checkpoints(folder, parts)
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
    return _step(found[-1])


def load_average(model: nn.Module, run: Path, part: str = "") -> None:
    """Load the moving average of a run's newest checkpoint into `model`.

    Args:
        model: What takes the weights.
        run: A folder `imagegen.loop.fit` trained in.
        part: Attribute of the trained module that `model` is; empty if it is the whole.
    """
    newest = _checkpoints(run, ("model", "ema", "optimiser"))[-1]
    state = load_file(newest / "ema.safetensors")
    start = f"module.{part}." if part else "module."
    model.load_state_dict(
        {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
    )
