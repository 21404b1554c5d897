"""The two files of a small network: its weights in fp16, and in JSON what it was made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file, save

from imagegen.assembly import REINSTALL
from orbweave.errors import ModelError, shown
from orbweave.files import sha256_file, write_bytes, write_text
from orbweave.records import Record
from orbweave.weights import put_weights, read_header

__all__ = ["SavedNetwork", "load_network", "save_network"]

Config = TypeVar("Config", bound=Record)


class SavedNetwork(NamedTuple, Generic[Config]):
    """A network as it was saved."""

    network: Any
    config: Config
    sha256: str
    """Of the file of weights."""


def save_network(network: Any, config: Record, folder: Path, name: str) -> None:
    """Write `<name>.safetensors` and `<name>.json`, each whole or not at all."""
    state = {
        key: value.to(torch.float16).contiguous()
        for key, value in network.state_dict().items()
        if value.is_floating_point()  # not the counters of batches
    }
    write_bytes(folder / f"{name}.safetensors", save(state, metadata={"format": "pt"}))
    write_text(folder / f"{name}.json", config.model_dump_json(indent=2) + "\n")


def load_network(
    folder: Path, name: str, kind: type[Config], build: Callable[[Config], Any], *, what: str
) -> SavedNetwork[Config]:
    """Load what `save_network` wrote.

    Args:
        folder: Where the two files are.
        name: Theirs, without an ending.
        kind: What the JSON describes.
        build: Makes the untrained network of such a description.
        what: What the network is called in errors.

    Raises:
        ModelError: a file is missing, damaged or does not fit the other.
    """
    description, weights = folder / f"{name}.json", folder / f"{name}.safetensors"
    try:
        config = kind.model_validate(json.loads(description.read_text(encoding="utf-8")))
        network = build(config)
    except (OSError, ValueError) as err:  # a ValidationError is a ValueError
        came = "no such file" if isinstance(err, FileNotFoundError) else shown(err)
        raise ModelError(f"wanted {description} for {what}, got {came}; {REINSTALL}") from err
    counters = {k: v for k, v in network.state_dict().items() if not v.is_floating_point()}
    try:
        read_header(weights, REINSTALL)
        put_weights(network, load_file(weights) | counters, what, REINSTALL)
    except ModelError as err:
        raise ModelError(f"wanted {what}; {err}") from err
    return SavedNetwork(network, config, sha256_file(weights))
