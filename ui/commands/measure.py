"""`orbweave measure IMAGE...`: image statistics of any picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orbweave.records import Measurement
from ui.commands import options

__all__ = ["measure"]


def measure(
    images: Annotated[list[Path], typer.Argument(help="Picture files.", show_default=False)],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure pictures: solid fraction, direction, spacing. Not material properties.

    Example: orbweave measure scan.png designs/*/images/*.png
    """
    from imagegen.measure import measure as measured
    from ui.answer import Answer

    answer = Answer(as_json=as_json, quiet=quiet)
    found = []
    for path in images:
        measurement = measured(path)
        found.append(measurement)
        answer.line(_line(measurement))
    noun = "picture" if len(found) == 1 else "pictures"
    answer.end(
        [measurement.model_dump(mode="json") for measurement in found],
        f"measured {len(found)} {noun}: image statistics, not material properties",
    )


def _line(m: Measurement) -> str:
    direction = (
        "no main direction" if m.direction_deg is None else f"direction {m.direction_deg:.0f}°"
    )
    spacing = "no period" if m.spacing_px is None else f"spacing {m.spacing_px:.1f} px"
    return (
        f"{m.picture}: solid {m.solid_fraction:.3f}, {direction}, anisotropy {m.anisotropy:.2f}, "
        f"{spacing}, contrast {m.contrast:.3f}"
    )
