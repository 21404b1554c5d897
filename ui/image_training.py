"""Training an image adapter from the command line; `orbweave train` comes here by the kind."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orbweave.errors import Cancelled, UsageError

if TYPE_CHECKING:
    from imagegen.adapter_recipe import AdapterRecipe
    from ui.answer import Answer

__all__ = ["ImageRecipe", "image_recipe", "train_image_adapter"]

PARENT = Path("runs")
"""Where runs go without --out."""


class ImageRecipe(NamedTuple):
    """A recipe, and where it came from."""

    recipe: AdapterRecipe
    beside: Path
    """Folder its paths are relative to."""
    source: str
    """As it was asked for."""


def image_recipe(source: str) -> ImageRecipe | None:
    """Return the recipe of an image adapter in a YAML file; None for a recipe of another kind.

    Raises:
        UsageError: not YAML, or every fault of an image recipe, in one message.
    """
    from pydantic import ValidationError

    from imagegen.adapter_recipe import KIND, AdapterRecipe
    from orbweave.yaml_text import fault_text
    from training.recipe import read_yaml, shipped_recipes

    path, data, faults = read_yaml(source, shipped_recipes(), "recipe")
    if not (isinstance(data, dict) and data.get("kind") == KIND):
        return None
    try:
        recipe = AdapterRecipe.model_validate(data)
    except ValidationError as err:
        faults += [fault_text(error) for error in err.errors()]
    if faults:
        raise UsageError(
            f"wanted a recipe of an image adapter in {path}, found {len(faults)} faults: "
            f"{'; '.join(faults)}"
        )
    return ImageRecipe(recipe, path.parent, source)


def train_image_adapter(
    known: ImageRecipe, out: Path | None, answer: Answer, *, dry_run: bool = False
) -> None:
    """Train the adapter, or say what would be trained.

    Raises:
        OrbweaveError: as `imagegen.adapter_training.train_adapter` does.
        Cancelled: interrupted; says what is kept and how to go on.
    """
    from imagegen.adapter_recipe import captioned_pictures
    from ui.bar import bar

    recipe, beside, source = known
    target = out or PARENT / recipe.name
    pictures = captioned_pictures(recipe, beside)
    plan = {
        "name": recipe.name,
        "model": recipe.model,
        "pictures": len(pictures),
        "trigger": recipe.trigger,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "out": str(target),
    }
    if dry_run:
        answer.line(f"{len(pictures)} pictures, {recipe.steps} steps of {recipe.batch}")
        answer.end(plan, f"dry run: would train {recipe.name} in {target}")
        return
    from imagegen.adapter_training import kept_step, train_adapter

    answer.note(f"loading the image model {recipe.model}")
    trained = None
    try:
        with bar("training", "step") as on_step:
            trained = train_adapter(
                recipe, target, beside=beside, on_step=lambda step, total, _: on_step(step, total)
            )
    except KeyboardInterrupt:
        if not target.is_dir():
            raise
    if trained is None:
        # Out here, or the interrupt would hang on to our error as its context and be told instead.
        command = shlex.join(["orbweave", "train", source, "--out", str(target)])
        step = kept_step(target)
        kept = f"step {step} is kept in {target}" if step else "before the first checkpoint"
        raise Cancelled(f"interrupted; {kept}, go on with: {command}")
    has_learnt = not math.isnan(trained.first_loss)  # a run that was done is only exported anew
    if has_learnt:
        answer.line(f"loss {trained.first_loss:.4f} at first, {trained.last_loss:.4f} at last")
    answer.end(
        plan
        | {
            "written": str(trained.folder),
            "first_loss": trained.first_loss if has_learnt else None,
            "last_loss": trained.last_loss if has_learnt else None,
        },
        f"adapter written to {trained.folder}",
    )
