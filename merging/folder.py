"""A merged model as a folder: weights, configuration, tokenizer, recipe, card. Whole or absent."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from merging.card import Ancestor, model_card
from merging.compatibility import Finding, check, needs_mergekit, tokenizer_parent
from merging.findings import one_model
from merging.leftovers import held
from merging.numbers import FLOATS, TORCH_NAMES
from merging.parent import DEPTH_KEYS, Parent
from merging.plan import Step, plan, taken_from
from merging.recipe import Recipe
from orbweave.errors import OutputError, UsageError
from orbweave.files import build_folder, check_output, write_text
from orbweave.weights import check_folder

if TYPE_CHECKING:
    from merging.geometry import Geometry

__all__ = ["GEOMETRY_FILE", "RECIPE_FILE", "refuse_faults", "write_merge"]

T = TypeVar("T")
RECIPE_FILE = "mergekit_config.yml"
GEOMETRY_FILE = "geometry.json"
_GENERATION = "generation_config.json"
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
)


def write_merge(
    recipe: Recipe,
    parents: Mapping[str, Parent],
    target: Path,
    *,
    ancestors: Callable[[], Sequence[Ancestor]],
    folders: Callable[[], Mapping[str, Path]],
    title: str = "",
    partial: bool = False,
    force: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> list[Finding]:
    """Merge models into a new folder.

    The angles of the parents are put beside the weights. What a killed merge left beside the
    target is removed.

    Args:
        recipe: What to do.
        parents: By the names in the recipe.
        target: The folder; it appears whole or not at all.
        ancestors: Called for the parents as the card names them, beside the merge: it takes
            a second per 1.5 GB to hash them.
        folders: Called where mergekit must do the work: every parent as a plain folder.
        title: Of the card; the target's name if empty.
        partial: Take from the base what does not fit.
        force: Replace an existing folder.
        on_progress: Is told, in a sentence, how far it is.
        is_cancelled: Is asked between tensors.

    Returns:
        What was noted about the parents.

    Raises:
        UsageError: the models do not fit together (every fault is told), or the target lies
            in a parent.
        ModelError: a weight is missing, damaged or not finite.
        OutputError: the target exists and `force` is off, another merge into it is under way, or
            the disk is full.
        Cancelled: `is_cancelled` said so.
    """
    check_output(target, force=force)
    _keep_out_of_parents(target, parents)
    findings = check(recipe, parents, partial=partial)
    refuse_faults(findings)
    with (
        held(target, on_progress) as note_folder,
        build_folder(target, force=force, note=note_folder) as building,
    ):
        named = _in_background(ancestors)
        taken: dict[tuple[str, ...], list[str]] = {}
        if needs_mergekit(recipe, parents):
            from merging.mergekit_merge import merge_by_mergekit

            geometry = merge_by_mergekit(
                recipe,
                folders(),
                building,
                partial=partial,
                on_progress=on_progress,
                is_cancelled=is_cancelled,
            )
            if not (building / _GENERATION).exists():
                _copy((_GENERATION,), _speakers(recipe, parents), building)
        else:
            steps = plan(recipe, parents, partial=partial)
            taken = taken_from(steps) if partial else {}
            geometry = _merge(recipe, parents, steps, building, on_progress, is_cancelled)
        if not isinstance(geometry, str):
            from merging.geometry import document

            write_text(building / GEOMETRY_FILE, json.dumps(document(geometry), indent=1) + "\n")
            if geometry.is_one_model:
                findings.append(one_model(geometry.parents))
        write_text(building / RECIPE_FILE, recipe.to_yaml())
        card = model_card(title or target.name, recipe, named(), geometry, taken)
        write_text(building / "README.md", card)
        check_folder(building, "language")
    return findings


def refuse_faults(findings: Sequence[Finding]) -> None:
    """Raise every fault in one message, if there is one.

    Raises:
        UsageError: there is.
    """
    faults = [finding.text for finding in findings if finding.level != "note"]
    if faults:
        count = "1 reason" if len(faults) == 1 else f"{len(faults)} reasons"
        raise UsageError(
            f"wanted models that can be merged, found {count} against it: {'; '.join(faults)}"
        )


def _in_background(work: Callable[[], T]) -> Callable[[], T]:
    """Start `work` in a thread that holds nobody up; return what waits for its result."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as err:  # raised again where the result is asked for
            future.set_exception(err)

    threading.Thread(target=run, daemon=True).start()
    return future.result


def _merge(
    recipe: Recipe,
    parents: Mapping[str, Parent],
    steps: Sequence[Step],
    folder: Path,
    on_progress: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> Geometry:
    """Write weights, configuration and tokenizer; return the geometry found in passing."""
    on_progress(f"merging {len(steps)} tensors of {' and '.join(parents)}")
    from merging.geometry import geometry_of
    from merging.stream import Progress, merge_into_folder
    from merging.tensors import n_bytes, open_weights

    wanted = sum(n_bytes(step.info) for step in steps)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise OutputError(
            f"wanted {wanted / 1e9:.1f} GB for the merged weights, the disk has {free / 1e9:.1f} "
            "left; free some space or choose another place"
        )
    told = 0

    def on_tensor(progress: Progress) -> None:
        nonlocal told
        tenths = 10 * progress.bytes // max(progress.all_bytes, 1)
        if tenths > told and progress.eta_s > 2:  # a quick merge says nothing
            on_progress(f"merged {10 * tenths} %, about {progress.eta_s:.0f} s left")
        told = tenths

    weights = {name: open_weights(parent) for name, parent in parents.items()}
    grams = merge_into_folder(
        steps, weights, folder, on_progress=on_tensor, is_cancelled=is_cancelled
    )
    _write_config(recipe, parents, steps, folder)
    speaker = tokenizer_parent(recipe, parents)
    _copy(_TOKENIZER_FILES, [speaker.tokenizer_folder], folder)
    _copy((_GENERATION,), _speakers(recipe, parents), folder)
    return geometry_of(steps, grams)


def _speakers(recipe: Recipe, parents: Mapping[str, Parent]) -> list[Path | None]:
    """Return where the merged model's way of speaking may stand, the first choice first."""
    speaker = tokenizer_parent(recipe, parents)
    return [speaker.tokenizer_folder, speaker.folder]


def _write_config(
    recipe: Recipe, parents: Mapping[str, Parent], steps: Sequence[Step], folder: Path
) -> None:
    """Write config.json: that of the base, with the merged model's dtype and depth."""
    first = recipe.inputs[0]
    base = parents[first.model]
    config = dict(base.config)
    dtypes = {step.info.dtype for step in steps} & FLOATS
    if len(dtypes) == 1:
        config.pop("torch_dtype", None)
        config["dtype"] = TORCH_NAMES[dtypes.pop()]
    if first.layer_range is not None:
        begin, end = first.layer_range
        for key, value in config.items():
            if key in DEPTH_KEYS:
                config[key] = end - begin
            elif isinstance(value, list) and len(value) == base.n_layers > 1:
                config[key] = value[begin:end]  # one entry per layer, such as layer_types
    write_text(folder / "config.json", json.dumps(config, indent=2) + "\n")


def _copy(names: Sequence[str], sources: Sequence[Path | None], folder: Path) -> None:
    """Copy each file from the first folder that has it, if any."""
    for name in names:
        found = next((s / name for s in sources if s is not None and (s / name).is_file()), None)
        if found is not None:
            shutil.copyfile(found, folder / name)


def _keep_out_of_parents(target: Path, parents: Mapping[str, Parent]) -> None:
    place = target.resolve()
    for parent in parents.values():
        for folder in (parent.folder, *(adapter.folder for adapter in parent.adapters)):
            inner = folder.resolve()
            if place == inner or inner in place.parents or place in inner.parents:
                raise UsageError(
                    f"wanted a place for the merged model apart from its parents, got {target} "
                    f"and {folder}; choose another place"
                )
