"""Any model reference as a plain folder: adapters and merges are built on first use.

    resolve_model("slerp(base, base+silk, t=0.4)")   # a folder in the cache

A built model lies in `merges/<hash>` of the cache, the hash being that of the recipe and of
everything its parents hold. One process builds, others wait and reuse; a folder that is not as
it was written is built again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from merging.adapter import open_adapter
from merging.card import Ancestor
from merging.compatibility import Finding, check, needs_mergekit
from merging.digests import digest, digest_of_all, hash_at_once
from merging.folder import GEOMETRY_FILE, refuse_faults, write_merge
from merging.parent import Parent, open_parent
from merging.plan import Step, plan
from merging.recipe import PROFILES, Input, Recipe, load_recipe
from orbweave.errors import ModelError, OutputError, UsageError
from orbweave.files import remove_leftovers, write_text
from orbweave.models import (
    ModelRef,
    catalogue_entry,
    lineage,
    read_card,
    resolve,
    resolve_adapter,
)
from orbweave.paths import CACHE_VARIABLE, cache_root

__all__ = [
    "Preview",
    "merge",
    "merge_in_memory",
    "open_models",
    "open_parents",
    "preview",
    "recipe_of",
    "resolve_model",
]

_log = logging.getLogger(__name__)

Tell = Callable[[str], None]
_BUILD = 2
"""Raised when the same recipe shall give a different folder."""
_MANIFEST = "manifest.json"
_NOTES = {_MANIFEST, GEOMETRY_FILE}
"""Files about a model, which do not make it another one."""
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class Preview(NamedTuple):
    """What a merge would do."""

    findings: list[Finding]
    steps: list[Step]
    """Empty if a fault stops the merge, or mergekit would do the work."""


def resolve_model(ref: ModelRef | str, on_progress: Tell = lambda _: None) -> Path:
    """Return the local folder of a language model, building or downloading it if need be.

    Args:
        ref: Any reference but one to a server, or its text.
        on_progress: Is told, in a sentence, what a long step is doing.

    Raises:
        UsageError: not a reference, or models that cannot be merged.
        ModelError: a model is missing, incomplete or damaged, or is at a server.
        OutputError: the cache cannot be written.
    """
    return _resolve(_written_out(ref), on_progress, frozenset())


def merge(
    ref: ModelRef | str,
    target: Path,
    *,
    partial: bool = False,
    force: bool = False,
    on_progress: Tell = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[Finding]:
    """Write the merge that a recipe file or another reference asks for into a folder.

    Args:
        ref: `recipe.yaml`, `slerp(...)`, `REF+ADAPTER`, or a catalogue name of one of these.
        target: The folder; it appears whole or not at all.
        partial: Take from the base what does not fit, instead of refusing.
        force: Replace an existing folder.
        on_progress: Is told, in a sentence, what a long step is doing.
        is_cancelled: Is asked between tensors.

    Returns:
        What was noted about the parents.

    Raises:
        UsageError: there is nothing to merge, or the models do not fit together.
        ModelError, OutputError, Cancelled: as in `merging.folder.write_merge`.
    """
    recipe = recipe_of(ref)
    parents = open_parents(recipe, on_progress)
    return write_merge(
        recipe,
        parents,
        target,
        ancestors=lambda: _ancestors(parents),
        folders=lambda: {name: resolve_model(name, on_progress) for name in parents},
        partial=partial,
        force=force,
        on_progress=on_progress,
        is_cancelled=is_cancelled,
    )


def merge_in_memory(
    ref: ModelRef | str, on_progress: Tell = lambda _: None
) -> tuple[Path, dict[str, Any]]:
    """Return a merge as weights and the folder of the parent whose configuration fits them.

    For models of one concept or one place of a slider, which are not worth a folder each.

    Returns:
        The folder of the first parent, and torch tensors by the names of its files.

    Raises:
        UsageError: there is nothing to merge, mergekit would have to do it, or the models do
            not fit together.
        ModelError: a model is missing or damaged.
    """
    from merging.stream import merge_into_memory
    from merging.tensors import open_weights

    recipe = recipe_of(ref)
    parents = open_parents(recipe, on_progress)
    refuse_faults(check(recipe, parents))
    if needs_mergekit(recipe, parents):
        raise UsageError(f"wanted a merge that fits into memory, {ref} is one for mergekit")
    on_progress(f"merging {ref} in memory")
    weights = {name: open_weights(parent) for name, parent in parents.items()}
    return next(iter(parents.values())).folder, merge_into_memory(plan(recipe, parents), weights)


def preview(
    ref: ModelRef | str, *, partial: bool = False, on_progress: Tell = lambda _: None
) -> Preview:
    """Return what `merge` would find and do; parents are fetched or built, nothing is merged.

    Raises:
        UsageError, ModelError: as in `merge`, but that faults are returned, not raised.
    """
    recipe = recipe_of(ref)
    parents = open_parents(recipe, on_progress)
    findings = check(recipe, parents, partial=partial)
    if needs_mergekit(recipe, parents) or any(f.level != "note" for f in findings):
        return Preview(findings, [])
    return Preview(findings, plan(recipe, parents, partial=partial))


def recipe_of(ref: ModelRef | str) -> Recipe:
    """Return how a model is made from others.

    Raises:
        UsageError: it is not made from others, or the recipe file is missing or has faults.
    """
    try:
        ref = _written_out(ref)
    except ModelError as err:
        if str(ref).endswith((".yaml", ".yml")):  # the recipe itself is missing, no model
            raise UsageError(str(err)) from err
        raise
    if ref.kind == "recipe":
        return load_recipe(Path(ref.name).expanduser())
    if ref.kind == "adapter":
        return Recipe(merge_method="passthrough", models=(Input(model=str(ref)),))
    if ref.kind != "merge":
        raise UsageError(
            f"wanted a merge recipe, got the model {ref}; give a YAML file or "
            "slerp(MODEL, MODEL, t=0.4)"
        )
    if ref.name == "steered":
        return _steered_recipe(ref)
    first, second = map(str, ref.parents)
    options = dict(ref.options)
    profile = options.get("profile", "constant")
    if profile not in PROFILES:
        raise UsageError(f"wanted a profile as one of {', '.join(PROFILES)}, got {profile}")
    return Recipe(
        merge_method="slerp",
        base_model=first,
        models=(Input(model=first), Input(model=second)),
        parameters={"t": float(options["t"]) if "t" in options else profile},
    )


def _steered_recipe(ref: ModelRef) -> Recipe:
    """Return the recipe of `steered(...)`: SLERP of two models, the spherical mean of more."""
    names = list(map(str, ref.parents))
    given = [float(weight) for _, weight in ref.options]
    # Nine digits: 2 to 1 and 0.5 to 0.25 are one model, and one folder of the cache.
    weights = [round(weight / sum(given), 9) for weight in given]
    if len(names) == 2:
        return Recipe(
            merge_method="slerp",
            base_model=names[0],
            models=tuple(Input(model=name) for name in names),
            parameters={"t": weights[1]},
        )
    return Recipe(
        merge_method="karcher",
        models=tuple(
            Input(model=name, parameters={"weight": weight})
            for name, weight in zip(names, weights, strict=True)
        ),
    )


def open_parents(recipe: Recipe, on_progress: Tell = lambda _: None) -> dict[str, Parent]:
    """Read the headers of every model of a recipe, by its name there.

    Raises:
        UsageError, ModelError: a model is missing or damaged; tells of every one.
    """
    return open_models(recipe.model_names(), on_progress)


def open_models(names: Sequence[str], on_progress: Tell = lambda _: None) -> dict[str, Parent]:
    """Read the headers of models, by the references they are asked for.

    Raises:
        UsageError, ModelError: a model is missing or damaged; tells of every one.
    """
    return _open_models(names, on_progress, frozenset())


def _resolve(ref: ModelRef, on_progress: Tell, within: frozenset[str]) -> Path:
    """Return a model's folder; `within` are the recipes being worked on, which it may not name."""
    if ref.kind in {"catalogue", "folder", "hub", "endpoint"}:
        return resolve(ref, "language", on_progress)
    if str(ref) in within:
        raise UsageError(f"wanted models to merge, the recipe {ref} names itself; take it out")
    recipe = recipe_of(ref)
    parents = _open_models(recipe.model_names(), on_progress, within | {str(ref)})
    folder = cache_root() / "merges" / _key(recipe, parents)
    if _damage(folder) is None:
        return folder
    try:
        return _build(ref, recipe, parents, folder, on_progress)
    except OSError as err:
        raise OutputError(
            f"wanted to build {ref} in {folder.parent}, the system said {err.strerror or err}; "
            f"the variable {CACHE_VARIABLE} moves the cache"
        ) from err


def _build(
    ref: ModelRef, recipe: Recipe, parents: Mapping[str, Parent], folder: Path, on_progress: Tell
) -> Path:
    """Build a model in the cache, unless another process was faster."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        damage = _damage(folder)
        if damage is None:
            return folder
        if folder.exists():
            _log.warning("the cached model %s is built again: %s", ref, damage)
        remove_leftovers(folder)
        on_progress(f"building {' <- '.join(lineage(ref))}")
        write_merge(
            recipe,
            parents,
            folder,
            title=str(ref),
            ancestors=lambda: _ancestors(parents),
            folders=lambda: {name: resolve_model(name, on_progress) for name in parents},
            force=True,
            on_progress=on_progress,
        )
        _write_manifest(folder)
    return folder


def _written_out(ref: ModelRef | str) -> ModelRef:
    """Return what a catalogue name of an adapter or a merge stands for, else the reference."""
    ref = ModelRef.parse(ref) if isinstance(ref, str) else ref
    if ref.kind != "catalogue":
        return ref
    entry = catalogue_entry(ref.name)
    if entry.place == "adapter":
        return ModelRef("adapter", "+", parents=(ModelRef.parse(entry.parents[0]), ref))
    return _written_out(entry.target) if entry.place == "merge" else ref


def _open_models(
    names: Sequence[str], on_progress: Tell, within: frozenset[str]
) -> dict[str, Parent]:
    parents: dict[str, Parent] = {}
    faults: list[ModelError | UsageError] = []
    for name in names:
        try:
            parents[name] = _open_parent(name, on_progress, within)
        except (ModelError, UsageError) as err:
            faults.append(err)
    if len(faults) > 1:
        raise ModelError("; ".join(map(str, faults)))
    if faults:
        raise faults[0]
    return parents


def _open_parent(name: str, on_progress: Tell, within: frozenset[str]) -> Parent:
    """Return a parent; adapters are laid over it as it is read, other merges are built."""
    ref, adapters = _written_out(name), []
    while ref.kind == "adapter":
        base, adapter = ref.parents
        adapters.append(open_adapter(resolve_adapter(adapter, on_progress)))
        ref = _written_out(base)
    return open_parent(name, _resolve(ref, on_progress, within), tuple(reversed(adapters)))


def _ancestors(parents: Mapping[str, Parent]) -> list[Ancestor]:
    """Return the parents as the model card names them."""
    hash_at_once([file for parent in parents.values() for file in _weight_files(parent)])
    return [
        Ancestor(
            name=name,
            digest=digest_of_all(_weight_files(parent)),
            known_as=next(
                (n for n in lineage(name) if _HUB_NAME.fullmatch(n) and not Path(n).exists()), None
            ),
            licence=read_card(parent.folder).get("license"),
        )
        for name, parent in parents.items()
    ]


# ---------------------------------------------------------------- the cache


def _key(recipe: Recipe, parents: Mapping[str, Parent]) -> str:
    """Return the hash of everything the merged folder depends on, names apart."""
    contents = {name: _contents(parent) for name, parent in parents.items()}
    text = f"{_BUILD} {recipe.renamed(contents).to_yaml()}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _contents(parent: Parent) -> str:
    """Return one digest of a parent's weights, configuration and tokenizer."""
    hashes = [digest_of_all(_weight_files(parent))]
    for folder in (parent.folder, *(adapter.folder for adapter in parent.adapters)):
        for pattern in ("*.json", "*.jinja", "*.model", "merges.txt"):
            files = (file for file in sorted(folder.glob(pattern)) if file.name not in _NOTES)
            hashes += [f"{file.name} {digest(file)}" for file in files]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _weight_files(parent: Parent) -> list[Path]:
    return [*sorted(set(parent.files.values())), *(adapter.weights for adapter in parent.adapters)]


def _write_manifest(folder: Path) -> None:
    """Write size and time of every file beside them."""
    files = {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(folder.iterdir())}
    write_text(folder / _MANIFEST, json.dumps(files, indent=2) + "\n")


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a built folder, None if nothing."""
    try:
        files = json.loads((folder / _MANIFEST).read_bytes())
        for name, wanted in files.items():
            stat = (folder / name).stat()
            if [stat.st_size, stat.st_mtime_ns] != wanted:
                return f"{name} was changed"
    except (OSError, ValueError, AttributeError) as err:
        return str(err)
    return None
