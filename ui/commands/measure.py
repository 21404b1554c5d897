"""`orbweave measure IMAGE...`: image statistics of any picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbweave.records import Anatomy, Connectivity, Measurement, Sizes
from ui.commands import options

__all__ = ["Solid", "measure"]

Solid = Annotated[
    str,
    typer.Option(
        "--solid",
        metavar="auto|bright|dark",
        help="Which side of the threshold is material; auto asks the picture's record, else "
        "its pixels.",
    ),
]


def measure(
    images: Annotated[list[Path], typer.Argument(help="Picture files.", show_default=False)],
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also pores, struts, connections, skeleton, lattice and symmetry."
        ),
    ] = False,
    solid: Solid = "auto",
    overlay: Annotated[
        Path | None,
        typer.Option(
            "--overlay",
            metavar="FOLDER",
            help="Draw directions, pores and skeleton over each picture, in a folder made anew.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure pictures: solid fraction, direction, spacing. Not material properties.

    Example: orbweave measure scan.png designs/*/images/*.png --full --overlay seen
    """
    from imagegen.measure import SIDES, measure_all
    from imagegen.measure import measure as measured
    from ui.answer import Answer
    from ui.commands.choice import one_of
    from ui.target import check_target

    side = one_of("--solid", solid, SIDES)
    if overlay is not None:
        check_target(overlay, force=force, is_ours=_is_overlays)
    answer = Answer(as_json=as_json, quiet=quiet)
    found = []
    for path in images:
        measurement = measure_all(path, solid=side) if full else measured(path, solid=side)
        found.append(measurement)
        for line in _lines(measurement):
            answer.line(line)
    if overlay is not None:
        _draw(images, found, overlay, force=force)
    noun = "picture" if len(found) == 1 else "pictures"
    drawn = "" if overlay is None else f"; overlays written to {overlay}"
    answer.end(
        [measurement.model_dump(mode="json") for measurement in found],
        f"measured {len(found)} {noun}: image statistics, not material properties{drawn}",
    )


def _draw(images: list[Path], found: list[Measurement], overlay: Path, *, force: bool) -> None:
    """Write the overlays of all pictures; of two with one name the second gets a number."""
    from imagegen.overlay import overlay_files
    from orbweave.files import build_folder

    with build_folder(overlay, force=force) as folder:
        for path, measurement in zip(images, found, strict=True):
            for name, content in overlay_files(path, measurement.solid_side or "auto").items():
                target, count = folder / name, 1
                while target.exists():
                    count += 1
                    target = folder / f"{Path(name).stem}-{count}.png"
                target.write_bytes(content)


def _is_overlays(folder: Path) -> bool:
    """Whether a folder holds overlays only, so that replacing it loses nothing else."""
    import re

    from imagegen.overlay import OVERLAYS

    ours = re.compile(rf".+-({'|'.join(OVERLAYS)})(-\d+)?\.png")
    return all(ours.fullmatch(file.name) for file in folder.iterdir())


def _lines(m: Measurement) -> list[str]:
    lines = [_line(m), *(f"  note: {note}" for note in m.notes)]
    return lines + _anatomy(m.anatomy) if m.anatomy else lines


def _line(m: Measurement) -> str:
    direction = (
        "no main direction" if m.direction_deg is None else f"direction {m.direction_deg:.0f}°"
    )
    spacing = "no period" if m.spacing_px is None else f"spacing {m.spacing_px:.1f} px"
    band = ""
    if m.solid_fraction_band is not None:
        low, high = m.solid_fraction_band
        band = f" ({low:.3f} to {high:.3f}, {m.solid_side} side of {m.threshold:.2f})"
    return (
        f"{m.picture}: solid {m.solid_fraction:.3f}{band}, {direction}, anisotropy "
        f"{m.anisotropy:.2f}, {spacing}, contrast {m.contrast:.3f}"
    )


def _anatomy(a: Anatomy) -> list[str]:
    repeat = "none"
    if a.repeat_px is not None:
        repeat = f"{a.repeat_px:.1f} px at {a.repeat_deg:.0f}°, strength {a.periodicity:.2f}"
    across, along = (
        "none" if px is None else f"{px:.1f} px" for px in (a.spacing_across_px, a.spacing_along_px)
    )
    s, o, y = a.skeleton, a.order, a.symmetry
    length = "" if s.median_segment_px is None else f" of {s.median_segment_px:.1f} px (median)"
    return [
        f"  pores: {_sizes(a.pores)}; struts: {_sizes(a.struts)}",
        f"  solid: {_connected(a.solid)}; void: {_connected(a.void)}; "
        f"Euler number {a.euler_number}",
        f"  skeleton: {s.branch_points} branch points, {s.end_points} ends, {s.segments} "
        f"segments{length}",
        f"  repeat: {repeat}; period across {across}, along {along}",
        f"  order: parallel {o.parallel:.2f}, radial {o.radial:.2f}, polar {o.polar:.2f}",
        f"  symmetry: mirror {y.mirror_left_right:.2f} left-right, {y.mirror_up_down:.2f} up-down; "
        f"half turn {y.half_turn:.2f}; lattice quarter turn {y.lattice_quarter_turn:.2f}, "
        f"sixth {y.lattice_sixth_turn:.2f}",
    ]


def _sizes(sizes: Sizes | None) -> str:
    if sizes is None:
        return "none"
    return f"{sizes.median_px:.1f} px wide ({sizes.p10_px:.1f} to {sizes.p90_px:.1f})"


def _connected(c: Connectivity) -> str:
    ways = [
        way for way, does in (("across", c.percolates_across), ("down", c.percolates_down)) if does
    ]
    noun = "part" if c.n_parts == 1 else "parts"
    return f"{c.n_parts} {noun}, {'percolates ' + ' and '.join(ways) if ways else 'no percolation'}"
