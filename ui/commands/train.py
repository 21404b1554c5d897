"""`orbweave train RECIPE`: a base model learns a domain, stage after stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options

if TYPE_CHECKING:
    from training.recipe import Recipe
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
    stage: Annotated[
        str | None,
        typer.Option(help="Stop after this stage: cpt, sft, dpo or orpo.", show_default=False),
    ] = None,
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
            help="Start on several devices by this accelerate configuration.",
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

    known = load_recipe(recipe)
    answer = Answer(as_json=as_json, quiet=quiet)
    if preview:
        _preview(known, answer)
    elif plan:
        _plan(known, answer)
    elif launch is not None:
        _launch(recipe, launch, out or PARENT / known.name, stage)
    else:
        _run(known, out or PARENT / known.name, stage, answer)


def _plan(recipe: Recipe, answer: Answer) -> None:
    from orbweave.models import resolve
    from orbweave.weights import count_parameters, weight_files
    from training.plan import plan_stages, plan_table
    from training.run import prepare
    from training.stages import load_tokenizer, machine_flops
    from ui.material import team_material

    model = resolve(recipe.model, on_progress=answer.note)
    prepared = prepare(recipe, team_material(), load_tokenizer(model, _template(recipe, answer)))
    config = json.loads((model / "config.json").read_text("utf-8"))
    weights = count_parameters(weight_files(model))
    plans = plan_stages(prepared, recipe, config, weights, machine_flops())
    for line in plan_table(plans):
        answer.line(line)
    answer.end([asdict(one) for one in plans])


def _template(recipe: Recipe, answer: Answer) -> Path | None:
    from orbweave.models import resolve

    if recipe.chat_template is None:
        return None
    return resolve(recipe.chat_template, on_progress=answer.note)


def _preview(recipe: Recipe, answer: Answer) -> None:
    from agents.embedding import MiniLM
    from orbweave.models import resolve
    from training.benchmark import load_benchmark, shipped_benchmarks
    from training.overlap import find_overlaps
    from training.preview import preview_stage
    from training.stages import load_tokenizer
    from ui.material import team_material

    model = resolve(recipe.model, on_progress=answer.note)
    tokenizer = load_tokenizer(model, _template(recipe, answer))
    material = team_material()
    asked = [
        f"{q.question} {q.options[q.answer]}" if q.type == "mc" else q.question
        for name in shipped_benchmarks()
        for q in load_benchmark(name).questions
    ]
    embed = MiniLM()
    document: list[dict[str, Any]] = []
    for stage in recipe.stages:
        name = recipe.checkpoint_name(stage)
        seen, rows = preview_stage(name, stage, recipe, material, tokenizer)
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
    from training.run import train as run
    from ui.material import team_material

    results = run(
        recipe,
        team_material(),
        out,
        last=stage,
        shows_progress=not answer.is_terse,
        on_progress=answer.note,
    )
    document = []
    for result in results:
        figures = ", ".join(f"{k} {v:,}" for k, v in result.figures.items() if v is not None)
        answer.line(f"{result.folder.name}: {figures}{' (kept)' if result.was_kept else ''}")
        document.append(
            {"folder": str(result.folder), "kept": result.was_kept, "figures": result.figures}
        )
    answer.end(document, f"trained model written to {results[-1].folder}")


def _launch(recipe: str, config: Path, out: Path, stage: str | None) -> None:
    """Replace this process by accelerate's launcher, so that Ctrl-C reaches every worker."""
    import os
    import sys

    from orbweave.errors import UsageError

    if not config.is_file():
        raise UsageError(
            f"wanted an accelerate configuration, found no file {config}; "
            "training/launch holds ours for FSDP, DeepSpeed and several processors"
        )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    command += ["-m", "ui.cli", "train", recipe, "--out", str(out)]
    command += ["--stage", stage] if stage else []
    os.execv(sys.executable, command)
