"""`orbweave design CONCEPT`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orbweave.records import DOMAINS, SCALES, Brief, Design, clean_concept
from ui.commands import options
from ui.commands.choice import one_of

if TYPE_CHECKING:
    from agents.embedding import Embed
    from ui.answer import Answer
    from ui.design import Order

__all__ = ["design"]

PARENT = Path("designs")
"""Where designs go without --out."""


def design(
    concept: Annotated[
        str, typer.Argument(metavar="CONCEPT", help="What to design, in words.", show_default=False)
    ],
    images: options.Images = 2,
    rounds: Annotated[
        int,
        typer.Option(min=1, max=10, help="Prompt versions at most; the critic may stop earlier."),
    ] = 1,
    seed: options.Seed = 0,
    out: options.Out = None,
    scale: Annotated[str, typer.Option(help=f"One of {', '.join(SCALES)}.")] = SCALES[0],
    domains: Annotated[
        str,
        typer.Option(
            help=f"Experts to ask, with commas between: {', '.join(DOMAINS)} "
            "[default: chosen by retrieval].",
            show_default=False,
        ),
    ] = "",
    structure: options.StructureSource = "auto",
    strength: options.Strength = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    size: options.Size = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Language model of every speaker: a catalogue name, a folder or org/name "
            "[default: each role's own].",
            show_default=False,
        ),
    ] = None,
    image_model: options.ImageModel = "loom",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Let a team of experts talk about a concept, draw what they find, keep it in a folder.

    Example: orbweave design "a filter membrane that combines spider silk and leaf veins"
    """
    from agents.embedding import MiniLM
    from orbweave.models import ModelRef
    from ui.answer import Answer
    from ui.design import Order
    from ui.rendering import RenderSettings, chooser_for, parse_size
    from ui.target import default_folder

    brief = Brief(
        concept=clean_concept(concept),
        scale=one_of("--scale", scale, SCALES),
        domains=tuple(
            one_of("--domains", d.strip(), DOMAINS) for d in domains.split(",") if d.strip()
        ),
        seed=seed,
    )
    settings = RenderSettings(image_model, strength, scheduler, steps, guidance, parse_size(size))
    settings.request("checked before the long part", "", None, (seed,))
    if model is not None:
        ModelRef.parse(model)
    embed = MiniLM()
    order = Order(brief, rounds, images, settings, model, chooser_for(structure, embed))
    target = out or default_folder(PARENT, brief.concept, seed)
    answer = Answer(as_json=as_json, quiet=quiet)
    if dry_run:
        _plan(order, target, structure, answer)
    else:
        _run(order, target, embed, answer, force=force)


def _plan(order: Order, target: Path, structure: str, answer: Answer) -> None:
    """Say what a run would do, after all checks that need no model."""
    plan: dict[str, Any] = {
        "brief": order.brief.model_dump(mode="json"),
        "rounds": order.rounds,
        "images": order.n_images,
        "model": order.model,
        "image_model": order.settings.model,
        "structure": structure,
        "out": str(target),
    }
    for name, value in plan.items():
        answer.line(f"{name}: {value}")
    answer.end(plan, f"dry run: would write {target}")


def _run(order: Order, target: Path, embed: Embed, answer: Answer, *, force: bool) -> None:
    from ui.design import design as make
    from ui.design import workshop

    if answer.is_terse:
        note = answer.note if answer.as_json else (lambda text: None)
        record = make(
            order, target, workshop(note, embed), on_event=lambda event: None, force=force
        )
    else:
        from ui.terminal import TerminalView

        with TerminalView() as view:
            view.begin(order.brief)
            record = make(
                order, target, workshop(view.note, embed), on_event=view.on_event, force=force
            )
    for picture in record.pictures:
        answer.line(str(target / picture.path))
    answer.line(f"report: {target / 'report.html'}")
    answer.end(_document(record, target), f"design written to {target}")


def _document(record: Design, target: Path) -> dict[str, Any]:
    return {"written": str(target), "design": record.model_dump(mode="json")}
