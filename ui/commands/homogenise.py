"""`orbweave homogenise IMAGE...`: stiffness and permeability of a sheet cut like a picture."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ui.commands import options
from ui.commands.measure import Solid

if TYPE_CHECKING:
    from imagegen.homogenise import Homogenised

__all__ = ["homogenise"]

CONVERGED = 0.1
"""Change from half the resolution above which the numbers are no more than an order."""


def homogenise(
    images: Annotated[list[Path], typer.Argument(help="Picture files.", show_default=False)],
    young: Annotated[
        float, typer.Option("--young", help="Young's modulus of the solid, any unit.")
    ] = 1.0,
    poisson: Annotated[
        float, typer.Option("--poisson", help="Poisson's ratio of the solid.")
    ] = 0.3,
    resolution: Annotated[
        int,
        typer.Option(min=16, max=512, help="Elements along the longer side; time grows steeply."),
    ] = 128,
    solid: Solid = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compute how stiff and permeable a periodic sheet cut like the picture would be.

    A model of the picture, with the assumptions it names; not a property of a material.
    Example: orbweave homogenise web.png --young 10 --poisson 0.4
    """
    from imagegen.coarsening import coarser_phase
    from imagegen.homogenise import ASSUMPTIONS
    from imagegen.homogenise import homogenise as computed
    from imagegen.luma import read_luma
    from imagegen.measure import SIDES, recorded_side
    from imagegen.phases import phases_of
    from ui.answer import Answer
    from ui.commands.choice import one_of

    side = one_of("--solid", solid, SIDES)
    answer = Answer(as_json=as_json, quiet=quiet)
    documents: list[dict[str, Any]] = []
    for path in images:
        luma, notes = read_luma(path)
        recorded = recorded_side(path, side)
        notes += recorded.notes
        phases = phases_of(luma, recorded.side)
        cell = coarser_phase(phases.solid, resolution)
        found = computed(cell, young=young, poisson=poisson)
        for line in [*_lines(path, found, young), *(f"  note: {note}" for note in notes)]:
            answer.line(line)
        own = {
            "moduli": found.moduli._asdict(),
            "change_from_half": None if isnan(found.change_from_half) else found.change_from_half,
            "notes": list(notes),
        }
        documents.append({"picture": str(path), **found._asdict(), **own})
    for assumption in ASSUMPTIONS:
        answer.line(f"assumed: {assumption}")
    noun = "picture" if len(images) == 1 else "pictures"
    answer.end(documents, f"homogenised {len(images)} {noun}: a model of the picture")


def _lines(path: Path, h: Homogenised, young: float) -> list[str]:
    m = h.moduli
    (sxx, _), (_, syy) = h.diffusivity_solid
    (vxx, _), (_, vyy) = h.diffusivity_void
    height, width = h.size_px
    change = f"{h.change_from_half:.0%} off at half the resolution"
    if isnan(h.change_from_half):
        change = "too small to compare with half the resolution"
    elif h.change_from_half > CONVERGED:
        change += "; raise --resolution"
    return [
        f"{path}: {width} x {height} elements, solid {h.solid_fraction:.3f}, {h.seconds:.1f} s",
        f"  Young's modulus {m.ex:.4g} across, {m.ey:.4g} down (solid {young:g}); shear "
        f"{m.gxy:.4g}; Poisson's ratio {m.nu_xy:.3f}, {m.nu_yx:.3f}",
        f"  diffusivity in the solid {sxx:.3f} across, {syy:.3f} down; in the void {vxx:.3f}, "
        f"{vyy:.3f} (free: 1)",
        f"  {change}; {h.seam:.0%} of the edge differs across the seam",
    ]
