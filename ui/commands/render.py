"""`orbweave render PROMPT`: pictures of a prompt a person wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from orbweave.errors import OrbweaveError
from orbweave.records import Measurement, Picture, RenderRequest, clean_concept
from ui.commands import options
from ui.commands.choice import one_of

if TYPE_CHECKING:
    from imagegen.device import Dtype
    from imagegen.follow import Follow

__all__ = ["render"]

PARENT = Path("renders")
"""Where pictures go without --out."""
DTYPES: tuple[Dtype, ...] = ("auto", "bfloat16", "float16", "float32")


def render(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="What the picture shows.", show_default=False)
    ],
    images: options.Images = 1,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=64,
            help="Render so many pictures instead, and order them by how well they follow the "
            "prompt; all are kept.",
            show_default=False,
        ),
    ] = None,
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
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF[:WEIGHT]",
            help="Lay a LoRA adapter over the model: a .safetensors file, a folder or org/name; "
            "may be given several times.",
            show_default=False,
        ),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            metavar="REF",
            help="Hold the picture to its geometry by this ControlNet: a folder or org/name.",
            show_default=False,
        ),
    ] = None,
    control_scale: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=2.0, help="How strongly the ControlNet holds.", show_default=False
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Start from this picture instead of a structure.", show_default=False),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Redraw the start only where this picture is white.", show_default=False),
    ] = None,
    tile: Annotated[
        bool, typer.Option("--tile", help="Make pictures that continue across their edges.")
    ] = False,
    sidecar: Annotated[
        bool, typer.Option("--sidecar", help="Write each picture's record beside it as .json too.")
    ] = False,
    dtype: Annotated[
        str, typer.Option(help="Number type: auto, bfloat16, float16 or float32.")
    ] = "auto",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Render a prompt into a folder of PNG pictures that carry their settings.

    Words can be weighed as in A1111: (web:1.3) counts more, [web] less; a backslash keeps a
    bracket.

    Example: orbweave render "golden orb web on black" --images 4 --seed 7
    """
    from imagegen.precheck import check_request
    from ui.answer import Answer
    from ui.rendering import RenderSettings, chooser_for, consecutive, parse_size
    from ui.target import check_target, default_folder

    words = clean_concept(prompt)
    settings = RenderSettings(
        model, strength, scheduler, steps, guidance, parse_size(size),
        adapters=tuple(map(_adapter, adapter or ())), control=control,
        control_scale=control_scale, tile=tile,
    )  # fmt: skip
    number_type: Dtype = one_of("--dtype", dtype, DTYPES)
    seeds = consecutive(seed, candidates or images)
    planned = settings.request(words, negative, None, seeds)
    # A picture to start from takes the place of a structure that was not asked for by file; and
    # a drawing has edges that do not meet.
    source = "none" if (image is not None or tile) and structure == "auto" else structure
    choose = chooser_for(source)
    target = out or default_folder(PARENT, words, seed)
    check_target(target, force=force, is_ours=_is_render)
    answer = Answer(as_json=as_json, quiet=quiet)
    if source not in {"auto", "none"}:
        planned = planned.model_copy(update={"structure": choose(words, seed)})
    check_request(planned, image, mask, is_seeded=source != "none")
    if dry_run:
        answer.end(
            {"prompt": words, "seeds": seeds, "out": str(target)}, f"dry run: would write {target}"
        )
        return
    request = settings.request(words, negative, choose(words, seed), seeds)
    judge = None if candidates is None else _judge_for(request)
    order = _Order(request, number_type, image, mask, sidecar, judge)
    pictures, measurements, follows = _draw(order, target, answer.note, force=force)
    for picture, measurement in zip(pictures, measurements, strict=True):
        answer.line(f"{picture.path}  solid {measurement.solid_fraction:.2f}")
    for place, each in enumerate(follows, 1):
        answer.line(f"{place}. {each.score:.2f}  {each.picture}  {each.explanation}")
    if pictures[0].lost_words:
        lost = " ".join(pictures[0].lost_words)
        answer.note(f"beyond the text window, not drawn: {lost}")
    answer.line(_geometry(request, image))
    best = f"; the best is {Path(follows[0].picture).name}" if follows else ""
    document = _document(target, pictures, measurements)
    if follows:
        document["candidates"] = [each.model_dump(mode="json") for each in follows]
    answer.end(document, f"pictures written to {target}{best}")


_Judge = Callable[[list[Path], Path], "list[Follow]"]
"""From the files and the folder they will be in to their judgements, the best first."""


class _Order(NamedTuple):
    """What to draw and how, for one call of the renderer."""

    request: RenderRequest
    dtype: Dtype
    image: Path | None
    mask: Path | None
    sidecar: bool
    judge: _Judge | None
    """Orders the pictures; None leaves them as they are."""


def _draw(
    order: _Order, target: Path, note: Callable[[str], None], *, force: bool
) -> tuple[list[Picture], list[Measurement], list[Follow]]:
    """Render into `target`, which appears whole or not at all."""
    from imagegen.measure import measure
    from imagegen.pipeline import Renderer
    from orbweave.files import build_folder
    from orbweave.logbook import logged
    from ui.bar import bar
    from ui.progress import both

    pictures, measurements = [], []
    building = build_folder(target, force=force)
    with logged("render", order.request.prompt, target) as entry, building as folder:
        note(f"loading the image model {order.request.model}")
        with bar("rendering", "step") as on_step:
            told = both(on_step, entry.report)
            drawn = Renderer(dtype=order.dtype).render(
                order.request,
                folder,
                on_step=told,
                init_image=order.image,
                mask=order.mask,
                sidecar=order.sidecar,
            )
        for picture in drawn:
            path = str(target / Path(picture.path).name)
            pictures.append(picture.model_copy(update={"path": path}))
            measurements.append(measure(Path(picture.path), picture=path))
        files = [Path(picture.path) for picture in drawn]
        follows = order.judge(files, target) if order.judge is not None else []
    return pictures, measurements, follows


def _judge_for(request: RenderRequest) -> _Judge:
    """Return what judges the pictures of a request; the classifier is loaded here, early."""
    from imagegen.classifier import load_classifier
    from ui.candidates import asked_of_request, judge_candidates

    asked, classifier = asked_of_request(request), load_classifier()
    return lambda files, target: judge_candidates(files, asked, classifier, target)


def _is_render(folder: Path) -> bool:
    """Whether every file is a picture of ours, so that replacing the folder loses no other."""
    from imagegen.png import read_note
    from ui.candidates import CANDIDATES

    try:
        for file in folder.iterdir():
            if file.name == CANDIDATES:
                continue
            read_note(file.with_suffix(".png") if file.suffix == ".json" else file)
    except OrbweaveError:
        return False
    return True


def _adapter(text: str) -> tuple[str, float]:
    """Return reference and weight of `REF` or `REF:WEIGHT`."""
    from orbweave.errors import UsageError, shown

    ref, colon, weight = text.rpartition(":")
    try:
        return (ref, float(weight)) if colon else (text, 1.0)
    except ValueError as err:
        raise UsageError(f"wanted --adapter as REF or REF:WEIGHT, got {shown(text)}") from err


def _geometry(request: RenderRequest, image: Path | None) -> str:
    if image is not None:
        return f"geometry: taken from {image}"
    if request.structure is None:
        return "geometry: from the words alone"
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
