"""LoRA adapters of image models: where they are, what wakes them, whether they fit.

diffusers drops what does not fit with no more than a line in its log. Here an adapter that was
made for another family, or fits only in part, is an error.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from imagegen.presets import trigger_of
from orbweave.errors import ModelError, UsageError, shown
from orbweave.files import sha256_file
from orbweave.models import ModelRef, read_card, resolve_adapter
from orbweave.weights import read_header

__all__ = [
    "PICKLES",
    "TRIGGER_KEY",
    "Adapter",
    "apply_adapters",
    "check_adapter",
    "find_adapter",
    "refuse_pickle",
    "triggered",
]

logger = logging.getLogger(__name__)

USUAL_NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file."""
TRIGGER_KEY = "modelspec.trigger_phrase"
"""Key of the file's metadata; github.com/Stability-AI/ModelSpec, version 1.0.1."""
MAX_TRIGGER_CHARS = 200
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
"""Endings of files that run code when they are read."""


_MISFITS = (
    RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeWarning,
)  # fmt: skip
"""What diffusers and PEFT raise for tensors of other shapes and names."""


class Adapter(NamedTuple):
    """One adapter of a request, found on this machine."""

    ref: str
    weight: float
    path: Path
    trigger: str
    """Words that wake it; empty if none are known."""
    sha256: str

    @property
    def name(self) -> str:
        """What A1111 would call it."""
        return self.path.stem if self.path.name != USUAL_NAME else Path(self.ref).name


def refuse_pickle(text: str) -> None:
    """Raise UsageError for the name of a pickled file, with what to do about it."""
    if text.lower().endswith(PICKLES):
        raise UsageError(
            f"wanted safetensors weights, got the pickled file {shown(text)}, which could run any "
            f"program when it is read; if you trust its source, convert it first: "
            f"`orbweave models convert {text} OUT.safetensors --trust-pickle`"
        )


def find_adapter(ref: str, weight: float) -> Adapter:
    """Return an adapter's file and trigger words.

    Args:
        ref: A `.safetensors` file, a folder that holds one, `org/name` or `org/name/file`.
        weight: How strongly it acts; 0 not at all.

    Raises:
        UsageError: a pickled file, or no reference at all.
        ModelError: nothing there, several files to choose from, or damaged weights.
    """
    refuse_pickle(ref)
    path = Path(os.path.expanduser(ref))  # Path's own raises for a user who is not there
    if not path.is_file():
        repository, name = _parsed(ref)
        folder = resolve_adapter(repository, logger.info)
        path = folder / name if name else _only_file(folder, ref)
    if not path.is_file():
        raise ModelError(f"wanted the adapter {shown(ref)}, found no such file; check the name")
    read_header(path, "give a LoRA adapter as a .safetensors file, or fetch it again")
    trigger = trigger_of(ref) or _trigger_in(path) or ""
    return Adapter(ref, weight, path, trigger[:MAX_TRIGGER_CHARS], sha256_file(path))


def check_adapter(ref: str) -> None:
    """Raise as `find_adapter` does for what is on this machine; the Hub is not asked."""
    refuse_pickle(ref)
    if Path(os.path.expanduser(ref)).is_file() or _parsed(ref).repository.kind == "folder":
        find_adapter(ref, 1.0)


def triggered(prompt: str, adapters: Iterable[Adapter]) -> str:
    """Return the prompt with the trigger words of its adapters in front, each once."""
    missing = dict.fromkeys(
        a.trigger
        for a in adapters
        if a.trigger and a.weight and a.trigger.lower() not in prompt.lower()
    )
    return ", ".join([*missing, prompt]) if prompt else ", ".join(missing)


def apply_adapters(pipe: Any, adapters: Sequence[Adapter], family: str) -> None:
    """Lay adapters over a pipeline, in place of any it had.

    Args:
        pipe: A diffusers pipeline; changed in place.
        adapters: In any number, none takes all away.
        family: The pipeline's, for an error message.

    Raises:
        ModelError: an adapter is of another family, or fits in part only. The pipeline is then
            in no known state.
    """
    if hasattr(pipe, "unload_lora_weights"):
        pipe.unload_lora_weights()
    elif adapters:
        raise ModelError(f"wanted adapters, {family} takes none; leave them out")
    names = [f"adapter-{i}" for i in range(len(adapters))]
    for name, adapter in zip(names, adapters, strict=True):
        _load(pipe, name, adapter, family)
    if adapters:
        pipe.set_adapters(names, adapter_weights=[adapter.weight for adapter in adapters])


def _load(pipe: Any, name: str, adapter: Adapter, family: str) -> None:
    wanted = f"wanted an adapter for {family}, got {shown(adapter.ref)}"
    try:
        state: Any = pipe.lora_state_dict(str(adapter.path))
        tensors = state[0] if isinstance(state, tuple) else state
        n_layers = len([key for key in tensors if ".lora_A." in key or ".lora.down." in key])
        with warnings.catch_warnings(), _quiet_library():
            # Layers the file's settings promise and its tensors lack would stay untrained.
            warnings.filterwarnings("error", "While injecting the PEFT adapters, an incons")
            pipe.load_lora_weights(str(adapter.path), adapter_name=name)
    except _MISFITS as err:
        raise ModelError(
            f"{wanted}, whose layers do not fit ({shown(err, 120)}); take one made for this model"
        ) from err
    n_fitting = sum(
        name in getattr(module, "lora_A", ())
        for part in pipe.components.values()
        if hasattr(part, "named_modules")
        for _, module in part.named_modules()
    )
    if n_fitting < max(n_layers, 1):
        raise ModelError(
            f"{wanted}, of whose {n_layers} layers {n_fitting} fit; "
            "it was made for another family: take one made for this model"
        )
    logger.info("laid the adapter %s over the model, %d layers", adapter.path, n_fitting)


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Keep diffusers' guesses about missing layers off the log; we count them."""
    library = logging.getLogger("diffusers")
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(level)


class _Place(NamedTuple):
    """Where an adapter is: a folder or Hub repository, and the file in it if one is named."""

    repository: ModelRef
    file: str | None


def _parsed(ref: str) -> _Place:
    repository, name = ref, None
    if ref.endswith(".safetensors") and ref.count("/") >= 2 and ref[0] not in "/.~":
        owner, model, name = ref.split("/", 2)
        repository = f"{owner}/{model}"
        if ".." in Path(name).parts:
            raise UsageError(f"wanted a file inside {repository}, got {shown(name)}")
    elif ref.endswith(".safetensors"):
        raise ModelError(f"wanted the adapter file {shown(ref)}, found none; check the path")
    parsed = ModelRef.parse(repository)
    if parsed.kind not in {"folder", "hub"}:
        raise UsageError(
            f"wanted an adapter's file, folder or org/name, got {shown(ref)}; "
            "a model with settings of its own is given as --model"
        )
    return _Place(parsed, name)


def _only_file(folder: Path, ref: str) -> Path:
    if (folder / USUAL_NAME).is_file():
        return folder / USUAL_NAME
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files[0]
    if not files and any(path.suffix in PICKLES for path in folder.glob("*")):
        refuse_pickle(str(next(p for p in sorted(folder.glob("*")) if p.suffix in PICKLES)))
    names = ", ".join(file.name for file in files) or "no .safetensors file"
    raise ModelError(
        f"wanted one adapter in {shown(ref)}, found {names}; name the file, as {ref}/FILE"
    )


def _trigger_in(path: Path) -> str | None:
    """Trigger words as the file's own metadata or the model card beside it name them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except SafetensorError as err:
        raise ModelError(
            f"wanted safetensors weights in {path}, got a damaged header ({shown(err, 120)}); "
            "fetch the file again"
        ) from err
    named = metadata.get(TRIGGER_KEY) or read_card(path.parent).get("instance_prompt")
    return " ".join(named.split()) if isinstance(named, str) else None
