"""Do renderings measure what was asked of their structure seeds, at the default strength.

    python benchmarks/seeds.py --out runs/seeds --json

Sixty random requests: motifs, colours and light at random, and the numbers that another random
structure of these motifs measures. `imagegen.fit` finds a structure for the numbers, it is
rendered, and the picture is measured. Three comparisons tell where an error comes from:

    fitted    the drawing against what was asked: what the numbers of the motifs allow
    rendered  the picture against its drawing: what the model keeps
    kept      the picture against what was asked: the promise

A number is asked only where `lasting` says that a rendering measures it: no period of a picture
without one or with a faint one, no solid fraction of bundles whose light decides it. How often
that is, is told.
Thin are structures with parts below three pixels. Pictures that are there are kept, so a run that
was cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imagegen import Renderer
from imagegen.captions import describe
from imagegen.fit import errors, fit, lasting, measure_drawn
from imagegen.measure import measure
from imagegen.motifs import random_motif
from imagegen.scene import random_structure
from orbweave.records import RenderRequest, Structure, Targets
from orbweave.statistics import wilson
from ui.contact_sheet import Frame, contact_sheet

LIMITS = {"solid_fraction": 0.05, "spacing_px": 0.10, "direction_deg": 8.0}
"""Absolute; share of what was asked; degrees."""
THIN_PX = 3.0
SEED = 48
"""Of the noise that renderings start from."""
SIDE_PX = 256


class Order(NamedTuple):
    """One request."""

    structure: Structure
    asked: Targets

    @property
    def thinnest_px(self) -> float:
        """Width of its thinnest parts, as the motifs' numbers have it."""
        return min(motif.spacing * motif.thickness for motif in self.structure.motifs)


def orders(n: int, seed: int) -> list[Order]:
    """Return `n` random requests."""
    rng = np.random.default_rng([seed, 2**31])
    made = []
    for _ in range(n):
        start = random_structure(rng)
        motifs = tuple(random_motif(motif.family, rng) for motif in start.motifs)
        asked = lasting(start.model_copy(update={"motifs": motifs}))
        made.append(Order(fit(start, asked), asked))
    return made


def row(order: Order, picture: Path) -> dict[str, Any]:
    """Return what a picture and its drawing measure beside what was asked."""
    m = measure(picture)
    found = Targets(
        solid_fraction=m.solid_fraction, direction_deg=m.direction_deg, spacing_px=m.spacing_px
    )
    drawn = measure_drawn(order.structure)
    # Of the drawing only what was asked for.
    wanted = {name: getattr(drawn, name) for name in order.asked.model_dump(exclude_none=True)}
    return {
        "structure": describe(order.structure),
        "thinnest_px": round(order.thinnest_px, 2),
        "asked": order.asked.model_dump(exclude_none=True),
        "drawn": wanted,
        "measured": {name: getattr(found, name) for name in wanted},
        "fitted": errors(order.asked, drawn),
        "rendered": errors(Targets(**wanted), found),
        "kept": errors(order.asked, found),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return for each comparison and number: how often within the limit, and the median error."""
    told: dict[str, Any] = {"requests": len(rows)}
    for comparison in ("fitted", "rendered", "kept"):
        told[comparison] = {
            name: _share([r[comparison][name] for r in rows if name in r[comparison]], limit)
            for name, limit in LIMITS.items()
        }
    held = [all(_within(r["kept"][n], LIMITS[n]) for n in r["kept"]) for r in rows if r["kept"]]
    told["everything asked kept"] = _counted(held)
    return told


def _within(error: float | None, limit: float) -> bool:
    return error is not None and error <= limit


def _share(found: Sequence[float | None], limit: float) -> dict[str, Any] | None:
    if not found:
        return None
    sizes = [error for error in found if error is not None]
    median = round(float(np.median(sizes)), 4) if sizes else None
    return _counted([_within(error, limit) for error in found]) | {"median_error": median}


def _counted(held: Sequence[bool]) -> dict[str, Any]:
    if not held:
        return {"right": 0, "of": 0}
    interval = [round(bound, 3) for bound in wilson(sum(held), len(held))]
    return {"right": sum(held), "of": len(held), "interval": interval}


def _label(told: dict[str, Any]) -> tuple[str, str, str]:
    def line(numbers: dict[str, float | None]) -> str:
        return ", ".join("none" if v is None else f"{v:.3g}" for v in numbers.values()) or "nothing"

    return told["structure"], f"asked {line(told['asked'])}", f"measured {line(told['measured'])}"


def main() -> None:
    """Render what is missing, measure, write sheet and JSON, print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of pictures and figures")
    parser.add_argument("--count", type=int, default=60, help="requests")
    parser.add_argument("--seed", type=int, default=48, help="of the requests")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    renderer, rows, frames = Renderer(), [], []
    for i, order in enumerate(orders(args.count, args.seed)):
        name = f"request-{i:02d}"
        path = args.out / f"{name}.png"
        if not path.is_file():
            prompt = describe(order.structure)
            request = RenderRequest(prompt=prompt, structure=order.structure, seeds=(SEED,))
            renderer.render(request, args.out, name=name)
        rows.append(row(order, path))
        frames.append(Frame(path, _label(rows[-1])))
    thin = [r for r in rows if r["thinnest_px"] < THIN_PX]
    document = {
        "all": summary(rows),
        "thin": summary(thin),
        "not thin": summary([r for r in rows if r not in thin]),
        "rows": rows,
    }
    contact_sheet(frames, f"{len(rows)} requests: asked and measured").save(
        args.out / "seeds.jpg", quality=88
    )
    (args.out / "seeds.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if args.json:
        print(json.dumps(document, indent=1))
        return
    for part in ("all", "thin", "not thin"):
        print(part, json.dumps(document[part]))


if __name__ == "__main__":
    main()
