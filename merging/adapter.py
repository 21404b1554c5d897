"""A LoRA adapter in PEFT's format, laid over the weights it was trained on.

W becomes W + s B A with s = alpha / r (Hu et al., arXiv:2106.09685) or alpha / sqrt(r)
(rank-stabilised, arXiv:2312.03732); with DoRA (arXiv:2402.09353) each row is then set to its
learnt length. It is done row by row while weights are read, so no whole model is ever made.
An adapter that sets anything else is refused by the name of what it sets.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from merging.numbers import Array, narrow, widen
from orbweave.errors import ModelError, shown
from orbweave.weights import TensorInfo, read_header

if TYPE_CHECKING:
    from merging.tensors import Weights

__all__ = ["AdaptedWeights", "Adapter", "open_adapter"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MEND = "merge it with PEFT's merge_and_unload and give the folder of the result"

_KNOWN = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "eva_config"),
    *("exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern"),
    *("layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_type"),
    *("peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config"),
    *("target_modules", "task_type", "use_dora", "use_rslora"),
}
"""Settings that are understood here, or do not matter after training."""
_INITS = (True, "gaussian", "eva", "orthogonal", False)
"""Starts that leave the base weights alone; PiSSA, OLoRA and others change them."""
_FACTOR = re.compile(r"base_model\.model\.(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.weight)?")


@dataclass(frozen=True)
class Adapter:
    """A checked adapter; its weights are still on the disk."""

    folder: Path
    alpha: float
    rank_stabilised: bool
    dora: bool
    tensors: Mapping[str, TensorInfo] = field(repr=False)
    """Of its weights file."""
    factors: Mapping[str, Mapping[str, str]] = field(repr=False)
    """Weight of the base model -> {`lora_A`: tensor here, `lora_B`: ...}."""

    @property
    def weights(self) -> Path:
        """The file with its weights."""
        return self.folder / WEIGHTS

    def check_fits(self, base: Mapping[str, TensorInfo], name: str) -> None:
        """Check that every weight it changes is in the base model, in the right shape.

        Raises:
            ModelError: one is not.
        """
        for target, parts in self.factors.items():
            if target not in base:
                raise ModelError(
                    f"wanted {target}, which the adapter {self.folder} changes, in {name}, "
                    "found no such tensor; give the model it was trained on"
                )
            rows, columns = self.tensors[parts["lora_B"]].shape[0], self.rank_and_columns(target)[1]
            if base[target].shape != (rows, columns):
                raise ModelError(
                    f"wanted {target} of {name} in the shape {(rows, columns)} that the adapter "
                    f"{self.folder} was trained on, found {base[target].shape}; "
                    "give the model it was trained on"
                )

    def rank_and_columns(self, target: str) -> tuple[int, int]:
        """Return the shape of A: rank, and width of the weight it changes."""
        shape = self.tensors[self.factors[target]["lora_A"]].shape
        if len(shape) != 2:
            raise ModelError(
                f"wanted a matrix for lora_A of {target} in {self.folder}, found {shape}; "
                "the adapter is damaged, use another"
            )
        return shape[0], shape[1]

    def scale(self, target: str) -> float:
        """Return what the product B A is multiplied by."""
        rank = self.rank_and_columns(target)[0]
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def open_adapter(folder: Path) -> Adapter:
    """Read an adapter's configuration and headers.

    Raises:
        ModelError: a file is missing or damaged, or the adapter is of a kind that is not
            supported; names it.
    """
    config = _read_config(folder)
    faults = _unsupported(config)
    if faults:
        raise ModelError(
            f"wanted a LoRA adapter in {folder}, found {'; '.join(faults)}, "
            f"which cannot be applied here; {_MEND}"
        )
    tensors = read_header(folder / WEIGHTS)
    factors: dict[str, dict[str, str]] = {}
    for name in tensors:
        found = _FACTOR.fullmatch(name)
        if not found:
            raise ModelError(
                f"wanted LoRA factors in {folder / WEIGHTS}, found {name}, "
                f"which cannot be applied here; {_MEND}"
            )
        factors.setdefault(f"{found[1]}.weight", {})[found[2]] = name
    wanted = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if config.get("use_dora") else set())
    for target, parts in factors.items():
        if parts.keys() != wanted or any(len(tensors[p].shape) > 2 for p in parts.values()):
            raise ModelError(
                f"wanted {', '.join(sorted(wanted))} of the linear layer {target} in "
                f"{folder / WEIGHTS}, found {', '.join(sorted(parts))}; {_MEND}"
            )
    if not factors:
        raise ModelError(f"wanted LoRA factors in {folder / WEIGHTS}, found none; train it again")
    return Adapter(
        folder,
        float(config["lora_alpha"]),
        bool(config.get("use_rslora")),
        bool(config.get("use_dora")),
        tensors,
        factors,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        float(config["lora_alpha"] if config["peft_type"] == "LORA" else 0)
    except FileNotFoundError as err:
        raise ModelError(
            f"wanted an adapter in {folder}, found no {CONFIG}; give the folder that holds it"
        ) from err
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelError(
            f"wanted the settings of an adapter in {folder / CONFIG}, found {shown(err)}; "
            "train or fetch it again"
        ) from err
    return dict(config)


def _unsupported(config: dict[str, Any]) -> list[str]:
    """Return what is set in an adapter's configuration and cannot be applied here."""
    faults = [
        f"{key} = {shown(config[key])}" for key in config if key not in _KNOWN and config[key]
    ]
    wanted = {"peft_type": ("LORA",), "bias": ("none", None), "init_lora_weights": _INITS}
    for key, values in wanted.items():
        if key in config and config[key] not in values:
            faults.append(f"{key} = {shown(config[key])}")
    if config.get("alpha_pattern"):
        faults.append("alpha_pattern")
    return faults


class AdaptedWeights:
    """The weights of a model with an adapter over them; see `merging.tensors.Weights`."""

    def __init__(self, base: Weights, adapter: Adapter, factors: Weights) -> None:
        """Lay an adapter over weights; `factors` are those of its own file."""
        self._base, self._adapter, self._stored = base, adapter, factors
        # A few layers' worth: neighbouring chunks share their factors.
        self._factors = lru_cache(maxsize=4)(self._load)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Those of the base."""
        return self._base.tensors

    def read(self, name: str, start: int, stop: int) -> Array:
        """Return flattened elements, rounded to the dtype of the base as a saved merge is."""
        if name not in self._adapter.factors:
            return self._base.read(name, start, stop)
        factors, dtype = self._factors(name), self.tensors[name].dtype
        a, b = factors["lora_A"], factors["lora_B"]
        width = a.shape[1]
        first, last = start // width, -(-stop // width)
        rows = widen(self._base.read(name, first * width, last * width), dtype).reshape(-1, width)
        rows = rows + b[first:last] @ a * self._adapter.scale(name)
        if self._adapter.dora:
            length = factors["lora_magnitude_vector"][first:last]
            rows *= (length / np.linalg.norm(rows, axis=1))[:, None]
        return narrow(rows, dtype).reshape(-1)[start - first * width : stop - first * width]

    def _load(self, name: str) -> dict[str, Array]:
        loaded = {}
        for part, stored in self._adapter.factors[name].items():
            dtype, shape = self._stored.tensors[stored]
            numbers = widen(self._stored.read(stored, 0, math.prod(shape)), dtype)
            loaded[part] = numbers.astype(np.float32, copy=False).reshape(shape)
        return loaded
