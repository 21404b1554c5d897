"""`orbweave render PROMPT`: pictures of a prompt a person wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from orbweave.errors import OrbweaveError
from orbweave.records import Measurement, Picture, RenderRequest, clean_concept
from ui.commands import options

__all__ = ["render"]

PARENT = Path("renders")
"""Where pictures go without --out."""


def render(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="What the picture shows.", show_default=False)
    ],
    images: options.Images = 1,
    seed: options.Seed = 0,
    out: options.Out = None,
    structure: options.StructureSource = "auto",
    strength: options.Strength = None,
    scheduler: options.Scheduler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    size: options.Size = None,
    negative: options.Negative = "",
    model: options.ImageModel = "loom",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render a prompt into a folder of PNG pictures that carry their settings.

    Example: orbweave render "golden orb web on black" --images 4 --seed 7
    """
    from agents.embedding import MiniLM
    from ui.answer import Answer
    from ui.rendering import RenderSettings, chooser_for, consecutive, parse_size
    from ui.target import check_target, default_folder

    words = clean_concept(prompt)
    settings = RenderSettings(model, strength, scheduler, steps, guidance, parse_size(size))
    seeds = consecutive(seed, images)
    settings.request(words, negative, None, seeds)
    choose = chooser_for(structure, MiniLM())
    target = out or default_folder(PARENT, words, seed)
    check_target(target, force=force, is_ours=_is_render)
    answer = Answer(as_json=as_json, quiet=quiet)
    if dry_run:
        answer.end(
            {"prompt": words, "seeds": seeds, "out": str(target)}, f"dry run: would write {target}"
        )
        return
    request = settings.request(words, negative, choose(words, seed), seeds)
    pictures, measurements = _draw(request, target, answer.note, force=force)
    for picture, measurement in zip(pictures, measurements, strict=True):
        answer.line(f"{picture.path}  solid {measurement.solid_fraction:.2f}")
    if pictures[0].lost_words:
        lost = " ".join(pictures[0].lost_words)
        answer.note(f"beyond the text window, not drawn: {lost}")
    answer.line(_geometry(request))
    answer.end(_document(target, pictures, measurements), f"pictures written to {target}")


def _draw(
    request: RenderRequest, target: Path, note: Callable[[str], None], *, force: bool
) -> tuple[list[Picture], list[Measurement]]:
    """Render into `target`, which appears whole or not at all."""
    from imagegen.measure import measure
    from imagegen.pipeline import Renderer
    from orbweave.files import build_folder
    from ui.bar import bar

    pictures, measurements = [], []
    with build_folder(target, force=force) as folder:
        note(f"loading the image model {request.model}")
        with bar("rendering", "step") as on_step:
            drawn = Renderer().render(request, folder, on_step=on_step)
        for picture in drawn:
            path = str(target / Path(picture.path).name)
            pictures.append(picture.model_copy(update={"path": path}))
            measurements.append(measure(Path(picture.path), picture=path))
    return pictures, measurements


def _is_render(folder: Path) -> bool:
    """Whether every file is a picture of ours, so that replacing the folder loses no other."""
    from imagegen.png import read_note

    try:
        for file in folder.iterdir():
            read_note(file)
    except OrbweaveError:
        return False
    return True


def _geometry(request: RenderRequest) -> str:
    if request.structure is None:
        return "geometry: none, drawn from the words alone"
    from ui.report import structure_in_words

    return f"geometry seeded: {structure_in_words(request.structure)}"


def _document(
    target: Path, pictures: list[Picture], measurements: list[Measurement]
) -> dict[str, Any]:
    return {
        "written": str(target),
        "pictures": [picture.model_dump(mode="json") for picture in pictures],
        "measurements": [measurement.model_dump(mode="json") for measurement in measurements],
    }
