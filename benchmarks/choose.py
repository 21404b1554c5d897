"""Which motifs the words chooser reads in prompts whose motifs are known.

    python benchmarks/choose.py --json

Prompts of three kinds:

    captions   the generator's own, one and two motifs, which name what was drawn
    items      of `training/items`, of the kinds prompt and revision, with the concept before them
               as a design reads them; `choose.jsonl` says what one reader sees in them. Lines
               with an odd number were looked at when the chooser's limits were set, those with
               an even number were not
    prompts48, prompts48-other   written for pictures; looked at while rules were mended
    prompts96, prompts60   likewise, by others who knew neither rules nor texts of the reader; read
               once before they were looked at, as `docs/experiments.md` tells
    prompts48-last   likewise, the last of them: one rule of colours was mended after it

`right` is all motifs and no other. Of the items, which show many things, `fitting` is that every
motif chosen is among those seen.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from classifier import share_of  # beside this script
from follow import PROMPTS, cases  # likewise

from imagegen.captions import random_caption
from imagegen.choose import choose_structure
from imagegen.scene import random_structure
from orbweave.records import Structure

LABELS = Path(__file__).with_name("choose.jsonl")
ITEMS = Path(__file__).parent.parent / "training" / "items"
HELD_OUT = 48
"""First word of the captions' seed."""


class Prompt(NamedTuple):
    """A prompt and what is to be read in it."""

    text: str
    families: frozenset[str]
    structure: Structure | None = None
    """As drawn, of captions; the order of its motifs counts where they meet by name."""
    look: str | None = None
    """Of written prompts: the colours asked for."""


def captions(n: int) -> list[Prompt]:
    """Return `n` captions of random structures, three in ten with two motifs."""
    rng = np.random.default_rng([HELD_OUT, 2**31])
    drawn = [random_structure(rng) for _ in range(n)]
    return [
        Prompt(random_caption(s, rng), frozenset(motif.family for motif in s.motifs), s)
        for s in drawn
    ]


def items() -> list[Prompt]:
    """Return the labelled training prompts in the order of the labels."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(ITEMS.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["kind"] in {"prompt", "revision"}:
                rows[row["id"]] = row
    labels = [json.loads(line) for line in LABELS.read_text("utf-8").splitlines()]
    return [Prompt(_read(rows[label["id"]]), frozenset(label["families"])) for label in labels]


def _read(row: dict[str, Any]) -> str:
    return f"{row['concept']}. {row.get('revised_prompt') or row['image_prompt']}"


def written(path: Path) -> list[Prompt]:
    """Return prompts that were written for pictures."""
    return [Prompt(c.prompt, frozenset(c.families), look=c.look) for c in cases(path)]


def figures(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return how often the motifs were read right."""
    chosen = [choose_structure(prompt.text, 7) for prompt in prompts]
    read = [frozenset(motif.family for motif in structure.motifs) for structure in chosen]
    pairs = list(zip(prompts, read, strict=True))
    told = {
        "one motif right": share_of([r == p.families for p, r in pairs if len(p.families) == 1]),
        "one motif and a second read": share_of(
            [len(r) == 2 for p, r in pairs if len(p.families) == 1]
        ),
        "two motifs right": share_of([r == p.families for p, r in pairs if len(p.families) == 2]),
        "fitting": share_of([r <= p.families for p, r in pairs]),
    }
    asked = [(p.look, s.look) for p, s in zip(prompts, chosen, strict=True) if p.look]
    if asked:
        told["colours right"] = share_of([_colours(a) == _colours(b) for a, b in asked])
    met = [
        (p.structure.combine, [m.family for m in p.structure.motifs])
        == (s.combine, [m.family for m in s.motifs])
        for p, s, r in zip(prompts, chosen, read, strict=True)
        if p.structure is not None and len(r) == 2 and r == p.families
    ]
    if met:
        told["of these drawn in the order and the manner of the words"] = share_of(met)
    return {name: share for name, share in told.items() if share is not None}


def _colours(look: str) -> tuple[set[str], str]:
    materials, _, ground = look.partition(" on ")
    return set(materials.split(" and ")), ground


def main() -> None:
    """Choose and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=400, help="captions of the generator")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    labelled = items()
    kinds = {
        "captions": captions(args.captions),
        "items, looked at": labelled[::2],
        "items, not looked at": labelled[1::2],
    } | {
        name: written(PROMPTS.with_name(f"{name}.jsonl"))
        for name in ("prompts48", "prompts48-other", "prompts96", "prompts60", "prompts48-last")
    }
    document = {kind: figures(prompts) for kind, prompts in kinds.items()}
    if args.json:
        print(json.dumps(document, indent=1))
        return
    for kind, told in document.items():
        for name, share in told.items():
            print(f"{kind}: {name} {share['right']}/{share['of']}")


if __name__ == "__main__":
    main()
