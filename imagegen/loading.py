"""Image models into memory: a diffusers folder or a single-file checkpoint, with its ControlNet.

Only safetensors are read, and nothing is fetched here but what a Hub name asks for.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagegen.assembly import CONTROLNET, WEIGHTS, assembled
from imagegen.device import Placement, device, free_bytes, placement
from imagegen.families import Family, family_of
from imagegen.latent_space import Preview
from imagegen.lora import Adapter, refuse_pickle
from orbweave.errors import ModelError, UsageError, shown
from orbweave.files import sha256_file
from orbweave.models import ModelRef, cached_folder, catalogue_entry, resolve, resolve_adapter
from orbweave.weights import TensorInfo, hash_weights, read_header, weight_files

__all__ = ["LOOM", "Loaded", "check_model", "control_ref", "load_model"]

logger = logging.getLogger(__name__)

LOOM = "loom"
"""Name of the embedded image model."""
_LOAD_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError)
"""What diffusers raises for folders that are not what they say."""


@dataclass
class Loaded:
    """A model in memory."""

    model: str
    control: str | None
    """As in the request it was loaded for."""
    pipe: Any
    """Text to image."""
    from_picture: Any
    """Image to image with the same components, and with the model's ControlNet if it has one;
    None if the family has none."""
    family: Family
    scheduler: dict[str, Any]
    """Configuration of the scheduler the model was trained with."""
    sha256: str
    placement: Placement
    adapters: tuple[Adapter, ...] = ()
    """Those that lie over it now."""
    _placed: Any = field(default=None, repr=False)
    _preview: Preview | None = field(default=None, repr=False)

    @property
    def is_controlled(self) -> bool:
        """Whether pictures are held to their geometry by a ControlNet."""
        return getattr(self.from_picture, "controlnet", None) is not None

    def place(self, pipe: Any) -> None:
        """Bring one of the two pipelines to where it computes; offloading follows the last."""
        if self._placed is pipe:
            return
        if self.placement == "whole":
            if self._placed is None:
                for each in (self.pipe, self.from_picture):
                    if each is not None:
                        each.to(device())
        elif self.placement == "by part":
            pipe.enable_model_cpu_offload(device=device())
        else:
            pipe.enable_sequential_cpu_offload(device=device())
        self._placed = pipe

    def preview(self) -> Preview:
        """Return what turns this model's latents into thumbnails; made at the first call."""
        if self._preview is None:
            self._preview = Preview(self.pipe)
        return self._preview


def load_model(
    model: str,
    control: str | None,
    dtype: str,
    *,
    weights: Path = WEIGHTS,
    cache: Path | None = None,
) -> Loaded:
    """Load an image model.

    Args:
        model: As in a `RenderRequest`.
        control: A ControlNet for it; None takes the one in its folder, if there is one.
        dtype: `bfloat16`, `float16` or `float32`.
        weights: Folder with the embedded model's weights.
        cache: Where that model is assembled; default: Orbweave's cache folder.

    Raises:
        UsageError: no model reference, a model of another kind, or a pickled file.
        ModelError: the model or the ControlNet is missing or damaged, or they do not fit.
    """
    refuse_pickle(model)
    with _quiet_loading():
        if model.endswith(".safetensors"):
            path = Path(model).expanduser()
            pipe, beside, sha256 = _from_file(path, dtype), None, sha256_file(path)
            n_bytes = path.stat().st_size
        else:
            if model == LOOM:
                folder, sha256 = assembled(weights=weights, cache=cache)
            else:
                folder = resolve(_whole_ref(model), "image", logger.info)
                sha256 = hash_weights(folder)
            pipe = _from_folder(folder, dtype)
            beside = folder / CONTROLNET if (folder / CONTROLNET).is_dir() else None
            n_bytes = sum(file.stat().st_size for file in weight_files(folder))
        family = family_of(type(pipe).__name__)
        net = _control_net(control, beside, family, dtype)
        from_picture = _from_picture(pipe, family, net)
    for each in (pipe, from_picture):
        if each is not None:
            each.set_progress_bar_config(disable=True)
            if family.tiles:
                _lay_channels_last(each)
    where = placement(n_bytes, free_bytes())
    logger.info("loaded the image model %s in %s on %s, %s", model, dtype, device(), where)
    scheduler = dict(pipe.scheduler.config)
    return Loaded(model, control, pipe, from_picture, family, scheduler, sha256, where)


def check_model(model: str) -> None:
    """Raise as `load_model` does for what is on this machine; the Hub is not asked."""
    refuse_pickle(model)
    if model.endswith(".safetensors"):
        _header_of(Path(model).expanduser())
        return
    ref = _whole_ref(model)
    if ref.kind == "hub" or ref.kind == "catalogue" and catalogue_entry(ref.name).kind == "image":
        return  # is fetched or assembled when it is needed
    resolve(ref, "image")


def _whole_ref(model: str) -> ModelRef:
    """Return where a model is; refuse what would have to be put together of several."""
    ref = ModelRef.parse(model)
    if ref.kind in {"adapter", "merge", "recipe"}:
        raise UsageError(
            f"wanted an image model that is whole, got {ref}, as only language models are put "
            "together; give the image model alone, and LoRA adapters apart, as --adapter"
        )
    return ref


def control_ref(control: str) -> ModelRef:
    """Return where a ControlNet is.

    Raises:
        UsageError: a model that can be no ControlNet.
        ModelError: nothing there.
    """
    ref = ModelRef.parse(control)
    if ref.kind not in {"folder", "hub"}:
        raise UsageError(f"wanted a ControlNet's folder or org/name, got {shown(control)}")
    return ref


def _lay_channels_last(pipe: Any) -> None:
    """Store the weights of convolutions as they are used; saves a tenth to a quarter of the time.

    Only for families made of plane convolutions: torch refuses the layout to those over time.
    """
    import torch

    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            lay: Any = part.to  # whose stubs lack the argument
            lay(memory_format=torch.channels_last)


def _from_folder(folder: Path, dtype: str) -> Any:
    """Load a diffusers folder; its `model_index.json` names the pipeline class."""
    import diffusers
    import torch

    try:
        load: Any = diffusers.DiffusionPipeline.from_pretrained
        return load(
            str(folder),
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
        )
    except _LOAD_ERRORS as err:
        raise ModelError(
            f"wanted a diffusers model in {folder}, got one that does not load "
            f"({shown(err, 200)}); fetch it again, or use {LOOM}, which needs no net"
        ) from err


def _from_file(path: Path, dtype: str) -> Any:
    """Load a checkpoint in one file; its configuration and tokenizers lie elsewhere."""
    import diffusers
    import torch
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    header = _header_of(path)
    config = _config_folder(path, header)
    try:
        kind = json.loads((config / "model_index.json").read_text("utf-8"))["_class_name"]
        load: Any = getattr(diffusers, kind).from_single_file
        return load(
            str(path),
            config=str(config),
            dtype=getattr(torch, dtype),
            local_files_only=True,
        )
    except SingleFileComponentError as err:
        raise ModelError(
            f"wanted a whole model in {path}, parts are missing ({shown(err, 120)}); "
            "give a diffusers folder of the model"
        ) from err
    except _LOAD_ERRORS as err:
        raise ModelError(
            f"wanted the checkpoint {path} by the configuration in {config}, it does not load "
            f"({shown(err, 200)}); give the configuration of the model it was made from"
        ) from err


def _header_of(path: Path) -> dict[str, TensorInfo]:
    """Read what a checkpoint holds; refuse what is none, or an adapter."""
    if not path.is_file():
        came = "a folder" if path.is_dir() else "no such file"
        raise ModelError(f"wanted the checkpoint {path}, found {came}; check the path")
    header = read_header(path, "give a whole model as a .safetensors file, or fetch it again")
    if any("lora" in key for key in header):
        raise UsageError(
            f"wanted a whole model, got the adapter {path}; give it as --adapter, "
            "and the model it was made for as --model"
        )
    return header


def _config_folder(path: Path, header: Any) -> Path:
    """Find configuration and tokenizers of a single-file checkpoint, without the net."""
    from diffusers.loaders import single_file_utils

    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    # It looks at names and shapes alone, so the header serves as well as the tensors.
    guess: Any = single_file_utils.fetch_diffusers_config
    repository = str(guess(header)["pretrained_model_name_or_path"])
    folder = cached_folder(ModelRef("hub", repository))
    if folder is not None and (folder / "model_index.json").is_file():
        return folder
    raise ModelError(
        f"wanted configuration and tokenizers for the checkpoint {path}, which looks like "
        f"{repository}; found them neither in {beside} nor in the Hugging Face cache; go online "
        f"once with `hf download {repository} --include '*.json' '*.txt' '*.model'`, or put "
        f"a diffusers folder of that model, weights or not, at {beside}"
    )


def _control_net(control: str | None, beside: Path | None, family: Family, dtype: str) -> Any:
    """Load the ControlNet that was asked for, else the one in the model's folder, if any."""
    import diffusers
    import torch

    if control is None and (beside is None or family.control_net is None):
        return None
    if family.control_net is None:
        raise UsageError(
            f"wanted the ControlNet {shown(control)}, {family.name} takes none; leave it out"
        )
    folder = beside
    if control is not None:
        folder = resolve_adapter(control_ref(control), logger.info)
    assert folder is not None
    try:
        named = json.loads((folder / "config.json").read_text("utf-8")).get("_class_name")
        if named != family.control_net:
            raise ModelError(
                f"wanted a {family.control_net} for {family.name} in {folder}, found "
                f"{shown(named)}; take a ControlNet made for this model"
            )
        load: Any = getattr(diffusers, family.control_net).from_pretrained
        return load(
            str(folder), torch_dtype=getattr(torch, dtype), use_safetensors=True,
            local_files_only=True,
        )  # fmt: skip
    except _LOAD_ERRORS as err:
        raise ModelError(
            f"wanted a ControlNet in {folder}, got one that does not load ({shown(err, 200)}); "
            "fetch it again"
        ) from err


def _from_picture(pipe: Any, family: Family, net: Any) -> Any:
    """Return the image-to-image pipeline of a model's components; None if there is none.

    diffusers' own AutoPipeline knows them too, but imports every pipeline there is.
    """
    import diffusers

    other = family.controlled if net is not None else family.from_picture
    if other is None:
        # An inpainting or image-to-image model starts from a picture as it is.
        accepted = inspect.signature(type(pipe).__call__).parameters
        return pipe if "image" in accepted else None
    build: Any = getattr(diffusers, other)
    accepted = inspect.signature(build.__init__).parameters
    parts = {k: v for k, v in pipe.components.items() if k in accepted}
    flags = {k: v for k, v in pipe.config.items() if k in accepted and k not in parts}
    beside = {} if net is None else {"controlnet": net}
    return build(**parts, **beside, **flags)


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep the libraries' bars and notices about optional packages off the terminal."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    levels = ours.get_verbosity(), theirs.get_verbosity()
    bars = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    for library in (ours, theirs):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level, bar in zip((ours, theirs), levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
