"""What a model folder holds, read from its headers alone: no weight is loaded.

Format: https://github.com/huggingface/safetensors#format, eight bytes of header length,
a JSON header, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orbweave.errors import ModelError, shown
from orbweave.files import sha256_file

__all__ = [
    "Kind",
    "TensorInfo",
    "check_folder",
    "count_parameters",
    "hash_weights",
    "put_weights",
    "read_header",
    "weight_files",
]

Kind = Literal["language", "image"]
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the format's reference reader."""
_HEAD_FILE: dict[Kind, str] = {"language": "config.json", "image": "model_index.json"}
_MEND = "move the folder away and fetch or build the model again"


class TensorInfo(NamedTuple):
    """One tensor as the header describes it."""

    dtype: str
    """As the format spells it: `BF16`, `F32`, ..."""
    shape: tuple[int, ...]


def read_header(path: Path, mend: str = _MEND) -> dict[str, TensorInfo]:
    """Return name -> (dtype, shape) of a safetensors file whose size fits its header.

    Args:
        path: The file.
        mend: What to do if it is none, for the message.

    Raises:
        ModelError: the file is missing, truncated or not safetensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header: dict[str, Any] = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("a header that is no JSON object")
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or {*map(type, metadata.values())} - {str}:
            raise ValueError("__metadata__ that is no object of texts")
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        tensors = {n: TensorInfo(e["dtype"], tuple(e["shape"])) for n, e in header.items()}
    except OSError as err:
        raise ModelError(
            f"wanted to read the weights {path}, the system said {shown(err.strerror)}; {mend}"
        ) from err
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as err:
        raise ModelError(
            f"wanted safetensors weights in {path}, found something else ({shown(err)}); {mend}"
        ) from err
    if 8 + length + end != size:
        raise ModelError(
            f"wanted {8 + length + end:,} bytes of weights in {path}, found {size:,}: "
            f"the file is cut off or damaged; {mend}"
        )
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files below `folder`, sorted; image models keep them in parts."""
    return sorted(folder.rglob("*.safetensors"))


def check_folder(folder: Path, kind: Kind) -> None:
    """Check that `folder` is a whole model: head file, every weight file, every shard named.

    Raises:
        ModelError: something is missing or damaged; names the file.
    """
    head = folder / _HEAD_FILE[kind]
    if not head.is_file():
        raise ModelError(_why_no_model(folder, kind))
    _read_json(head)
    files = weight_files(folder)
    for index in folder.rglob("*.safetensors.index.json"):
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise ModelError(f"wanted a weight_map of file names in {index}; {_MEND}")
        for shard in sorted(set(shards.values())):
            if index.parent / shard not in files:
                raise ModelError(f"wanted the weights {index.parent / shard}, found none; {_MEND}")
    if not files:
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        came = f"only pickled weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(
            f"wanted safetensors weights in {folder}, found {came}; "
            "convert the model with save_pretrained, or use another"
        )
    for file in files:
        read_header(file)


def count_parameters(files: Iterable[Path]) -> int:
    """Return the number of stored weights; tied ones, stored once, count once."""
    headers = (read_header(file) for file in files)
    return sum(math.prod(tensor.shape) for header in headers for tensor in header.values())


def hash_weights(folder: Path) -> str:
    """Return one SHA-256 for a model's weights.

    It is the file's own hash where there is a single file, and else the hash of the lines
    `<sha256>  <path in the folder>` in order of path.
    """
    files = weight_files(folder)
    if len(files) == 1:
        return sha256_file(files[0])
    lines = (f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _why_no_model(folder: Path, kind: Kind) -> str:
    """Say what is in a folder that lacks the head file of its kind."""
    wanted = f"wanted {kind} model files in {folder}"
    if (folder / "adapter_config.json").is_file():
        return f"{wanted}, found an adapter; merge it into its base model first"
    other: Kind = "image" if kind == "language" else "language"
    if (folder / _HEAD_FILE[other]).is_file():
        return f"{wanted}, found those of the kind {other}; give another model"
    if (folder / "trainer_state.json").is_file():
        return f"{wanted}, found a checkpoint without {_HEAD_FILE[kind]}; give the finished model"
    checkpoints = sorted(p.name for p in folder.glob("checkpoint-*"))
    if checkpoints:
        return f"{wanted}, found checkpoints; give one of them, e.g. {folder / checkpoints[-1]}"
    return f"{wanted}, found no {_HEAD_FILE[kind]}; give the folder that holds it"


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as err:
        raise ModelError(f"wanted JSON in {path}, found {shown(err)}; {_MEND}") from err
    if not isinstance(value, dict):
        raise ModelError(f"wanted a JSON object in {path}, found {shown(value)}; {_MEND}")
    return value


def put_weights(
    model: Any,
    tensors: Mapping[str, Any],
    name: str,
    mend: str = "merge into a folder and use that",
) -> None:
    """Replace all weights of a loaded torch model in place, rounded to its own dtype.

    Args:
        model: A `torch.nn.Module`.
        tensors: By the names of its files; tied weights may be given once.
        name: What the model is called in errors.
        mend: What to do if they do not fit, for the message.

    Raises:
        ModelError: a weight is missing, unknown or of another shape.
    """
    wanted = f"wanted weights that fit {name}"
    try:
        missing, unknown = model.load_state_dict(tensors, strict=False)
    except RuntimeError as err:
        raise ModelError(f"{wanted}, torch says {shown(err, 200)}; {mend}") from err
    own = model.state_dict()
    given = {own[each].data_ptr() for each in tensors if each in own}
    lost = [each for each in missing if own[each].data_ptr() not in given]  # but for tied ones
    if lost or unknown:
        what = f"{lost[0]} is missing" if lost else f"{unknown[0]} is unknown to it"
        raise ModelError(f"{wanted}, found others: {what}; {mend}")
