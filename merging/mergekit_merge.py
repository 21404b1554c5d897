"""A merge that mergekit makes, and what it leaves out: sound weights and the parents' geometry.

Its methods carry NaN from a parent into the result without a word, so the parents are read before
and the result after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path as Folder

from merging.compatibility import by_token, have_one_vocabulary
from merging.geometry import Geometry, Path, compare
from merging.mergekit_adapter import run
from merging.methods import METHODS
from merging.parent import Parent, open_parent
from merging.recipe import Recipe
from merging.soundness import unsound_tensor
from merging.tensors import open_weights
from orbweave.errors import ModelError, UsageError

__all__ = ["merge_by_mergekit"]


def merge_by_mergekit(
    recipe: Recipe,
    folders: Mapping[str, Folder],
    out: Folder,
    *,
    partial: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Geometry | str:
    """Let mergekit merge into the folder `out`, and look through what goes in and comes out.

    Args:
        recipe: What to do.
        folders: Each model of the recipe as a plain folder.
        out: An existing folder.
        partial: Let it mix architectures.
        on_progress: Is told, in a sentence, how far it is.
        is_cancelled: Is asked now and then.

    Returns:
        How the parents lie to each other, or why there is nothing to say of that.

    Raises:
        ModelError: a weight is not finite or absurdly large, of a parent or of the result; or
            mergekit failed.
        OutputError: the disk is full.
        Cancelled: `is_cancelled` said so.
    """
    merged = dict.fromkeys(part.model for each in recipe.runs for part in each.sources)
    parents = {name: open_parent(name, folders[name]) for name in merged}
    on_progress(f"reading the weights of {' and '.join(parents)}")
    for parent in parents.values():
        if tensor := unsound_tensor(open_weights(parent), is_cancelled):
            raise ModelError(
                f"wanted finite weights in {tensor} of {parent.name}, found NaN, infinite or "
                "absurdly large ones; that model is damaged, use another"
            )
    geometry = _geometry(recipe, parents)
    run(recipe, folders, out, partial=partial, on_progress=on_progress, is_cancelled=is_cancelled)
    if tensor := unsound_tensor(open_weights(open_parent("the merged model", out)), is_cancelled):
        raise ModelError(
            f"wanted finite weights in {tensor} of the merged model, {recipe.merge_method} made "
            "NaN, infinite or absurdly large ones of parents that hold none; take another method "
            "or parameters, or dtype: float32 if it is float16"
        )
    return geometry


def _geometry(recipe: Recipe, parents: Mapping[str, Parent]) -> Geometry | str:
    """Return how the parents lie to each other, by the names of their tensors, or why not.

    Children of a base are compared with each other, and what each learnt beyond it; a lone child
    with the base. Of more than two each tensor is that of the one farthest from the first.
    """
    takes_base = METHODS[recipe.merge_method].base != "ignored"
    base = parents.get(recipe.base_model or "") if takes_base else None
    first, *others = [parent for parent in parents.values() if parent is not base]
    if not others and base is None:
        return f"every tensor comes from {first.name}, so there are no two models to compare"
    pairs = [(first, other, base) for other in others] or [(base or first, first, None)]
    try:
        found = [compare(*pair) for pair in pairs]
    except UsageError:
        return "the parents have no weights of one name and one shape to compare"
    # Rows of tokens lie in another order where vocabularies differ.
    has_one = have_one_vocabulary(list(parents.values()))
    way: Path = "copied" if recipe.merge_method == "passthrough" else "mergekit"
    by_name = [{row.name: row for row in geometry.tensors} for geometry in found]
    shared = [name for name in by_name[0] if all(name in rows for rows in by_name)]
    kept = [name for name in shared if has_one or not by_token(name)]
    rows = (max((r[name] for r in by_name), key=lambda row: row.angle_deg or 0.0) for name in kept)
    everything = dict.fromkeys(name for parent in parents.values() for name in parent.tensors)
    return Geometry(
        parents=tuple(parent.name for parent in ([first, *others] if others else pairs[0][:2])),
        base=found[0].base,
        tensors=tuple(row._replace(path=way) for row in rows),
        unmatched=tuple(name for name in everything if name not in set(kept)),
        unlike=tuple(dict.fromkeys(text for geometry in found for text in geometry.unlike)),
    )
