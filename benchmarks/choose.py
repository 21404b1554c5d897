"""Which motifs the words chooser reads in prompts whose motifs are known.

    python benchmarks/choose.py --json

Three kinds of prompts, none of them made for this benchmark but the last:

    captions   the generator's own, one and two motifs, which name what was drawn
    items      of `training/items`, of the kinds prompt and revision, with the concept before them
               as a design reads them; `choose.jsonl` says what one reader sees in them. Lines
               with an odd number were looked at when the chooser's limits were set, those with
               an even number were not
    prompts48  those of `follow.py`; no limit was set on them

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

from agents.embedding import MiniLM
from imagegen.captions import random_caption
from imagegen.choose import Embed, choose_structure
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


def own() -> list[Prompt]:
    """Return the prompts of the picture benchmark."""
    return [Prompt(case.prompt, frozenset(case.families)) for case in cases(PROMPTS)]


def figures(prompts: Sequence[Prompt], embed: Embed) -> dict[str, Any]:
    """Return how often the motifs were read right."""
    chosen = [choose_structure(prompt.text, 7, embed) for prompt in prompts]
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
    met = [
        (p.structure.combine, [m.family for m in p.structure.motifs])
        == (s.combine, [m.family for m in s.motifs])
        for p, s, r in zip(prompts, chosen, read, strict=True)
        if p.structure is not None and len(r) == 2 and r == p.families
    ]
    if met:
        told["of these drawn in the order and the manner of the words"] = share_of(met)
    return {name: share for name, share in told.items() if share is not None}


def main() -> None:
    """Choose and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=400, help="captions of the generator")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    embed, labelled = MiniLM(), items()
    kinds = {
        "captions": captions(args.captions),
        "items, looked at": labelled[::2],
        "items, not looked at": labelled[1::2],
        "prompts48": own(),
    }
    document = {kind: figures(prompts, embed) for kind, prompts in kinds.items()}
    if args.json:
        print(json.dumps(document, indent=1))
        return
    for kind, told in document.items():
        for name, share in told.items():
            print(f"{kind}: {name} {share['right']}/{share['of']}")


if __name__ == "__main__":
    main()
