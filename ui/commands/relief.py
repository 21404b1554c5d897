"""`orbweave relief IMAGE`: a picture as a body to print or mill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ui.commands import options
from ui.commands.measure import Solid

__all__ = ["relief"]

KINDS: tuple[Literal["height", "cut"], ...] = ("height", "cut")
SEAMS: tuple[Literal["auto", "yes", "no"], ...] = ("auto", "yes", "no")


def relief(
    image: Annotated[Path, typer.Argument(help="Picture file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="STL file to write [default: IMAGE's name].", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="height|cut",
            help="height: the brighter the higher; cut: the solid phase upright.",
        ),
    ] = "height",
    width: Annotated[
        float, typer.Option("--width", metavar="MM", help="Width of the tile, left to right.")
    ] = 50.0,
    depth: Annotated[
        float, typer.Option("--depth", metavar="MM", help="Height of the relief above the plate.")
    ] = 2.0,
    plate: Annotated[
        float,
        typer.Option(
            "--plate", metavar="MM", help="Thickness of the plate; 0, with cut, for none."
        ),
    ] = 1.0,
    resolution: Annotated[
        int,
        typer.Option(min=8, max=1024, help="Pixels along the longer side; finer is made coarser."),
    ] = 256,
    seamless: Annotated[
        str,
        typer.Option(
            "--seamless",
            metavar="auto|yes|no",
            help="Whether the tile fits its own copies; auto looks at the picture's edges.",
        ),
    ] = "auto",
    solid: Solid = "auto",
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a picture as a watertight STL body, in millimetres.

    Example: orbweave relief web.png --kind cut --width 80 --depth 3 --out web.stl
    """
    from imagegen.coarsening import coarser, coarser_phase
    from imagegen.luma import read_luma
    from imagegen.measure import SIDES, recorded_side
    from imagegen.phases import phases_of
    from imagegen.relief import cut_out, height_map, is_seamless, stl_bytes, without_corners
    from orbweave.files import check_output, write_bytes
    from ui.answer import Answer
    from ui.commands.choice import one_of

    wanted, seam = one_of("--kind", kind, KINDS), one_of("--seamless", seamless, SEAMS)
    side = one_of("--solid", solid, SIDES)
    target = out or Path(f"{image.stem}.stl")
    check_output(target, force=force)
    luma, notes = read_luma(image)
    recorded = recorded_side(image, side)
    if wanted == "cut":
        notes += recorded.notes
    tiled = is_seamless(luma) if seam == "auto" else seam == "yes"
    answer = Answer(as_json=as_json, quiet=quiet)
    for note in notes:
        answer.note(f"note: {note}")
    added = 0.0
    if wanted == "height":
        grey = coarser(luma, resolution)
        body = height_map(grey, width_mm=width, depth_mm=depth, plate_mm=plate, seamless=tiled)
    else:
        phases = phases_of(luma, recorded.side)
        phase = coarser_phase(phases.solid, resolution)
        closed = without_corners(phase, seamless=tiled)
        added = float((closed & ~phase).mean())
        body = cut_out(closed, width_mm=width, depth_mm=depth, plate_mm=plate)
    x, y, z = (float(v) for v in body.vertices.max(0))
    document = {
        "picture": str(image),
        "kind": wanted,
        "size_mm": [x, y, z],
        "volume_mm3": body.volume_mm3,
        "triangles": len(body.faces),
        "seamless": tiled,
        "pixels_added_at_corners": added,
        "notes": list(notes),
        "written": None if dry_run else str(target),
    }
    told = f"{x:g} x {y:g} x {z:g} mm, {len(body.faces):,} triangles"
    if dry_run:
        answer.end(document, f"dry run: would write {target}, {told}")
        return
    write_bytes(target, stl_bytes(body), force=force)
    answer.line(f"{told}, {body.volume_mm3:,.0f} mm³, {'seamless' if tiled else 'not seamless'}")
    if added:
        answer.line(f"{added:.2%} of the pixels made solid where parts touched at a corner only")
    answer.end(document, f"relief written to {target}")
