"""A parent of a merge as its headers describe it: no weight is read here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from merging.adapter import Adapter
from orbweave.errors import ModelError, shown
from orbweave.weights import TensorInfo, read_header

__all__ = ["DEPTH_KEYS", "Parent", "layer_of", "locate_tensors", "open_parent"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers")
"""What config.json may call the number of layers."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Parent:
    """A model folder, and the adapters laid over it."""

    name: str
    """The reference it was asked for by."""
    folder: Path
    """Holds config.json, weights and, unless an adapter brings its own, the tokenizer."""
    adapters: tuple[Adapter, ...]
    """Laid over the weights in this order."""
    config: Mapping[str, Any]
    """Content of config.json."""
    tensors: Mapping[str, TensorInfo]
    """Everything the weight files hold."""
    files: Mapping[str, Path]
    """Tensor name -> the file it is in."""

    @cached_property
    def n_layers(self) -> int:
        """Depth, counted from the tensors' names."""
        return 1 + max((n for n in map(layer_of, self.tensors) if n is not None), default=-1)

    @property
    def tokenizer_folder(self) -> Path | None:
        """Where the tokenizer is: with the last adapter that has one, else with the weights.

        A model that learnt to chat as an adapter keeps its chat template there.
        """
        folders = [*(adapter.folder for adapter in reversed(self.adapters)), self.folder]
        found = (f for f in folders if any((f / name).is_file() for name in TOKENIZERS))
        return next(found, None)


def open_parent(name: str, folder: Path, adapters: tuple[Adapter, ...] = ()) -> Parent:
    """Read the headers of a model folder.

    Raises:
        ModelError: a file is missing or damaged, or an adapter does not fit the weights.
    """
    files = locate_tensors(folder)
    headers = {path: read_header(path) for path in sorted(set(files.values()))}
    lost = sorted(tensor for tensor, path in files.items() if tensor not in headers[path])
    if lost:
        raise ModelError(
            f"wanted {lost[0]} in {files[lost[0]]}, as the index says, found none; "
            "fetch or build the model again"
        )
    tensors = {tensor: headers[path][tensor] for tensor, path in files.items()}
    for adapter in adapters:
        adapter.check_fits(tensors, name)
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as err:
        raise ModelError(f"wanted JSON in {folder / 'config.json'}, got {shown(err)}") from err
    return Parent(name, folder, adapters, config, tensors, files)


def locate_tensors(folder: Path) -> dict[str, Path]:
    """Return tensor name -> file, in order of layers as far as names tell.

    Raises:
        ModelError: there are no safetensors weights, or the index names a missing file.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = json.loads(index.read_bytes())["weight_map"]
            files = {str(tensor): folder / str(file) for tensor, file in names.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise ModelError(f"wanted a weight_map in {index}, found {shown(err)}") from err
    elif (folder / SINGLE).is_file():
        files = dict.fromkeys(read_header(folder / SINGLE), folder / SINGLE)
    else:
        raise ModelError(f"wanted {SINGLE} or {INDEX} in {folder}, found neither")
    for path in sorted(set(files.values())):
        if not path.is_file():
            raise ModelError(f"wanted the weights {path}, as {index.name} says, found none")
    return dict(sorted(files.items(), key=lambda item: _reading_order(item[0])))


def layer_of(tensor: str) -> int | None:
    """Return the layer a tensor belongs to, None for embeddings, last norm and head."""
    found = _LAYER.search(tensor)
    return int(found[1]) if found else None


def _reading_order(tensor: str) -> tuple[int, int, str]:
    """Sort embeddings before the layers, layers by number, the rest behind."""
    layer = layer_of(tensor)
    if layer is not None:
        return 1, layer, tensor
    return (0 if re.search("emb|wte|wpe", tensor) else 2), 0, tensor
