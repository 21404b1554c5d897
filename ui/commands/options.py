"""Options that several commands share, each spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbweave.records import RenderRequest

__all__ = [
    "Batch",
    "Benchmarks",
    "Debug",
    "Direction",
    "DryRun",
    "Force",
    "Guidance",
    "Images",
    "ImageModel",
    "Json",
    "Negative",
    "Out",
    "Quiet",
    "Scheduler",
    "Seed",
    "Size",
    "SolidFraction",
    "Spacing",
    "Stage",
    "Steps",
    "Strength",
    "StructureSource",
    "default",
]


def default(field: str) -> str:
    """Return the default of a `RenderRequest` field, for a help text."""
    return str(RenderRequest.model_fields[field].default)


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, only that.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the last line only.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder to write, made anew.", show_default=False)
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Same seed, same text and pictures.")
]
Images = Annotated[
    int, typer.Option("--images", "-n", min=1, max=64, help="Pictures, seeds counted upwards.")
]
StructureSource = Annotated[
    str,
    typer.Option(
        "--structure",
        metavar="auto|none|FILE",
        help="Geometry the pictures start from: chosen for the prompt, none, or a JSON or "
        "YAML file with a structure.",
    ),
]
SolidFraction = Annotated[
    float | None,
    typer.Option(
        "--solid-fraction",
        min=0.0,
        max=1.0,
        help="Share of the picture that should be material.",
        show_default=False,
    ),
]
Direction = Annotated[
    float | None,
    typer.Option(
        "--direction",
        min=0.0,
        max=180.0,
        help="Direction in degrees that its lines should have, 0 horizontal, anticlockwise.",
        show_default=False,
    ),
]
Spacing = Annotated[
    float | None,
    typer.Option(
        "--spacing",
        min=2.5,
        max=4096.0,
        help="Distance in pixels at which its elements should repeat.",
        show_default=False,
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        min=0.01,
        max=1.0,
        help="Share of the denoising done on the drawing; near 0 copies it, 1 makes every pixel "
        "anew, held to it by the model's ControlNet if there is one "
        f"[default: {default('strength')}].",
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help=f"Sampler by its A1111 name [default: {default('scheduler')}].",
        show_default=False,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        max=500,
        help=f"Denoising steps; time grows with them [default: {default('steps')}].",
        show_default=False,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        min=0.0,
        max=50.0,
        help=f"How strongly the words pull [default: {default('guidance')}].",
        show_default=False,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="N|WxH",
        help=f"Pixels, divisible by 8 [default: {default('width')}x{default('height')}].",
        show_default=False,
    ),
]
Negative = Annotated[str, typer.Option("--negative", help="What the picture should not show.")]
ImageModel = Annotated[
    str,
    typer.Option(help="Image model: a catalogue name, a diffusers folder or org/name."),
]
Benchmarks = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        "-b",
        metavar="NAME|FILE",
        help="A shipped set or a JSONL file of questions; may be repeated "
        "[default: the shipped domain sets].",
        show_default=False,
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=1024, help="Questions at a time.")]
Stage = Annotated[
    str | None,
    typer.Option(
        "--stage",
        help="Stop after this stage: cpt, sft, dpo or orpo, or a checkpoint's name.",
        show_default=False,
    ),
]
