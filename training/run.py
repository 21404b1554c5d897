"""A recipe, run: stage after stage, each made once, resumed where it was left.

`out` gets one folder per stage, named as the paper does (`Instruct-CPT-SFT`): an adapter or a
whole model, a model card, and `provenance.json` with the key of everything it was made from.
A stage whose folder already holds that key is not trained again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orbweave.errors import ModelError, UsageError
from orbweave.files import build_folder, write_text
from orbweave.models import resolve
from orbweave.weights import hash_weights
from training.card import model_card
from training.items import Material
from training.mix import mix
from training.recipe import Recipe, Stage
from training.rows import Row, digest
from training.tokens import Encoded, encode_chat, encode_text

if TYPE_CHECKING:
    from training.stages import StageJob

__all__ = ["PreparedStage", "Result", "lineage", "prepare", "train"]

PROVENANCE = "provenance.json"
_LIBRARIES = ("torch", "transformers", "trl", "peft")


@dataclass(frozen=True)
class PreparedStage:
    """A stage whose rows are counted and encoded, ready to be trained or shown."""

    name: str
    """Of the checkpoint it makes, e.g. `Instruct-CPT`."""
    stage: Stage
    learnt: Sequence[Encoded] | Sequence[Row]
    held_out: Sequence[Encoded] | Sequence[Row]
    counts: dict[str, int]
    """Source -> rows, repeats included."""
    too_long: int
    """Chats left out because they are longer than `max_length`."""
    tokens: int
    """Of one epoch."""
    data_sha256: str


class Result(NamedTuple):
    """What one stage gave."""

    folder: Path
    figures: dict[str, Any]
    was_kept: bool
    """It was there already, made from the same data, settings and parent."""


def prepare(recipe: Recipe, material: Material, tokenizer: Any) -> list[PreparedStage]:
    """Mix and encode the rows of every stage.

    Raises:
        UsageError: every fault of every stage's data, in one message.
    """
    prepared, faults = [], []
    for stage in recipe.stages:
        try:
            name = recipe.checkpoint_name(stage)
            prepared.append(_prepare_stage(name, stage, recipe, material, tokenizer))
        except UsageError as err:
            faults.append(f"{stage.method}: {err}")
    if faults:
        raise UsageError("; ".join(faults))
    return prepared


def train(
    recipe: Recipe,
    material: Material,
    out: Path,
    *,
    last: str | None = None,
    shows_progress: bool = True,
    on_progress: Callable[[str], None] = lambda _: None,
) -> list[Result]:
    """Run the stages of a recipe in order, up to the method `last` if it is given.

    Args:
        recipe: What to do.
        material: Words and facts the shipped items are laid out with.
        out: Folder of the results; finished stages in it are kept, a begun one goes on.
        last: Stop after the stage of this method.
        shows_progress: Draw bars on stderr.
        on_progress: Is told, in a sentence, what begins.

    Raises:
        UsageError: the recipe or its data have faults.
        ModelError: the model or the parent is missing or damaged.
    """
    from training.stages import load_tokenizer, run_stage

    base = resolve(recipe.model, on_progress=on_progress)
    tokenizer = load_tokenizer(base, _template(recipe, on_progress))
    prepared = prepare(recipe, material, tokenizer)
    methods = [p.stage.method for p in prepared]
    if last is not None and last not in methods:
        raise UsageError(f"wanted the stage {last}, this recipe has {', '.join(methods)}")
    adapter = _parent(recipe)
    origin = {"model": recipe.model, "sha256": hash_weights(base)}
    trunk = _State(base, adapter, lineage(adapter) if adapter else [origin])
    results = []
    for number, plan in enumerate(prepared, 1):
        on_progress(f"{plan.name}, stage {number} of {len(prepared)}")
        target = out / plan.name
        key = _key(_head(plan, recipe) | {"parent": trunk.lineage[0]})
        known = _provenance(target)
        if known.get("key") == key:
            results.append(Result(target, known["figures"], True))
        else:
            work = out / f".work-{plan.name}-{key[:12]}"
            job = _job(plan, recipe, trunk, tokenizer, work, shows_progress)
            made: list[Any] = []
            figures = run_stage(job, lambda *parts, to=made: to.extend(parts))
            if made:  # empty in all processes but the first
                facts = _head(plan, recipe) | {"key": key, "figures": figures}
                facts |= {"parents": trunk.lineage, "counts": plan.counts, "tokens": plan.tokens}
                facts |= {"too_long": plan.too_long}
                facts |= {"versions": {name: version(name) for name in _LIBRARIES}}
                _save(target, made[0], made[1], facts, recipe)
                shutil.rmtree(work)
            results.append(Result(target, figures, False))
        if plan.stage.method in {"cpt", "sft"}:
            own = {"name": plan.name, "recipe": recipe.name, "key": key}
            trunk = _State(
                base if recipe.adapter else target,
                target if recipe.adapter else None,
                [own, *trunk.lineage],
            )
        if plan.stage.method == last:
            break
    return results


def lineage(folder: Path) -> list[dict[str, Any]]:
    """Return what a checkpoint was made from, itself first.

    Raises:
        ModelError: it holds no provenance.
    """
    known = _provenance(folder)
    if not known:
        raise ModelError(
            f"wanted a checkpoint with {PROVENANCE} in {folder}, found none; "
            "give a folder that `orbweave train` wrote"
        )
    own = {"name": known["name"], "recipe": known["recipe"], "key": known["key"]}
    return [own, *known["parents"]]


class _State(NamedTuple):
    """What the next stage starts from."""

    model: Path
    adapter: Path | None
    lineage: list[dict[str, Any]]


def _head(plan: PreparedStage, recipe: Recipe) -> dict[str, Any]:
    """Return what decides a stage's result, apart from its parent."""
    template = {"chat_template": recipe.chat_template} if recipe.chat_template else {}
    return template | {
        "name": plan.name,
        "recipe": recipe.name,
        "stage": plan.stage.model_dump(),
        "adapter": recipe.adapter.model_dump() if recipe.adapter else None,
        "seed": recipe.seed,
        "data_sha256": plan.data_sha256,
    }


def _job(
    plan: PreparedStage,
    recipe: Recipe,
    start: _State,
    tokenizer: Any,
    work: Path,
    shows_progress: bool,
) -> StageJob:
    from training.stages import StageJob

    return StageJob(
        model=start.model,
        adapter=start.adapter,
        lora=recipe.adapter,
        stage=plan.stage,
        learnt=plan.learnt,
        held_out=plan.held_out,
        tokenizer=tokenizer,
        work=work,
        seed=recipe.seed,
        gradient_checkpointing=recipe.gradient_checkpointing,
        shows_progress=shows_progress,
    )


def _prepare_stage(
    name: str, stage: Stage, recipe: Recipe, material: Material, tokenizer: Any
) -> PreparedStage:
    rows = mix(stage, recipe, material)
    parts: list[list[Any]] = []
    too_long = tokens = 0
    for part in (rows.learnt, rows.held_out):
        encoded: list[Any] = []
        known: dict[Any, Any] = {}
        for row in part:
            if row not in known:
                known[row] = _encode(tokenizer, row, stage)
            size = known[row][1]
            if size > stage.max_length and stage.method != "cpt":
                too_long += 1
                continue
            encoded.append(known[row][0])
            tokens += size if part is rows.learnt else 0
        parts.append(encoded)
    if not parts[0]:
        raise UsageError(
            f"wanted rows of at most {stage.max_length} tokens, all {too_long} are longer; "
            "raise max_length"
        )
    return PreparedStage(
        name, stage, parts[0], parts[1], rows.counts, too_long, tokens, digest(rows.learnt)
    )


def _encode(tokenizer: Any, row: Row, stage: Stage) -> tuple[Any, int]:
    """Return what the stage is handed for a row, and its length in tokens."""
    if stage.method == "cpt":
        text = encode_text(tokenizer, row.text)
        return text, len(text.input_ids)
    chat = encode_chat(tokenizer, row.turns, loss_on=stage.loss_on)
    if stage.method == "sft":
        return chat, len(chat.input_ids)
    return row, 2 * len(chat.input_ids)


def _template(recipe: Recipe, on_progress: Callable[[str], None]) -> Path | None:
    if recipe.chat_template is None:
        return None
    return resolve(recipe.chat_template, on_progress=on_progress)


def _parent(recipe: Recipe) -> Path | None:
    if recipe.parent is None:
        return None
    folder = Path(recipe.parent).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"wanted an adapter in {folder}, found none; train the recipe it comes from first"
        )
    return folder


def _save(target: Path, model: Any, tokenizer: Any, facts: dict[str, Any], recipe: Recipe) -> None:
    """Write the finished stage, whole or not at all; weights as bf16 safetensors."""
    import torch

    with build_folder(target, force=True) as folder:
        model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        _name_base(folder / "adapter_config.json", recipe.model)
        write_text(folder / "README.md", model_card(facts, recipe))
        write_text(folder / PROVENANCE, json.dumps(facts, indent=2) + "\n")


def _name_base(config: Path, model: str) -> None:
    """Let an adapter name its model as the recipe does, not by a folder of this machine."""
    if config.is_file():
        settings = json.loads(config.read_text("utf-8"))
        settings["base_model_name_or_path"] = model
        write_text(config, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads((folder / PROVENANCE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value


def _key(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
