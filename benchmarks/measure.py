"""How right the measurement is: against patterns of known truth, and against the generator.

    python benchmarks/measure.py --out measure.json

Two parts. *Patterns* are stripes, dots and discs whose solid fraction, spacing and direction
follow from their construction. *Families* are the bare drawings of every motif, whose truth
is the drawing itself and what `imagegen.motifs.Seen` says of it. Nothing is left out: a
period that was not found counts as not found. The JSON holds every single error; a table of
the families goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.expectation import Expected, angle_between, expected
from imagegen.luma import REC_709
from imagegen.measure import measure_pixels, solid_side_of
from imagegen.motifs import FAMILIES, random_motif
from imagegen.scene import seed_picture
from imagegen.spacings import rays_of, repeat_of
from orbweave.records import Measurement, Structure

SIZES = (128, 256, 512)
FINE = 4
"""Patterns are drawn this much finer and averaged, so that their edges are anti-aliased."""


class Case(NamedTuple):
    """One pattern and its truth."""

    name: str
    luma: NDArray[np.float64]
    truth: Expected


def patterns(n: int) -> Iterator[Case]:
    """Yield stripes, hexagonal and square dots, and scattered discs of n x n pixels."""
    axis = (np.arange(n * FINE) + 0.5) / FINE
    x, y = np.meshgrid(axis, -axis)
    rng = np.random.default_rng(0)
    for period in (8.0, 13.0, 29.0):
        for deg in (0.0, 17.0, 45.0, 90.0, 121.0):
            for duty in (0.2, 0.5, 0.7):
                a = np.deg2rad(deg)
                phase = ((y * np.cos(a) - x * np.sin(a)) / period) % 1
                truth = Expected(duty, period, period, deg, ())
                yield Case("stripes", _averaged(phase < duty), truth)
    for spacing in (14.0, 21.0, 31.0):
        for deg in (0.0, 11.0, 40.0):
            for share in (0.15, 0.5):
                for name, rows in (("hexagonal dots", 3**0.5 / 2), ("square dots", 1.0)):
                    solid = _dots(x, y, spacing, deg, share, rows)
                    truth = Expected(share, spacing * rows, spacing, None, ())
                    yield Case(name, _averaged(solid), truth)
    for radius in (6.0, 11.0, 19.0):
        for _ in range(4):
            solid = np.zeros(x.shape, bool)
            for cx, cy in rng.uniform(0, n, (40, 2)):
                solid |= np.hypot(x - cx, y + cy) < radius
            truth = Expected(float(solid.mean()), None, None, None, ())
            yield Case("discs", _averaged(solid), truth)


def _dots(x: Any, y: Any, spacing: float, deg: float, share: float, rows: float) -> Any:
    a = np.deg2rad(deg)
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    radius = spacing * np.sqrt(share * rows / np.pi)
    nearest = np.full(x.shape, np.inf)
    row0 = np.floor(v / (rows * spacing))
    for step in (0, 1):
        row = row0 + step
        shift = (row % 2) * 0.5 * spacing if rows < 1 else 0.0
        du = (u - shift) - np.round((u - shift) / spacing) * spacing
        nearest = np.minimum(nearest, np.hypot(du, v - row * rows * spacing))
    return nearest < radius


def _averaged(solid: Any) -> NDArray[np.float64]:
    n = len(solid) // FINE
    means: NDArray[np.float64] = solid.reshape(n, FINE, n, FINE).mean((1, 3))
    return means


def families(size_px: int, per_family: int) -> Iterator[Case]:
    """Yield random bare drawings of each family in its usual looks."""
    for name, family in FAMILIES.items():
        for seed in range(per_family):
            motif = random_motif(name, np.random.default_rng([seed, size_px]))
            look = family.looks[seed % len(family.looks)]
            structure = Structure(motifs=(motif,), look=look, seed=seed)
            luma = seed_picture(structure, size_px) / 255 @ REC_709
            if solid_side_of(look) == "dark":
                luma = 1 - luma  # so that solid is bright in all, as in the patterns
            yield Case(name, luma, expected(structure, size_px))


def errors(case: Case, m: Measurement, repeat_px: float | None) -> dict[str, float | None]:
    """Return the error of each quantity that the case promises; None: not found.

    Solid fraction absolute and relative, spacings relative, directions in degrees. Of several
    lines the mean distance of the promised from the nearest found.
    """
    truth = case.truth
    found: dict[str, float | None] = {
        "solid_fraction": m.solid_fraction - truth.solid_fraction,
        "solid_relative": m.solid_fraction / truth.solid_fraction - 1,
    }
    if truth.spacing_px is not None:
        found["spacing"] = m.spacing_px and m.spacing_px / truth.spacing_px - 1
    if truth.repeat_px is not None:
        found["repeat"] = repeat_px and repeat_px / truth.repeat_px - 1
    if truth.direction_deg is not None:
        deg = m.direction_deg
        found["direction"] = None if deg is None else angle_between(deg, truth.direction_deg)
    if truth.directions_deg:
        lines = m.directions_deg
        gaps = [min(angle_between(a, b) for b in lines) for a in truth.directions_deg if lines]
        found["lines"] = float(np.mean(gaps)) if gaps else None
    return found


LIMITS = {
    "solid_fraction": 0.05,
    "solid_relative": 0.05,
    "spacing": 0.05,
    "repeat": 0.05,
    "direction": 3.0,
    "lines": 3.0,
}


def summary(rows: list[dict[str, float | None]]) -> dict[str, dict[str, float]]:
    """Return for each quantity: cases, share found, median and worst size of error, share good."""
    told = {}
    for quantity, limit in LIMITS.items():
        all_ = [row[quantity] for row in rows if quantity in row]
        if not all_:
            continue
        sizes = (
            np.abs([e for e in all_ if e is not None])
            if any(e is not None for e in all_)
            else np.array([np.inf])
        )
        told[quantity] = {
            "cases": len(all_),
            "found": sum(e is not None for e in all_) / len(all_),
            "median": round(float(np.median(sizes)), 4),
            "worst": round(float(sizes.max()), 4),
            "within_limit": round(float((sizes <= limit).sum()) / len(all_), 4),
        }
    return told


def run(cases: Iterator[Case]) -> tuple[dict[str, list[dict[str, float | None]]], float]:
    """Measure all cases; errors by the name of the case, and mean seconds each."""
    rows: dict[str, list[dict[str, float | None]]] = {}
    spent, n = 0.0, 0
    for case in cases:
        start = time.perf_counter()
        measured = measure_pixels(case.luma, picture=case.name, solid="bright")
        spent, n = spent + time.perf_counter() - start, n + 1
        # Of the full measurement only what is compared; the rest is slow.
        rays = rays_of(case.luma)
        repeat = repeat_of(rays).px if rays else None
        rows.setdefault(case.name, []).append(errors(case, measured, repeat))
    return rows, spent / n


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--per-family", type=int, default=4, help="drawings at each size")
    args = parser.parse_args()
    document: dict[str, Any] = {"limits": LIMITS, "patterns": {}, "families": {}, "seconds": {}}
    rows, seconds = run(patterns(256))
    document["patterns"] = {name: summary(found) for name, found in rows.items()}
    document["seconds"]["patterns 256"] = round(seconds, 3)
    print("\n".join(_table("pattern", document["patterns"])), "\n", flush=True)
    by_family: dict[str, list[dict[str, float | None]]] = {}
    for size in args.sizes:
        rows, seconds = run(families(size, args.per_family))
        document["seconds"][f"families {size}"] = round(seconds, 3)
        together = [row for found in rows.values() for row in found]
        document[f"all families at {size}"] = summary(together)
        for name, found in rows.items():
            by_family.setdefault(name, []).extend(found)
    document["families"] = {name: summary(found) for name, found in by_family.items()}
    print("\n".join(_table("family", document["families"])), "\n")
    for size in args.sizes:
        print(size, json.dumps(document[f"all families at {size}"]))
    print("seconds for a light measurement:", document["seconds"])
    args.out.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _table(title: str, part: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Median error / worst error / share found and within the limit, in Markdown."""
    columns = ("solid_fraction", "spacing", "repeat", "direction", "lines")
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, told in part.items():
        cells = [_cell(told.get(column), column) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(told: dict[str, float] | None, quantity: str) -> str:
    if told is None:
        return "-"
    if not told["found"]:
        return "not found"
    if quantity in ("spacing", "repeat"):
        shown = f"{told['median']:.1%} / {told['worst']:.0%}"
    elif quantity == "solid_fraction":
        shown = f"{told['median']:.3f} / {told['worst']:.2f}"
    else:
        shown = f"{told['median']:.1f}° / {told['worst']:.0f}°"
    return f"{shown} / {told['within_limit']:.0%}"


if __name__ == "__main__":
    main()
