"""`orbweave ablate RECIPE`: the same recipe on clean and on spoilt text, and the difference."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ui.commands import options
from ui.markdown import aligned_table

if TYPE_CHECKING:
    from training.ablation import Ablation, Difference, SeedResult, TextQuality
    from training.recipe import Recipe
    from ui.answer import Answer

__all__ = ["ablate", "report"]

RECIPE = "smollm2-135m-ablation"
PARENT = Path("runs")
_SHOWN_CHARS = 600


def ablate(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A YAML file, or a shipped recipe by name; it needs a cpt stage."
        ),
    ] = RECIPE,
    noise: Annotated[
        float,
        typer.Option(
            help="Share of the places where extraction may fail at which it does, up to 1."
        ),
    ] = 0.15,
    benchmark: options.Benchmarks = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Trainings of each kind, seeds counted upwards.")
    ] = 3,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Optimiser steps of a stage at most, for a quick look.", show_default=False
        ),
    ] = None,
    stage: options.Stage = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the runs; an interrupted ablation there is gone on with.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", "--dry-run", help="Print the noise, tokens, steps and time."),
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train on clean and on noised text; show what the noise cost, with intervals.

    Example: orbweave ablate smollm2-135m-cpu --stage cpt --noise 0.15 --seeds 3
    """
    from merging.build import merge
    from training.ablation import RECORD
    from training.ablation import ablate as run
    from training.benchmark import GENERAL, load_benchmark, shipped_benchmarks
    from training.recipe import load_recipe
    from ui.answer import Answer
    from ui.material import team_material

    known = load_recipe(recipe)
    names = benchmark or [name for name in shipped_benchmarks() if name != GENERAL]
    benchmarks = [load_benchmark(name) for name in names]
    target = out or PARENT / f"{known.name}-ablation"
    _check_ours(target)
    answer = Answer(as_json=as_json, quiet=quiet)
    if plan:
        _plan(known, noise, seeds, steps, stage, answer)
        return

    def build(checkpoint: Path, folder: Path) -> Path:
        if known.adapter is None:
            return checkpoint
        merge(f"{known.model}+{checkpoint.resolve()}", folder, on_progress=answer.note)
        return folder

    found = run(
        known,
        team_material(),
        target,
        noise=noise,
        benchmarks=benchmarks,
        build=build,
        seeds=seeds,
        steps=steps,
        last=stage,
        shows_progress=not answer.is_terse,
        on_progress=answer.note,
    )
    answer.line(report(found))
    answer.end(found.model_dump(mode="json"), f"ablation written to {target / RECORD}")


def _check_ours(out: Path) -> None:
    """Raise OutputError unless `out` is new, empty, or an ablation."""
    from orbweave.errors import OutputError
    from orbweave.files import check_output

    check_output(out, force=True)
    if out.exists() and not (
        out.is_dir() and (not any(out.iterdir()) or any(out.glob("seed-*/texts")))
    ):
        raise OutputError(
            f"wanted a new folder or an earlier ablation at {out}, found something else; "
            "choose another --out"
        )


def _plan(
    recipe: Recipe,
    noise: float,
    seeds: int,
    steps: int | None,
    stage: str | None,
    answer: Answer,
) -> None:
    """Say what the noise does to the texts, and what the trainings will cost."""
    from orbweave.weights import count_parameters, weight_files
    from training.ablation import shortened, spoilt_texts, text_quality
    from training.machine import machine_speed
    from training.plan import plan_stages, plan_table
    from training.run import check, first_model, prepare
    from ui.material import team_material

    material = team_material()
    mixtures = check(recipe, material, stage)
    texts = [text for rows in spoilt_texts(recipe, material, noise).values() for text in rows]
    clean, noised = (text_quality([getattr(t, arm) for t in texts]) for arm in ("clean", "noised"))
    for line in _quality_lines(clean, noised, noise):
        answer.line(line)
    changed = next((text.noised for text in texts if text.noised != text.clean), "")
    answer.line(f"── a noised text\n{changed[:_SHOWN_CHARS]}\n")
    model, tokenizer = first_model(recipe, answer.note)
    prepared = prepare(recipe, material, tokenizer, mixtures)
    if steps is not None:
        recipe = shortened(recipe, prepared, steps)
        prepared = prepare(recipe, material, tokenizer, mixtures)
    config = json.loads((model / "config.json").read_text("utf-8"))
    speed = machine_speed(model, recipe.adapter)
    weights = count_parameters(weight_files(model))
    plans = plan_stages(prepared, recipe, config, weights, speed.flops, bf16=speed.bf16)
    plans = plans[: recipe.n_stages(stage)]
    for line in plan_table(plans, speed.share):
        answer.line(line)
    document = {
        "trainings": 2 * seeds,
        "clean_text": clean.model_dump(),
        "noised_text": noised.model_dump(),
        "stages": [asdict(one) for one in plans],
    }
    answer.end(document, f"that {2 * seeds} times: {seeds} seeds on clean and on noised text")


def report(found: Ablation) -> str:
    """Return an ablation as Markdown."""
    asked = ", ".join(f"{name} ({n})" for name, n in found.benchmarks.items())
    rows = [_seed_row(one) for one in found.seeds]
    rows.append(["together", "", "", _points(found.together), ""])
    head = ["seed", "clean, %", "noised, %", "noised - clean, points", "McNemar p"]
    lines = [
        f"# {found.recipe} on clean and on noised text",
        "",
        *_quality_lines(found.clean_text, found.noised_text, found.noise),
        f"Questions: {asked}; accuracy by likelihood, 95 % intervals (Wilson; paired bootstrap "
        "over questions, together over questions and seeds). Below zero noise did harm.",
        "",
        aligned_table(head, rows),
    ]
    if found.text_together is not None:
        rows = [_loss_row(one) for one in found.seeds]
        rows.append(["together", "", "", _nats(found.text_together)])
        lines += [
            f"Loss on {found.held_out_texts:,} clean texts that neither training read, nats per "
            "token; intervals as above. Above zero noise did harm.",
            "",
            aligned_table(["seed", "clean", "noised", "noised - clean"], rows),
        ]
    return "\n".join(lines)


def _quality_lines(clean: TextQuality, noised: TextQuality, noise: float) -> list[str]:
    return [
        f"| text of the cpt stage ({clean.n:,}) | quality | passes the gate of ingest |",
        "|---|---|---|",
        *(
            f"| {name} | {of.score:.3f} | {of.passing:.0%} |"
            for name, of in (("clean", clean), (f"noise {noise:g}", noised))
        ),
        "",
    ]


def _seed_row(one: SeedResult) -> list[str]:
    cells = [str(one.seed)]
    cells += [
        f"{100 * a.accuracy:.1f} ({100 * a.low:.1f} to {100 * a.high:.1f})"
        for a in (one.clean, one.noised)
    ]
    return [*cells, _points(one.difference), f"{one.p_value:.2g}"]


def _loss_row(one: SeedResult) -> list[str]:
    assert one.text_difference is not None, "held out for all seeds, or for none"
    losses = [f"{arm.text_loss:.3f}" for arm in (one.clean, one.noised)]
    return [str(one.seed), *losses, _nats(one.text_difference)]


def _points(of: Difference) -> str:
    return f"{100 * of.gain:+.1f} ({100 * of.low:+.1f} to {100 * of.high:+.1f})"


def _nats(of: Difference) -> str:
    return f"{of.gain:+.3f} ({of.low:+.3f} to {of.high:+.3f})"
