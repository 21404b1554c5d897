"""How much the design loop gains: 30 concepts, three rounds, distance to targets before and after.

    python benchmarks/loop.py --out runs/loop

Twenty concepts are training items that the shipped model never learnt, ten are in
`concepts.jsonl`, some of these with targets of their own; for the rest the targets are what the
first bare structure measures. Every design is kept in a folder, every result is a line of
`results.jsonl`; what is there already is not made again, so a run that was cut short goes on.
The summary is one JSON document on stdout:

    ratio     mean distance of the kept version over mean distance of the first one, with its
              95 % interval by bootstrap over concepts; distances are in tolerances
    valid     share of designs whose kept prompt has each property, and all of them
    seconds_* of a design, median and most, models once loaded; `under_75_s` is the share of
              designs within the limit
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from unlearnt import unlearnt  # beside this script

from agents.advice import is_heard
from agents.claims import is_visible, sentences, shared_words
from agents.embedding import MiniLM
from agents.generation import Engine
from agents.knowledge import Fact, read_facts
from imagegen.colour_words import read_colours
from imagegen.motifs import FAMILIES
from orbweave.records import Brief, Design, ImagePrompt
from orbweave.statistics import Interval
from ui.design import Order, Workshop, design, workshop
from ui.rendering import RenderSettings, chooser_for

CONCEPTS = Path(__file__).with_name("concepts.jsonl")
N_UNLEARNT = 20
ROUNDS = 3
SIZE_PX = 256
MOST_S = 75.0
"""What a run may take on two cores."""
RESAMPLES = 10_000


def main() -> None:
    """Make what is missing and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of results and designs")
    parser.add_argument("--limit", type=int, default=None, help="concepts at most")
    parser.add_argument("--only", nargs="+", default=None, metavar="ID", help="these concepts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out / "results.jsonl"
    known = read_lines(results)
    cases = concepts(args.seed)[: args.limit]
    if args.only is not None:
        if strange := set(args.only) - {case["id"] for case in cases}:
            parser.error(f"wanted ids of the {len(cases)} concepts, found no {sorted(strange)}")
        cases = [case for case in cases if case["id"] in args.only]
    shop = lending(workshop(lambda text: None, MiniLM()))
    for case in cases:
        if case["id"] in known:
            continue
        row = case | _made(case, args.seed, args.out / case["id"], shop)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        known[case["id"]] = row
        print(f"{case['id']}: {row['first']} -> {row['last']}", file=sys.stderr, flush=True)
    json.dump(summary([known[case["id"]] for case in cases], args.seed), sys.stdout, indent=2)
    print()


def concepts(seed: int) -> list[dict[str, Any]]:
    """Return the 30 concepts in turn, own and unlearnt ones mixed, so that a part is a sample."""
    unseen = sorted(unlearnt("prompt", "expert"), key=lambda item: str(item["id"]))
    chosen = random.Random(seed).sample(unseen, min(N_UNLEARNT, len(unseen)))
    cases = [
        {"id": i["id"], "concept": i["concept"], "scale": i.get("scale", "microstructure")}
        for i in chosen
    ]
    own = [json.loads(line) for line in CONCEPTS.read_text("utf-8").splitlines()]
    cases += [{"id": f"own-{n:02d}", **case} for n, case in enumerate(own)]
    random.Random(seed).shuffle(cases)
    return cases


def lending(shop: Workshop) -> Workshop:
    """Return a workshop that opens each language model and the facts once."""
    engines: dict[str, Engine] = {}
    knowledge = shop.open_knowledge()

    def open_engine(model: str) -> Engine:
        if model not in engines:
            engines[model] = shop.open_engine(model)
        return engines[model]

    return replace(
        shop, open_engine=open_engine, open_knowledge=lambda: knowledge, lends_engines=True
    )


def _made(case: dict[str, Any], seed: int, folder: Path, shop: Workshop) -> dict[str, Any]:
    """Make a design and return what is kept of it."""
    brief = Brief(
        concept=case["concept"],
        scale=case["scale"],
        targets=case.get("targets", {}),
        seed=seed,
    )
    settings = RenderSettings(size_px=(SIZE_PX, SIZE_PX))
    order = Order(brief, ROUNDS, 1, settings, None, chooser_for("auto"))
    start = time.perf_counter()
    made = design(order, folder, shop, on_event=lambda event: None, force=True)
    return result_of(made) | {"seconds": round(time.perf_counter() - start, 1)}


def result_of(made: Design) -> dict[str, Any]:
    """Return the figures of a finished design."""
    best = made.best_version or 0
    return {
        "distances": [critique.distance for critique in made.critiques],
        "first": made.critiques[0].distance,
        "last": made.critiques[best].distance,
        "targets": made.prompts[0].targets.model_dump(exclude_none=True),
        "measured": [critique.measured for critique in made.critiques],
        "families": [m.family for m in made.prompts[0].structure.motifs]
        if made.prompts[0].structure
        else [],
        "best_version": best,
        "stop_reason": made.stop_reason,
        "prompt": made.prompts[best].prompt,
        "changes": [prompt.changes for prompt in made.prompts],
        "valid": properties(made),
        "timings_s": made.timings_s,
    }


def properties(made: Design) -> dict[str, bool]:
    """Return what holds of the kept prompt: length, nothing twice, grounded, seen, all experts."""
    prompt = made.prompts[made.best_version or 0]
    said = [sentence.lower() for sentence in sentences(prompt.prompt)]
    turns = [turn for turn in made.turns if turn.index == prompt.turn]
    return {
        "30 to 110 words": 30 <= len(prompt.prompt.split()) <= 110,
        "no sentence twice": len(set(said)) == len(said),
        "no unsupported number": not any(turn.unsupported for turn in turns),
        "names what one would see": names_what_is_seen(prompt),
        "every expert heard": every_expert_heard(prompt.prompt, given(made)),
    }


def every_expert_heard(prompt: str, facts: Sequence[Fact]) -> bool:
    """Whether each expert asked is in a prompt by a fact of its field, whoever wrote the prompt.

    It is if some clause shares two words of content with one fact given of the field: its
    statement, its look and its quantity. A field is all domains that one expert speaks for:
    "leaf" and "plant", "biocomposite" and "bioinspired-design".

    Args:
        prompt: The paragraph.
        facts: What all experts were given; one who was given none has nothing to say.
    """
    held: dict[str, list[str]] = {}
    for fact in facts:
        held.setdefault(fact.expert, []).append(fact.held)
    return all(is_heard(prompt, each) for each in held.values())


def given(made: Design) -> list[Fact]:
    """Return the shipped facts that the experts of a design were given."""
    ids = {citation.id for citation in made.facts}
    return [fact for fact in read_facts() if fact.id in ids]


def names_what_is_seen(prompt: ImagePrompt) -> bool:
    """Whether a prompt says its motif and a colour, and no number that a picture cannot show.

    A motif is said if two words of content are those it is named and described by; a prompt
    without a structure may say any. Words are compared: whether they fit each other is not.
    """
    drawn = prompt.structure.motifs if prompt.structure else ()
    families = [FAMILIES[motif.family] for motif in drawn] or list(FAMILIES.values())
    says_motif = any(
        shared_words(prompt.prompt, " ".join((*f.names, *f.plain))) >= 2 for f in families
    )
    colours = read_colours(prompt.prompt.lower())
    says_colour = bool(colours.materials) or colours.ground is not None
    return says_motif and says_colour and is_visible(prompt.prompt)


def summary(rows: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Return the figures over all concepts."""
    pairs = [(r["first"], r["last"]) for r in rows if r["first"] is not None]
    first, last = (statistics.fmean(column) for column in zip(*pairs, strict=True))
    names = rows[0]["valid"]
    seconds = [row["seconds"] for row in rows]
    return {
        "concepts": len(rows),
        "measured": len(pairs),
        "mean_first": round(first, 3),
        "mean_last": round(last, 3),
        "ratio": round(last / first, 3),
        "ratio_interval": [round(bound, 3) for bound in ratio_interval(pairs, seed)],
        "better": sum(b < a for a, b in pairs),
        "unchanged": sum(b == a for a, b in pairs),
        "rounds_mean": round(statistics.fmean(len(row["distances"]) for row in rows), 2),
        "valid": {name: _share([row["valid"][name] for row in rows]) for name in names}
        | {"all": _share([all(row["valid"].values()) for row in rows])},
        "seconds_median": statistics.median(seconds),
        "seconds_most": max(seconds),
        f"under_{MOST_S:.0f}_s": _share([s <= MOST_S for s in seconds]),
    }


def ratio_interval(pairs: Sequence[tuple[float, float]], seed: int) -> Interval:
    """Return the 95 % percentile interval of mean(last) / mean(first), concepts drawn anew.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    values = np.asarray(pairs)  # (concepts, 2)
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(drawn[:, 1] / np.maximum(drawn[:, 0], 1e-9), [0.025, 0.975])
    return Interval(float(low), float(high))


def _share(held: Sequence[bool]) -> float:
    return round(sum(held) / len(held), 3)


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Return what was kept so far by id; a line that was cut off is left out."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["id"]] = row
    return rows


if __name__ == "__main__":
    main()
