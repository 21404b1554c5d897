"""Do pictures follow 48 prompts nobody trained on: with structure seeds, and by words alone.

    python benchmarks/follow.py --out runs/follow --json

Every prompt of `prompts48.jsonl` is rendered twice with the same seed, in the default path and as
`--structure none`, and judged by the classifier, which learnt from drawings alone. What is asked
for is what the file says, not what the words chooser makes of the prompt. Pictures that are there
already are kept, so a run that was cut short goes on. Shares have Wilson intervals:

    motif     one motif: the most probable family is the one asked for; two: both are among the
              first three, or both more probable than not
    look      material (both, where two are asked for) and ground are the most probable ones

Nothing is chosen by hand: the first seed counts. Contact sheets are written beside the pictures.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imagegen import Renderer
from imagegen.choose import choose_structure
from imagegen.classifier import Verdict, load_classifier
from imagegen.follow import Asked, judged, shown_to
from orbweave.records import RenderRequest, Structure
from orbweave.statistics import wilson
from ui.contact_sheet import Frame, contact_sheet

PROMPTS = Path(__file__).with_name("prompts48.jsonl")
SEED = 7
TOP = 3
"""Families among which both of two motifs must be."""
WAYS = ("seeded", "words")


class Case(NamedTuple):
    """One prompt and what it asks for."""

    id: str
    prompt: str
    families: tuple[str, ...]
    look: str

    @property
    def asked(self) -> Asked:
        """The same for `imagegen.follow`."""
        materials, _, ground = self.look.partition(" on ")
        return Asked(families=self.families, materials=materials.split(" and "), ground=ground)


class Names(NamedTuple):
    """What the classifier named of what was asked for."""

    motif: bool
    material: bool
    ground: bool

    @property
    def look(self) -> bool:
        """Material and ground."""
        return self.material and self.ground


def cases(path: Path = PROMPTS) -> list[Case]:
    """Return the prompts in the order of the file."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [Case(r["id"], r["prompt"], tuple(r["families"]), r["look"]) for r in rows]


def spread(rows: Sequence[Case], n: int) -> list[Case]:
    """Return `n` of the cases, evenly over the file, so that a few are of every kind."""
    return [rows[i * len(rows) // n] for i in range(min(n, len(rows)))]


def named(asked: Asked, verdict: Verdict) -> Names:
    """Return what the classifier names as it was asked for."""
    order = _order(verdict.families)
    families = set(asked.families)
    if len(families) == 1:
        motif = {order[0]} == families
    else:
        likely = all(verdict.families.get(name, 0.0) > 0.5 for name in families)
        motif = likely or families <= set(order[:TOP])
    materials = set(_order(verdict.materials)[: len(asked.materials)])
    ground = _order(verdict.grounds)[0]
    return Names(motif, materials == set(asked.materials), ground == asked.ground)


def _order(shares: dict[str, float]) -> list[str]:
    return sorted(shares, key=lambda name: -shares[name])


def main() -> None:
    """Render what is missing, judge it, write the sheets and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of pictures and sheets")
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="others")
    parser.add_argument("--classifier", type=Path, default=None, help="folder of its weights")
    parser.add_argument("--limit", type=int, default=None, help="prompts at most")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    asked = cases(args.prompts)
    chosen = asked if args.limit is None else spread(asked, args.limit)
    classifier, renderer = load_classifier(args.classifier), Renderer()
    choose: dict[str, Callable[[str], Structure | None]] = {
        "seeded": lambda prompt: choose_structure(prompt, SEED),
        "words": lambda prompt: None,
    }
    document: dict[str, Any] = {"prompts": len(chosen), "seed": SEED, "ways": {}, "rows": []}
    for way in WAYS:
        rows, frames = [], []
        for case in chosen:
            structure = choose[way](case.prompt)
            path = _rendered(renderer, case, structure, args.out / way)
            verdict = classifier([shown_to(classifier, path)])[0]
            row = _row(way, case, structure, verdict)
            rows.append(row)
            frames.append(Frame(path, _label(case, row)))
        document["ways"][way] = summary(rows)
        document["rows"] += rows
        title = f"{len(chosen)} prompts, {way}: {_in_short(document['ways'][way])}"
        contact_sheet(frames, title).save(args.out / f"{way}.jpg", quality=88)
    (args.out / "follow.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if args.json:
        print(json.dumps(document, indent=1))
        return
    for way, shares in document["ways"].items():
        print(f"{way}: {_in_short(shares)}")


def _rendered(renderer: Renderer, case: Case, structure: Structure | None, folder: Path) -> Path:
    path = folder / f"{case.id}.png"
    if not path.is_file():
        request = RenderRequest(prompt=case.prompt, structure=structure, seeds=(SEED,))
        renderer.render(request, folder, name=case.id)
    return path


def _row(way: str, case: Case, structure: Structure | None, verdict: Verdict) -> dict[str, Any]:
    names = named(case.asked, verdict)
    found = judged(case.id, case.asked, verdict, None)
    return {
        "way": way,
        "id": case.id,
        "prompt": case.prompt,
        "families": case.families,
        "asked_look": case.look,
        "chosen": None if structure is None else [m.family for m in structure.motifs],
        "chosen_look": None if structure is None else structure.look,
        "seen": found.seen.model_dump(),
        "score": round(found.score, 3),
        **names._asdict(),
        "look": names.look,
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of one way of rendering, each with its interval and its counts."""
    single = [row for row in rows if len(row["families"]) == 1]
    double = [row for row in rows if len(row["families"]) == 2]
    shares = {
        "motif of one": _share([row["motif"] for row in single]),
        "both of two": _share([row["motif"] for row in double]),
        "look": _share([row["look"] for row in rows]),
        "look of one": _share([row["look"] for row in single]),
        "material": _share([row["material"] for row in rows]),
        "ground": _share([row["ground"] for row in rows]),
    }
    seeded = [row for row in rows if row["chosen"] is not None]
    if seeded:
        shares["motifs read from the words"] = _share(
            [set(row["chosen"]) == set(row["families"]) for row in seeded]
        )
        shares["look read from the words"] = _share(
            [_colours(row["chosen_look"]) == _colours(row["asked_look"]) for row in seeded]
        )
    return {name: share for name, share in shares.items() if share is not None}


def _colours(look: str) -> tuple[frozenset[str], str]:
    """Materials in any order, and the ground."""
    materials, _, ground = look.partition(" on ")
    return frozenset(materials.split(" and ")), ground


def _share(held: Sequence[bool]) -> dict[str, Any] | None:
    if not held:
        return None
    interval = wilson(sum(held), len(held))
    return {
        "right": sum(held),
        "of": len(held),
        "share": round(sum(held) / len(held), 3),
        "interval": [round(bound, 3) for bound in interval],
    }


def _in_short(shares: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {s['right']}/{s['of']} ({s['interval'][0]:.0%} to {s['interval'][1]:.0%})"
        for name, s in shares.items()
        if name in {"motif of one", "both of two", "look"}
    )


def _label(case: Case, row: dict[str, Any]) -> tuple[str, str, str]:
    verdicts = ", ".join(
        f"{part} {'right' if row[part] else 'WRONG'}" for part in ("motif", "look")
    )
    seen = list(row["seen"]["families"])[: len(case.families)]
    material, ground = (next(iter(row["seen"][part])) for part in ("materials", "grounds"))
    return (
        f"{case.id}: {verdicts}",
        f"asked {' + '.join(case.families)}, {case.look}",
        f"seen {' + '.join(seen)}, {material} on {ground}",
    )


if __name__ == "__main__":
    main()
