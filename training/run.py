"""A recipe, run: stage after stage, each made once, resumed where it was left.

`out` gets one folder per stage, named as the paper does (`Instruct-CPT-SFT`): an adapter or a
whole model, a model card, losses and samples by step, and `provenance.json` with the key of
everything it was made from. A stage whose folder already holds that key is not trained again.
A stage that keeps its epochs leaves `Instruct-CPT-SFT-epoch1` and so on beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orbweave.errors import ModelError, OrbweaveError, UsageError
from orbweave.files import build_folder, write_text
from orbweave.models import ModelRef, list_models, read_card, resolve, resolve_adapter
from orbweave.weights import hash_weights
from training.card import model_card
from training.items import Material
from training.mix import Mixture, mix
from training.plan import steps_of
from training.recipe import TRUNK, Recipe, Stage
from training.rows import Row, digest
from training.samples import Asked, held_out_questions
from training.tally import Tally
from training.tokens import Encoded, encode_chat, encode_text

if TYPE_CHECKING:
    from training.stages import Save, StageJob, Write

__all__ = [
    "PROVENANCE",
    "PreparedStage",
    "Result",
    "check",
    "first_model",
    "lineage",
    "prepare",
    "train",
]

PROVENANCE = "provenance.json"
_ADAPTER_CONFIG = "adapter_config.json"
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
    longest: int
    """Tokens of the longest row that is learnt; of a preference, of both its answers."""
    data_sha256: str
    asked: Sequence[Asked] = ()
    """Held-out questions that show, while it learns, how the model answers."""


class Result(NamedTuple):
    """What one stage gave."""

    folder: Path
    figures: dict[str, Any]
    was_kept: bool
    """It was there already, made from the same data, settings and parent."""


def check(recipe: Recipe, material: Material, last: str | None = None) -> list[Mixture]:
    """Look for every fault that shows before a model is loaded; return the stages' rows.

    Args:
        recipe: What shall be done.
        material: As for `train`.
        last: The stage to stop after, if any, see `Recipe.n_stages`.

    Raises:
        UsageError, ModelError: the fault; several are told in one UsageError.
    """
    faults: list[OrbweaveError] = []
    mixtures = []
    for ref in (recipe.model, recipe.chat_template):
        with _noting(faults):
            _check_reference(ref)
    with _noting(faults):
        _parent(recipe)
    with _noting(faults):
        recipe.n_stages(last)
    for name, stage in zip(recipe.checkpoints, recipe.stages, strict=True):
        with _noting(faults, name):
            mixtures.append(mix(stage, recipe, material))
    _raise(faults, recipe)
    return mixtures


def first_model(
    recipe: Recipe, on_progress: Callable[[str], None] = lambda _: None
) -> tuple[Path, Any]:
    """Return the folder of the model that learns, and its tokenizer with the recipe's template.

    Raises:
        UsageError, ModelError: one of the two models is missing, or cannot be trained on.
    """
    from training.stages import load_tokenizer

    model = resolve(recipe.model, on_progress=on_progress)
    template = recipe.chat_template
    from_other = None if template is None else resolve(template, on_progress=on_progress)
    return model, load_tokenizer(model, from_other)


def prepare(
    recipe: Recipe,
    material: Material,
    tokenizer: Any,
    mixtures: Sequence[Mixture] | None = None,
) -> list[PreparedStage]:
    """Encode the rows of every stage; `check` has mixed them, or it is done here.

    Raises:
        UsageError: every fault of every stage's data, in one message.
    """
    mixtures = mixtures or check(recipe, material)
    prepared = []
    faults: list[OrbweaveError] = []
    for name, stage, rows in zip(recipe.checkpoints, recipe.stages, mixtures, strict=True):
        with _noting(faults, name):
            prepared.append(_prepare_stage(name, stage, rows, tokenizer))
    _raise(faults, recipe)
    return prepared


def train(
    recipe: Recipe,
    material: Material,
    out: Path,
    *,
    last: str | None = None,
    shows_progress: bool = True,
    on_progress: Callable[[str], None] = lambda _: None,
    on_prepared: Callable[[Path, list[PreparedStage]], None] = lambda model, stages: None,
    on_step: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> list[Result]:
    """Run the stages of a recipe in order, up to `last` if it is given.

    Args:
        recipe: What to do.
        material: Words and facts the shipped items are laid out with.
        out: Folder of the results; finished stages in it are kept, a begun one goes on.
        last: Stop after this stage, see `Recipe.n_stages`.
        shows_progress: Draw bars on stderr.
        on_progress: Is told, in a sentence, what begins.
        on_prepared: Is told, before the first step, the first model's folder and the stages
            that are not made yet; not called if all are.
        on_step: Is told (steps done, steps to do, which of which stage), all of this run.

    Raises:
        UsageError: the recipe or its data have faults.
        ModelError: the model or the parent is missing or damaged.
        OutputError: the disk is full.
    """
    mixtures = check(recipe, material, last)
    from training.stages import run_stage  # after the faults: torch takes seconds

    base, tokenizer = first_model(recipe, on_progress)
    n_stages = recipe.n_stages(last)
    prepared = prepare(recipe, material, tokenizer, mixtures)[:n_stages]
    adapter = _parent(recipe)
    origin = {"model": recipe.model, "sha256": hash_weights(base)}
    origins = _origins(prepared, recipe, lineage(adapter) if adapter else [origin])
    to_make = [
        plan
        for plan, of in zip(prepared, origins, strict=True)
        if _provenance(out / plan.name).get("key") != of.key
    ]
    if to_make:
        on_prepared(base, to_make)
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as accelerate's launcher says
    tally = Tally([steps_of(plan, processes) for plan in prepared], on_step)
    trunk = _State(base, adapter)
    results = []
    for number, (plan, (key, parents)) in enumerate(zip(prepared, origins, strict=True), 1):
        on_progress(f"{plan.name}, stage {number} of {n_stages}")
        on_stage_step = tally.stage(plan.name)
        target = out / plan.name
        known = _provenance(target)
        work = out / f".work-{plan.name}-{key[:12]}"
        if known.get("key") == key:
            shutil.rmtree(work, ignore_errors=True)  # killed between the result and tidying up
            results.append(Result(target, known["figures"], True))
        else:
            if known:
                on_progress(f"{target} was made from other data or settings; it will be replaced")
            job = _job(plan, recipe, trunk, tokenizer, work, shows_progress, on_stage_step)
            facts = _head(plan, recipe) | {"key": key, "parents": parents}
            facts |= {"counts": plan.counts, "tokens": plan.tokens, "too_long": plan.too_long}
            facts |= {"versions": {name: version(name) for name in _LIBRARIES}}
            facts |= {"license": read_card(base).get("license")}
            figures = run_stage(job, _saver(target, work, facts, recipe))
            results.append(Result(target, figures, False))
        if plan.stage.method in TRUNK:
            trunk = _State(base, target) if recipe.adapter else _State(target, None)
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


class _Origin(NamedTuple):
    """What a stage's result follows from."""

    key: str
    """Of data, settings and parent."""
    parents: list[dict[str, Any]]
    """Nearest first, as in `lineage`."""


def _origins(
    prepared: Sequence[PreparedStage], recipe: Recipe, parents: list[dict[str, Any]]
) -> list[_Origin]:
    """Return where each stage comes from, the first from `parents`."""
    found = []
    for plan in prepared:
        key = _key(_head(plan, recipe) | {"parent": parents[0]})
        found.append(_Origin(key, parents))
        if plan.stage.method in TRUNK:
            parents = [{"name": plan.name, "recipe": recipe.name, "key": key}, *parents]
    return found


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
    on_step: Callable[[int, int], None],
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
        asked=plan.asked,
        on_step=on_step,
    )


def _prepare_stage(name: str, stage: Stage, rows: Mixture, tokenizer: Any) -> PreparedStage:
    if not rows.learnt:
        raise UsageError(
            f"wanted rows to learn from, {len(rows.held_out)} are held out and none is left; "
            "lower held_out or raise the fractions"
        )
    parts: list[list[Any]] = []
    too_long = tokens = longest = 0
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
            if part is rows.learnt:
                tokens, longest = tokens + size, max(longest, size)
        parts.append(encoded)
    if not parts[0]:
        raise UsageError(
            f"wanted rows of at most {stage.max_length} tokens, all {too_long} are longer; "
            "raise max_length"
        )
    return PreparedStage(
        name=name,
        stage=stage,
        learnt=parts[0],
        held_out=parts[1],
        counts=rows.counts,
        too_long=too_long,
        tokens=tokens,
        longest=longest,
        data_sha256=digest(rows.learnt),
        asked=held_out_questions(tokenizer, rows.held_out),
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


def _parent(recipe: Recipe) -> Path | None:
    """Return the folder of the adapter to go on from; None if a new one is made.

    Raises:
        ModelError: there is none, it has no provenance, or it is not of the recipe's form.
    """
    if recipe.parent is None:
        return None
    shipped = {entry.name for entry in list_models() if entry.place == "adapter"}
    if recipe.parent in shipped:
        folder = resolve_adapter(ModelRef.parse(recipe.parent))
    else:
        folder = Path(recipe.parent).expanduser()
    try:
        config = json.loads((folder / _ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as err:
        raise ModelError(
            f"wanted an adapter in {folder}, found none; train the recipe it comes from first, "
            f"or name a shipped one: {', '.join(sorted(shipped))}"
        ) from err
    lineage(folder)
    assert recipe.adapter is not None
    if config.get("r") != recipe.adapter.rank:
        raise ModelError(
            f"wanted an adapter of rank {recipe.adapter.rank} in {folder}, it has "
            f"{config.get('r')}; write that into the recipe"
        )
    return folder


def _check_reference(ref: str | None) -> None:
    """Raise if a reference is none, or a folder without a model; nothing is built or loaded."""
    if ref is not None:
        found = ModelRef.parse(ref)
        if found.kind not in {"catalogue", "hub"}:
            resolve(found)


@contextmanager
def _noting(faults: list[OrbweaveError], checkpoint: str = "") -> Iterator[None]:
    try:
        yield
    except (UsageError, ModelError) as err:
        faults.append(type(err)(f"{checkpoint}: {err}") if checkpoint else err)


def _raise(faults: Sequence[OrbweaveError], recipe: Recipe) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise UsageError(
            f"wanted a recipe that can be run, found {len(faults)} faults in {recipe.name}: "
            + "; ".join(map(str, faults))
        )


def _saver(target: Path, work: Path, facts: dict[str, Any], recipe: Recipe) -> Save:
    """Return what keeps a stage's model, after an epoch beside the target, at the end in it."""

    def save(write: Write, figures: dict[str, Any], epoch: int | None) -> None:
        if epoch is None:
            _save(target, write, facts | {"figures": figures}, recipe, work)
            shutil.rmtree(work)
            return
        name = f"{facts['name']}-epoch{epoch}"
        key = _key({"of": facts["key"], "epoch": epoch})
        own = {"name": name, "key": key, "epoch": epoch, "figures": {"epoch": epoch} | figures}
        _save(target.with_name(name), write, facts | own, recipe, work)

    return save


def _save(target: Path, write: Write, facts: dict[str, Any], recipe: Recipe, work: Path) -> None:
    """Write a checkpoint, whole or not at all."""
    from training.watch import METRICS, SAMPLES

    with build_folder(target, force=True) as folder:
        write(folder)
        _name_base(folder / _ADAPTER_CONFIG, recipe.model)
        for record in (METRICS, SAMPLES):
            if (work / record).is_file():
                shutil.copyfile(work / record, folder / record)
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
