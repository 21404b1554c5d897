"""`orbweave train RECIPE`: a base model learns a domain, stage after stage."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options

if TYPE_CHECKING:
    from training.plan import StagePlan
    from training.recipe import Recipe
    from training.run import PreparedStage
    from ui.answer import Answer

__all__ = ["train"]

PARENT = Path("runs")
"""Where runs go without --out."""


def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A YAML file, or a shipped recipe by name."),
    ],
    out: options.Out = None,
    stage: options.Stage = None,
    plan: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="Print tokens, steps, time and memory.")
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Print what is learnt: rows, templated text with the loss mask, lengths, "
            "duplicates, overlap with the benchmarks.",
        ),
    ] = False,
    launch: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG",
            help="Start on several devices by this accelerate configuration: a file, or one of "
            "ours, processors, fsdp or zero3.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a model by a recipe: CPT, SFT, DPO, ORPO, each stage resumed where it was left.

    Example: orbweave train smollm2-135m-generalist --plan
    """
    from training.recipe import load_recipe
    from ui.answer import Answer
    from ui.image_training import image_recipe, train_image_adapter

    answer = Answer(as_json=as_json, quiet=quiet)
    picture_recipe = image_recipe(recipe)
    if picture_recipe is not None:
        train_image_adapter(picture_recipe, out, answer, dry_run=plan or preview)
        return
    known = load_recipe(recipe)
    config = None if launch is None else _launch_config(launch)
    if preview:
        _preview(known, answer, stage)
    elif plan:
        _plan(known, answer, stage, _processes(config))
    elif config is not None:
        _check_before_launch(known, stage, config)
        _launch(recipe, config, out or PARENT / known.name, stage, answer)
    else:
        _run(known, out or PARENT / known.name, stage, answer)


def _plan(recipe: Recipe, answer: Answer, stage: str | None, processes: int) -> None:
    from training.run import check, first_model, prepare
    from ui.material import team_material

    material = team_material()
    mixtures = check(recipe, material, stage)
    model, tokenizer = first_model(recipe, answer.note)
    prepared = prepare(recipe, material, tokenizer, mixtures)[: recipe.n_stages(stage)]
    plans, lines = _arithmetic(recipe, model, prepared, processes)
    for line in lines:
        answer.line(line)
    answer.end([asdict(one) for one in plans])


def _arithmetic(
    recipe: Recipe, model: Path, prepared: list[PreparedStage], processes: int
) -> tuple[list[StagePlan], list[str]]:
    """Return what stages will cost on this machine, as values and as lines for reading."""
    from orbweave.weights import count_parameters, weight_files
    from training.machine import machine_speed
    from training.plan import plan_stages, plan_table

    config = json.loads((model / "config.json").read_text("utf-8"))
    weights = count_parameters(weight_files(model))
    speed = machine_speed(model, recipe.adapter, processes)
    plans = plan_stages(prepared, recipe, config, weights, speed.flops, processes, bf16=speed.bf16)
    return plans, plan_table(plans, speed.share)


def _preview(recipe: Recipe, answer: Answer, last: str | None) -> None:
    from agents.embedding import MiniLM
    from training.benchmark import load_benchmark, shipped_benchmarks
    from training.overlap import find_overlaps, remembered
    from training.preview import preview_stage
    from training.run import check, first_model
    from ui.material import team_material

    mixtures = check(recipe, team_material(), last)
    _, tokenizer = first_model(recipe, answer.note)
    asked = [
        f"{q.question} {q.options[q.answer]}" if q.type == "mc" else q.question
        for name in shipped_benchmarks()
        for q in load_benchmark(name).questions
    ]
    embed = remembered(MiniLM())
    document: list[dict[str, Any]] = []
    stages = zip(recipe.checkpoints, recipe.stages, mixtures, strict=True)
    for name, stage, rows in islice(stages, recipe.n_stages(last)):
        seen = preview_stage(name, stage, rows, tokenizer)
        overlaps = find_overlaps(rows.learnt, asked, embed)
        document.append(asdict(seen) | {"overlaps": [asdict(one) for one in overlaps]})
        _say_stage(seen, overlaps, answer)
    answer.end(document)


def _say_stage(seen: Any, overlaps: list[Any], answer: Answer) -> None:
    lengths = ", ".join(f"{name} {value}" for name, value in seen.length_quantiles.items())
    counts = ", ".join(f"{name} {count:,}" for name, count in seen.counts.items())
    answer.line(f"══ {seen.name} ({seen.method})")
    answer.line(f"rows: {counts}; {seen.duplicates} duplicates, {seen.too_long} too long")
    answer.line(f"tokens of a row: {lengths}; {seen.counting_share:.0%} of them count in the loss")
    for sample in seen.samples:
        answer.line(f"── {sample.source}, as written\n{sample.raw}")
        answer.line(f"── as tokens, what counts between ⟦ ⟧\n{sample.marked}")
        if sample.rejected is not None:
            answer.line(f"── rejected\n{sample.rejected}")
    answer.line(f"── overlap with the shipped benchmarks: {len(overlaps)} rows")
    for one in overlaps[:10]:
        answer.line(f"   {one.kind} {one.similarity:.2f}  {one.source} {one.row}: {one.question}")


def _run(recipe: Recipe, out: Path, stage: str | None, answer: Answer) -> None:
    from orbweave.logbook import logged
    from training.run import lineage
    from training.run import train as run
    from ui.material import team_material
    from ui.progress import both

    def tell_cost(model: Path, prepared: list[PreparedStage]) -> None:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        for line in _arithmetic(recipe, model, prepared, processes)[1]:
            answer.note(line)

    speaks = os.environ.get("RANK", "0") == "0"  # one of several processes speaks for all
    with logged("train", recipe.name, out) if speaks else nullcontext() as entry:
        results = run(
            recipe,
            team_material(),
            out,
            last=stage,
            shows_progress=not answer.is_terse,
            on_progress=both(answer.note, entry.note) if entry else lambda _: None,
            on_prepared=tell_cost if entry and not answer.quiet else lambda model, stages: None,
            on_step=entry.report if entry else lambda done, total, note: None,
        )
    if not speaks:
        return
    document: list[dict[str, Any]] = []
    for result in results:
        figures = ", ".join(f"{k} {v:,}" for k, v in result.figures.items() if v is not None)
        answer.line(f"{result.folder.name}: {figures}{' (kept)' if result.was_kept else ''}")
        document.append(
            {
                "folder": str(result.folder),
                "kept": result.was_kept,
                "figures": result.figures,
                "lineage": lineage(result.folder),
            }
        )
    answer.line(f"made from: {' <- '.join(map(_ancestor, document[-1]['lineage']))}")
    answer.end(document, f"trained model written to {results[-1].folder}")


def _ancestor(one: dict[str, Any]) -> str:
    """Return one step of a lineage in words."""
    return str(one["model"]) if "model" in one else f"{one['recipe']}/{one['name']}"


def _launch_config(config: Path) -> Path:
    """Return the file of an accelerate configuration, given by its path or as one of ours."""
    import training
    from orbweave.errors import UsageError, shown

    ours = {path.stem: path for path in (Path(training.__file__).parent / "launch").glob("*.yaml")}
    if config.is_file():
        return config
    if config.parent == Path() and config.stem in ours:
        return ours[config.stem]
    raise UsageError(
        f"wanted an accelerate configuration, found no {shown(config)}; "
        f"give a YAML file or one of ours: {', '.join(sorted(ours))}"
    )


def _launch_settings(config: Path) -> dict[str, Any]:
    import yaml

    from orbweave.errors import UsageError, shown

    try:
        settings = yaml.safe_load(config.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise UsageError(f"wanted YAML in {config}, {shown(err, 120)}") from err
    if not isinstance(settings, dict) or "distributed_type" not in settings:
        raise UsageError(
            f"wanted an accelerate configuration in {config}, found no distributed_type; "
            "write one with `accelerate config`"
        )
    return settings


def _processes(config: Path | None) -> int:
    return 1 if config is None else int(_launch_settings(config).get("num_processes", 1))


def _check_before_launch(recipe: Recipe, stage: str | None, config: Path) -> None:
    """Tell every fault here: each of the processes would tell it again, among tracebacks.

    Raises:
        UsageError: the recipe has faults, or the processes would not do what the
            configuration says; accelerate would train otherwise without a word.
    """
    from importlib.util import find_spec

    from orbweave.errors import UsageError
    from training.run import check
    from ui.material import team_material

    settings = _launch_settings(config)
    kind = settings["distributed_type"]
    if kind == "MULTI_CPU" and not settings.get("mpirun_hostfile"):
        raise UsageError(
            f"wanted several processes, accelerate starts the MULTI_CPU of {config} as one "
            "unless it is given an mpirun_hostfile; use --launch processors"
        )
    if kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise UsageError("wanted DeepSpeed, it is not installed; `pip install deepspeed`")
    if kind in {"FSDP", "DEEPSPEED"}:
        from training.machine import gpu_count

        if gpu_count() == 0:
            raise UsageError(f"wanted GPUs for {kind}, found none; use --launch processors")
    check(recipe, team_material(), stage)


def _launch(recipe: str, config: Path, out: Path, stage: str | None, answer: Answer) -> None:
    """Replace this process by accelerate's launcher, so that Ctrl-C reaches every worker."""
    import sys

    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["-m", "ui.cli", "train", recipe, "--out", str(out)]
    command += ["--stage", stage] if stage else []
    command += ["--json"] if answer.as_json else []
    command += ["--quiet"] if answer.quiet else []
    sys.stdout.flush()
    os.execv(sys.executable, command)
