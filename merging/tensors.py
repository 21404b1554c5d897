"""Weights read in pieces and written in pieces, so that no whole tensor need be in memory.

The format is eight bytes of header length, a JSON header, the tensors' bytes without gaps
(https://github.com/huggingface/safetensors#format). Reading plain bytes instead of mapping the
files keeps the memory in use at a few chunks, whatever the model's size.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from merging.adapter import AdaptedWeights
from merging.numbers import STORED, TORCH_NAMES, Array, narrow
from merging.parent import INDEX, SINGLE, Parent
from orbweave.errors import ModelError
from orbweave.files import write_text
from orbweave.weights import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LoadedWeights",
    "ShardWriter",
    "StoredWeights",
    "Weights",
    "as_stored",
    "n_bytes",
    "open_weights",
]

_NAMES = {f"torch.{torch_name}": name for name, torch_name in TORCH_NAMES.items()}
_MEND = "fetch or build the model again"
SHARD_BYTES = 5_000_000_000
"""Size of a shard, as transformers cut them for years."""


class Weights(Protocol):
    """A model's tensors; safe to read from several threads."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name -> dtype and shape."""

    def read(self, name: str, start: int, stop: int) -> Array:
        """Return elements [start, stop) of the flattened tensor, as they are stored."""


class StoredWeights:
    """Weights in safetensors files, which stay open as long as this lives."""

    def __init__(self, tensors: Mapping[str, TensorInfo], files: Mapping[str, Path]) -> None:
        """Open the files.

        Raises:
            ModelError: one of them cannot be opened, or its header is damaged.
        """
        self.tensors = tensors
        self._files = files
        self._places: dict[str, int] = {}
        self._handles: dict[Path, int] = {}
        weakref.finalize(self, _close, self._handles)
        for path in sorted(set(files.values())):
            try:
                self._handles[path] = os.open(path, os.O_RDONLY)
            except OSError as err:
                raise ModelError(
                    f"wanted the weights in {path}, the system said {err.strerror}"
                ) from err
            self._places |= _places(path, tensors)

    def read(self, name: str, start: int, stop: int) -> Array:
        """Return elements [start, stop) of the flattened tensor; raises as `fill`."""
        chunk = np.empty(stop - start, STORED[self.tensors[name].dtype])
        self.fill(name, start, chunk)
        return chunk

    def fill(self, name: str, start: int, chunk: Array) -> None:
        """Fill a contiguous array with elements of the flattened tensor, from `start` on.

        Raises:
            ModelError: the tensor is not so long, or the file cannot be read or ends too early.
        """
        n_elements = math.prod(self.tensors[name].shape)
        if start + len(chunk) > n_elements:  # behind them lies the next tensor
            raise ModelError(
                f"wanted {start + len(chunk):,} numbers of {name} from {self._files[name]}, it has "
                f"{n_elements:,}; merge models of one size"
            )
        view = chunk.view(np.uint8).data
        path = self._files[name]
        place = self._places[name] + start * chunk.itemsize
        try:
            while view and (n_read := os.preadv(self._handles[path], [view], place)):
                view, place = view[n_read:], place + n_read
        except OSError as err:
            raise ModelError(f"wanted {name} from {path}, the system said {err.strerror}") from err
        if view:
            raise ModelError(f"wanted {name} from {path}, the file ends {len(view):,} bytes early")


def _close(handles: dict[Path, int]) -> None:
    for handle in handles.values():
        os.close(handle)


class LoadedWeights:
    """Weights that are in memory already; read without a copy."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._flat = {name: as_stored(tensor) for name, tensor in tensors.items()}
        self.tensors = {
            name: TensorInfo(_NAMES[str(tensor.dtype)], tuple(tensor.shape))
            for name, tensor in tensors.items()
        }

    def read(self, name: str, start: int, stop: int) -> Array:
        """Return elements [start, stop) of the flattened tensor, a view."""
        return self._flat[name][start:stop]


def as_stored(tensor: Tensor) -> Array:
    """Return a tensor's numbers as one stored array; a view if it is contiguous."""
    import torch  # whoever has tensors has loaded it

    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.bfloat16:
        bits: Array = flat.view(torch.int16).numpy().view(np.uint16)
        return bits
    return flat.numpy()


def open_weights(parent: Parent) -> Weights:
    """Return a parent's weights with its adapters over them."""
    weights: Weights = StoredWeights(parent.tensors, parent.files)
    for adapter in parent.adapters:
        factors = StoredWeights(adapter.tensors, dict.fromkeys(adapter.tensors, adapter.weights))
        weights = AdaptedWeights(weights, adapter, factors)
    return weights


class ShardWriter:
    """Writes a model's tensors in any order, piece by piece, from several threads.

    All headers and the index are written first, since names, dtypes and shapes are known.
    """

    def __init__(
        self, folder: Path, tensors: Mapping[str, TensorInfo], *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        """Lay out the shards.

        Args:
            folder: An existing folder.
            tensors: What will be written.
            shard_bytes: Largest shard; a tensor larger than that gets one of its own.
        """
        self._tensors = tensors
        self._places: dict[str, tuple[int, int]] = {}
        self._files = ExitStack()
        shards = _shards(tensors, shard_bytes)
        names = (
            [SINGLE] if len(shards) == 1 else [_shard_name(i, shards) for i in range(len(shards))]
        )
        for name, shard in zip(names, shards, strict=True):
            file = self._files.enter_context((folder / name).open("xb", buffering=0))
            header, places = _header({tensor: tensors[tensor] for tensor in shard})
            file.write(header)
            file.truncate(len(header) + sum(n_bytes(tensors[tensor]) for tensor in shard))
            self._places |= {
                tensor: (file.fileno(), len(header) + place) for tensor, place in places.items()
            }
        if len(shards) > 1:
            files = {t: name for name, shard in zip(names, shards, strict=True) for t in shard}
            total = sum(n_bytes(info) for info in tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
            write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")

    def write(self, name: str, start: int, chunk: Array) -> None:
        """Write the elements from `start` on, wide ones, rounded to the tensor's dtype.

        Raises:
            OSError: the disk refused.
        """
        self.write_stored(name, start, narrow(chunk, self._tensors[name].dtype))

    def write_stored(self, name: str, start: int, stored: Array) -> None:
        """Write the elements from `start` on, which are of the tensor's dtype already.

        Raises:
            OSError: the disk refused.
        """
        file, place = self._places[name]
        stored = np.ascontiguousarray(stored)
        view = stored.view(np.uint8).data
        place += start * stored.itemsize
        while view:
            n_written = os.pwrite(file, view, place)
            view, place = view[n_written:], place + n_written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()


def n_bytes(info: TensorInfo) -> int:
    """Return the size of a stored tensor."""
    return math.prod(info.shape) * _itemsize(info)


def _itemsize(info: TensorInfo) -> int:
    return np.dtype(STORED[info.dtype]).itemsize


def _places(path: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Return tensor -> offset of its first byte in a file that `read_header` has checked.

    Tensors that overlap or leave gaps are refused, as by the format's own reader: the header
    is damaged then, a name that was changed into another one for instance.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    places: dict[str, int] = {}
    place = 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        begin, end = header[name]["data_offsets"]
        if name in tensors and end - begin != n_bytes(tensors[name]):
            raise ModelError(
                f"wanted {n_bytes(tensors[name]):,} bytes of {name} in {path}, its header gives "
                f"{end - begin:,}: the file is damaged; {_MEND}"
            )
        if begin != place:
            raise ModelError(
                f"wanted {name} at byte {place:,} of the weights in {path}, its header says "
                f"{begin:,}: the file is damaged; {_MEND}"
            )
        places[name], place = 8 + length + begin, end
    return places


def _shards(tensors: Mapping[str, TensorInfo], shard_bytes: int) -> list[list[str]]:
    """Return the names of each shard's tensors, in the given order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if shards[-1] and size + n_bytes(info) > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += n_bytes(info)
    return shards


def _shard_name(i: int, shards: list[list[str]]) -> str:
    return f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"


def _header(tensors: Mapping[str, TensorInfo]) -> tuple[bytes, dict[str, int]]:
    """Return a shard's first bytes, and where in the rest each tensor begins.

    Wider dtypes come first and the header fills whole words, so every tensor is aligned.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places: dict[str, int] = {}
    end = 0
    for name, info in sorted(tensors.items(), key=lambda item: -_itemsize(item[1])):
        places[name], end = end, end + n_bytes(info)
        header[name] = {
            "dtype": info.dtype,
            "shape": info.shape,
            "data_offsets": (places[name], end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places
