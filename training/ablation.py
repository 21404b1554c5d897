"""What clean text is worth: one recipe trained on clean and on spoilt text, seed by seed.

    OUT/
        seed-42/texts/             what was trained on, clean and noised
        seed-42/clean/, noised/    the two runs, as `orbweave train` writes them
        seed-42/evaluation.json    every answer of both
        ablation.json

Noise is put into what the CPT stages read, the only texts that are learnt as they stand; chats
are written by people or a teacher and stay as they are. So do the held-out texts: both runs are
measured on the same clean ones, beside the questions of benchmarks. A short training moves few
answers, but shows in how well the clean texts are foreseen. What is there already is not made
again.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from orbweave.errors import UsageError
from orbweave.files import write_text
from orbweave.records import Record
from orbweave.statistics import LEVEL, Interval, mcnemar, paired_bootstrap, wilson
from training.benchmark import Benchmark
from training.benchmark import Text as Passage
from training.evaluation import Evaluation, ModelResult, evaluate
from training.items import Material
from training.mix import mix
from training.noise import spoil
from training.plan import steps_per_epoch
from training.quality import gate, quality
from training.recipe import Recipe, Stage
from training.rows import split
from training.run import PreparedStage, Result, check, first_model, lineage, prepare, train

__all__ = [
    "RECORD",
    "Ablation",
    "Arm",
    "Build",
    "Difference",
    "SeedResult",
    "Text",
    "TextQuality",
    "ablate",
    "crossed_bootstrap",
    "shortened",
    "spoilt_texts",
    "text_quality",
]

RECORD = "ablation.json"
_EVALUATION = "evaluation.json"
_RESAMPLES = 10_000

Build = Callable[[Path, Path], Path]
"""(checkpoint, new folder) -> the plain model folder that is evaluated."""


class Text(NamedTuple):
    """One text of the CPT stage."""

    id: str
    clean: str
    noised: str
    """The same as clean if it is held out."""
    is_held_out: bool


class TextQuality(Record):
    """How texts look to `orbweave ingest`."""

    n: int
    score: float
    """Mean of `training.quality`, in [0, 1]."""
    passing: float
    """Share that its gate would let through."""


class Arm(Record):
    """One run: a seed on clean or on noised text."""

    folder: str
    accuracy: float
    low: float
    high: float
    """95 % Wilson interval of the accuracy."""
    held_out_loss: dict[str, float | None]
    """Checkpoint -> loss on held-out rows, clean in both arms."""
    text_loss: float | None = None
    """Of the last checkpoint: mean over the held-out texts, in nats per token; None without any."""


class Difference(Record):
    """Noised minus clean."""

    gain: float
    low: float
    high: float
    """95 % interval."""


class SeedResult(Record):
    """Both runs of one seed, on the same questions."""

    seed: int
    clean: Arm
    noised: Arm
    difference: Difference
    """In accuracy, negative where noise did harm. Interval: paired bootstrap over questions."""
    p_value: float
    """McNemar's exact test."""
    text_difference: Difference | None = None
    """In `text_loss`, positive where noise did harm. Interval: paired bootstrap over texts."""


class Ablation(Record):
    """Everything an ablation found; `ablation.json` holds this."""

    schema_version: Literal[1] = 1
    recipe: str
    noise: float
    """Level of the noise, in (0, 1]."""
    benchmarks: dict[str, int]
    """Name -> questions; all are pooled."""
    clean_text: TextQuality
    noised_text: TextQuality
    seeds: tuple[SeedResult, ...]
    together: Difference
    """In accuracy, mean over the seeds. Interval: bootstrap over questions and seeds."""
    held_out_texts: int = 0
    text_together: Difference | None = None
    """In `text_loss`, mean over the seeds. Interval: bootstrap over texts and seeds."""


def ablate(
    recipe: Recipe,
    material: Material,
    out: Path,
    *,
    noise: float,
    benchmarks: Sequence[Benchmark],
    build: Build,
    seeds: int = 3,
    steps: int | None = None,
    last: str | None = None,
    shows_progress: bool = True,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Ablation:
    """Train, evaluate and compare; an interrupted run goes on where it was left.

    Args:
        recipe: What to train; its seed is the first, the others count up from it.
        material: As for `training.run.train`.
        out: Folder of the results.
        noise: Level of the noise, see `training.noise`.
        benchmarks: Questions.
        build: Makes a checkpoint a folder that can be evaluated.
        seeds: How many times, at least 1.
        steps: Most optimiser steps of a stage, for a quick look. Counted on the clean text:
            both runs get the same epochs.
        last: The stage to stop after, see `Recipe.n_stages`.
        shows_progress: Draw bars on stderr.
        on_progress: Is told, in a sentence, what begins.

    Raises:
        UsageError: the recipe has no text to spoil, or other faults.
        ModelError, OutputError: as in `train`.
    """
    check(recipe, material, last)
    results: list[SeedResult] = []
    gains: list[list[int]] = []
    losses: list[list[float]] = []
    texts: list[Text] = []
    for seed in range(recipe.seed, recipe.seed + seeds):
        place = out / f"seed-{seed}"
        one = recipe.model_copy(update={"seed": seed})
        known = spoilt_texts(one, material, noise)
        texts += [text for of_source in known.values() for text in of_source]
        # Which are held out follows from their ids: the same ones for every seed.
        held = [text.clean for of in known.values() for text in of if text.is_held_out]
        clean, noised = _arms(one, known, place / "texts")
        if steps is not None:
            clean = shortened(clean, _prepared(clean, material), steps)
        runs: dict[str, list[Result]] = {}
        for name, arm in {"clean": clean, "noised": _with_epochs_of(clean, noised)}.items():
            on_progress(f"seed {seed}, {name} text")
            runs[name] = train(
                arm, material, place / name, last=last,
                shows_progress=shows_progress, on_progress=on_progress,
            )  # fmt: skip
        on_progress(f"seed {seed}, evaluation")
        evaluation = _evaluated(place, runs, benchmarks, held, build)
        gains.append(_gains(evaluation))
        losses.append(_losses(evaluation))
        results.append(_seed_result(seed, runs, evaluation, gains[-1], losses[-1]))
    ablation = Ablation(
        recipe=recipe.name,
        noise=noise,
        benchmarks={b.name: len(b.questions) for b in benchmarks},
        clean_text=text_quality([text.clean for text in texts]),
        noised_text=text_quality([text.noised for text in texts]),
        seeds=tuple(results),
        together=_difference(gains),
        held_out_texts=len(held),
        text_together=_difference(losses) if held else None,
    )
    write_text(out / RECORD, ablation.model_dump_json(indent=1) + "\n")
    return ablation


def spoilt_texts(recipe: Recipe, material: Material, noise: float) -> dict[str, list[Text]]:
    """Return source -> texts of the CPT stages, clean and noised.

    Raises:
        UsageError: there is no such stage, its data have faults, or noise is not in (0, 1].
    """
    if not 0 < noise <= 1:
        raise UsageError(f"wanted a noise level above 0 and at most 1, got {noise}")
    stage, *others = _text_stages(recipe)
    whole = recipe.model_copy(update={"held_out": 0.0})
    found: dict[str, list[Text]] = {}
    for source in dict.fromkeys([*stage.data, *(name for other in others for name in other.data)]):
        rows = mix(stage.model_copy(update={"data": {source: 1.0}}), whole, material).learnt
        held = {row.id for row in split(rows, recipe.held_out)[1]}
        texts = []
        for row in rows:
            rng = np.random.default_rng([recipe.seed, *row.id.encode()])
            is_held_out = row.id in held
            noised = row.text if is_held_out else spoil(row.text, noise, rng)
            texts.append(Text(row.id, row.text, noised, is_held_out))
        found[source] = texts
    return found


def text_quality(texts: Sequence[str]) -> TextQuality:
    """Return what `orbweave ingest` would make of texts."""
    found = [quality(text) for text in texts]
    return TextQuality(
        n=len(found),
        score=sum(each.score for each in found) / len(found),
        passing=sum(gate(each) is None for each in found) / len(found),
    )


def shortened(recipe: Recipe, prepared: Sequence[PreparedStage], steps: int) -> Recipe:
    """Return the recipe with so few epochs that no stage takes more steps than `steps`."""
    stages = []
    for stage, rows in zip(recipe.stages, prepared, strict=True):
        per_epoch = steps_per_epoch(rows)
        if stage.epochs * per_epoch > steps:
            # The trainer rounds up; half a step below, no rounding error adds one.
            stage = stage.model_copy(update={"epochs": (steps - 0.5) / per_epoch})
        stages.append(stage)
    return recipe.model_copy(update={"stages": tuple(stages)})


def crossed_bootstrap(gains: np.ndarray, seed: int = 0, level: float = LEVEL) -> Interval:
    """Return the percentile interval of a mean over seeds and questions, both drawn anew.

    Every seed answers the same questions, so they are drawn for all seeds at once; with one
    seed it is the ordinary bootstrap over questions.

    Args:
        gains: Difference for each seed and question (or text), shape (seeds, questions).
        seed: The same seed gives the same interval.
        level: Confidence level, in (0, 1).

    Source: Owen, Ann. Appl. Stat. 1 (2007) 386 (the pigeonhole bootstrap).
    """
    rng = np.random.default_rng(seed)
    n_seeds, n = gains.shape
    of_seed = rng.multinomial(n_seeds, [1 / n_seeds] * n_seeds, size=_RESAMPLES) / n_seeds
    of_question = rng.multinomial(n, [1 / n] * n, size=_RESAMPLES) / n
    means = ((of_seed @ gains) * of_question).sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _text_stages(recipe: Recipe) -> list[Stage]:
    found = [stage for stage in recipe.stages if stage.method == "cpt"]
    if not found:
        raise UsageError(
            f"wanted a recipe with a cpt stage, {recipe.name} has "
            f"{', '.join(s.method for s in recipe.stages)}; noise is put into plain text only"
        )
    return found


def _arms(
    recipe: Recipe, texts: Mapping[str, Sequence[Text]], folder: Path
) -> tuple[Recipe, Recipe]:
    """Write the texts and return the recipe on the clean and on the noised ones."""
    made = []
    for arm in ("clean", "noised"):
        files: dict[str, str] = {}
        for number, (source, rows) in enumerate(texts.items(), 1):
            path = folder / f"{number}-{arm}.jsonl"
            lines = [json.dumps({"id": row.id, "text": getattr(row, arm)}) for row in rows]
            write_text(path, "\n".join(lines) + "\n")
            files[source] = str(path)
        stages = [_reading(s, files) if s.method == "cpt" else s for s in recipe.stages]
        made.append(recipe.model_copy(update={"stages": tuple(stages)}))
    return made[0], made[1]


def _reading(stage: Stage, files: Mapping[str, str]) -> Stage:
    """Return the stage with a file in the place of each source."""
    data = {files[source]: fraction for source, fraction in stage.data.items()}
    return stage.model_copy(update={"data": data})


def _prepared(recipe: Recipe, material: Material) -> list[PreparedStage]:
    _, tokenizer = first_model(recipe)
    return prepare(recipe, material, tokenizer)


def _with_epochs_of(model: Recipe, recipe: Recipe) -> Recipe:
    stages = [
        stage.model_copy(update={"epochs": other.epochs})
        for stage, other in zip(recipe.stages, model.stages, strict=True)
    ]
    return recipe.model_copy(update={"stages": tuple(stages)})


def _evaluated(
    place: Path,
    runs: Mapping[str, Sequence[Result]],
    benchmarks: Sequence[Benchmark],
    held_out: Sequence[str],
    build: Build,
) -> Evaluation:
    """Return the evaluation of both runs, made only if models, questions or texts are others."""
    checkpoints = {name: results[-1].folder for name, results in runs.items()}
    asked = [q.model_dump_json() for b in benchmarks for q in b.questions]
    made_from = [lineage(folder)[0]["key"] for folder in checkpoints.values()]
    key = hashlib.sha256("\n".join([*made_from, *asked, *held_out]).encode()).hexdigest()
    path = place / _EVALUATION
    if path.is_file():
        known = json.loads(path.read_text("utf-8"))
        if known["key"] == key:
            return Evaluation.model_validate_json(json.dumps(known["evaluation"]))
    with tempfile.TemporaryDirectory(dir=place, prefix=".models-") as folder:
        models = [(name, build(of, Path(folder) / name)) for name, of in checkpoints.items()]
        # Each a set of its own, so that each has its own perplexity.
        texts = {
            f"held-out-{n}": [Passage(id=str(n), domain="held-out", text=text)]
            for n, text in enumerate(held_out, 1)
        }
        evaluation = evaluate(models, benchmarks, texts)
    document = {"key": key, "evaluation": evaluation.model_dump(mode="json")}
    write_text(path, json.dumps(document, indent=1) + "\n")
    return evaluation


def _right(model: ModelResult) -> list[bool]:
    return [answer.is_right("loglik") for answer in model.answers]


def _gains(evaluation: Evaluation) -> list[int]:
    """Return for each question 1 if only the noised model is right, -1 if only the clean one."""
    clean, noised = map(_right, evaluation.models)
    return [after - before for before, after in zip(clean, noised, strict=True)]


def _nats(model: ModelResult) -> list[float]:
    """Return the nats per token of each text the model read."""
    return [math.log(text.per_token) for text in model.texts]


def _losses(evaluation: Evaluation) -> list[float]:
    """Return for each held-out text how many nats per token more the noised model needs."""
    clean, noised = map(_nats, evaluation.models)
    return [after - before for before, after in zip(clean, noised, strict=True)]


def _difference(values: Sequence[Sequence[float]]) -> Difference:
    """Return the mean over seeds and questions or texts, shape (seeds, n), with its interval."""
    bounds = crossed_bootstrap(np.array(values))
    return Difference(gain=float(np.mean(values)), low=bounds.low, high=bounds.high)


def _seed_result(
    seed: int,
    runs: Mapping[str, Sequence[Result]],
    evaluation: Evaluation,
    gains: Sequence[int],
    losses: Sequence[float],
) -> SeedResult:
    arms = {}
    for model in evaluation.models:
        right, n = sum(_right(model)), len(model.answers)
        bounds = wilson(right, n)
        arms[model.model] = Arm(
            folder=str(runs[model.model][-1].folder),
            accuracy=right / n,
            low=bounds.low,
            high=bounds.high,
            held_out_loss={r.folder.name: r.figures["held_out_loss"] for r in runs[model.model]},
            text_loss=float(np.mean(_nats(model))) if model.texts else None,
        )
    bounds = paired_bootstrap([gains], seed=0)
    return SeedResult(
        seed=seed,
        clean=arms["clean"],
        noised=arms["noised"],
        difference=Difference(gain=float(np.mean(gains)), low=bounds.low, high=bounds.high),
        p_value=mcnemar(gains.count(-1), gains.count(1)),
        text_difference=_difference([losses]) if losses else None,
    )
