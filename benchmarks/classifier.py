"""How often the classifier is right on drawings it never saw, and whether `follow` knows a prompt.

    python benchmarks/classifier.py --count 780 --json

Motifs are counted as in `follow.py`. `prompts` is the chance that a drawing's own caption scores
higher than another one (area under the curve): a caption of another drawing, of the same drawing
in other colours, and of another motif in the same colours. Captions are read by the words
chooser, so its errors count.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from follow import named  # beside this script

from imagegen.captions import random_caption
from imagegen.classifier import Classifier, Verdict, load_classifier
from imagegen.classifier_training import drawn_as, load_autoencoder
from imagegen.distortion import distorted
from imagegen.follow import Asked, asked_by_prompt, judged
from imagegen.motifs import FAMILIES, random_motif
from imagegen.scene import random_structure
from imagegen.start import Pixels
from orbweave.records import Structure
from orbweave.statistics import wilson

HELD_OUT = 48
"""First word of the seed; no training has the second one, 2**31."""
MANNERS = ("bare", "lit", "distorted", "through the autoencoder")
N_SLOW = 260
"""Drawings sent through the autoencoder at most; each takes longer than ten bare ones."""
N_PROMPTS = 300


def held_out(n: int) -> list[Structure]:
    """Return `n` structures that no training with a small seed has drawn."""
    rng = np.random.default_rng([HELD_OUT, 2**31])
    return [random_structure(rng) for _ in range(n)]


def pictures(manner: str, structures: Sequence[Structure], side: int) -> list[Pixels]:
    """Draw structures in one manner."""
    through = load_autoencoder() if manner == MANNERS[-1] else lambda pixels: pixels
    drawn = "lit" if manner == "distorted" else manner
    made = [drawn_as(drawn, structure, side, through) for structure in structures]
    if manner != "distorted":
        return made
    x = torch.tensor(np.stack(made)).permute(0, 3, 1, 2).float() / 255
    y = distorted(x, torch.Generator().manual_seed(HELD_OUT))
    return list((y * 255).round().byte().permute(0, 2, 3, 1).numpy())


def verdicts(classifier: Classifier, made: Sequence[Pixels]) -> list[Verdict]:
    """Judge in batches of 64."""
    found = []
    for i in range(0, len(made), 64):
        found += classifier(made[i : i + 64])
    return found


def asked_of(structure: Structure) -> Asked:
    """Return the families and colours of a drawing."""
    materials, _, ground = structure.look.partition(" on ")
    families = tuple(motif.family for motif in structure.motifs)
    return Asked(families=families, materials=tuple(materials.split(" and ")), ground=ground)


def accuracy(structures: Sequence[Structure], found: Sequence[Verdict]) -> dict[str, Any]:
    """Return the shares that were named right, by family, and the most frequent mistakes."""
    asked = [asked_of(structure) for structure in structures]
    names = [named(a, verdict) for a, verdict in zip(asked, found, strict=True)]
    single = [i for i, a in enumerate(asked) if len(a.families) == 1]
    double = [i for i, a in enumerate(asked) if len(a.families) == 2]
    by_family: dict[str, list[bool]] = {name: [] for name in FAMILIES}
    mistakes: Counter[str] = Counter()
    for i in single:
        family = asked[i].families[0]
        by_family[family].append(names[i].motif)
        if not names[i].motif:
            best = max(found[i].families, key=lambda name: found[i].families[name])
            mistakes[f"{family} as {best}"] += 1
    return {
        "motif of one": share_of([names[i].motif for i in single]),
        "both of two": share_of([names[i].motif for i in double]),
        "material": share_of([n.material for n in names]),
        "ground": share_of([n.ground for n in names]),
        "look": share_of([n.look for n in names]),
        "look of one material": share_of(
            [n.look for n, a in zip(names, asked, strict=True) if len(a.materials) == 1]
        ),
        "by family": {name: f"{sum(held)}/{len(held)}" for name, held in by_family.items() if held},
        "mistakes": dict(mistakes.most_common(12)),
    }


def prompts(structures: Sequence[Structure], found: Sequence[Verdict]) -> dict[str, Any]:
    """Return the chance that the right caption scores above a wrong one, ties half."""
    rng = np.random.default_rng([HELD_OUT, 1])
    own = [_score(s, verdict, rng) for s, verdict in zip(structures, found, strict=True)]
    wrong = {
        "another drawing": [*structures[1:], structures[0]],
        "other colours": [_recoloured(s, t) for s, t in _beside(structures)],
        "another motif": [_replaced(s, rng) for s in structures],
    }
    result: dict[str, Any] = {"captions": len(own)}
    for name, others in wrong.items():
        scores = [_score(s, verdict, rng) for s, verdict in zip(others, found, strict=True)]
        result[f"{name}, area under the curve"] = round(area(own, scores), 4)
        pairs = [float(a > b) + 0.5 * (a == b) for a, b in zip(own, scores, strict=True)]
        result[f"{name}, pairs in order"] = round(float(np.mean(pairs)), 4)
    return result


def area(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Return the chance that one of `right` is above one of `wrong`, ties half.

    Source: Hanley and McNeil, Radiology 143 (1982) 29.
    """
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def _score(s: Structure, verdict: Verdict, rng: np.random.Generator) -> float:
    return judged("", asked_by_prompt(random_caption(s, rng)), verdict, None).score


def _beside(structures: Sequence[Structure]) -> list[tuple[Structure, Structure]]:
    return list(zip(structures, [*structures[1:], structures[0]], strict=True))


def _recoloured(structure: Structure, other: Structure) -> Structure:
    look = other.look if other.look != structure.look else "lime on red"
    return structure.model_copy(update={"look": look})


def _replaced(structure: Structure, rng: np.random.Generator) -> Structure:
    shown = {motif.family for motif in structure.motifs}
    others = [name for name in FAMILIES if name not in shown]
    families = rng.choice(others, len(structure.motifs), replace=False)
    motifs = tuple(random_motif(str(name), rng) for name in families)
    return structure.model_copy(update={"motifs": motifs})


def share_of(held: Sequence[bool]) -> dict[str, Any] | None:
    """Return how many hold, their share and its interval; None of none."""
    if not held:
        return None
    interval = [round(bound, 3) for bound in wilson(sum(held), len(held))]
    share = round(sum(held) / len(held), 3)
    return {"right": sum(held), "of": len(held), "share": share, "interval": interval}


def main() -> None:
    """Draw, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classifier", type=Path, default=None, help="folder of its weights")
    parser.add_argument("--count", type=int, default=780, help="drawings in each manner")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    classifier = load_classifier(args.classifier)
    document: dict[str, Any] = {}
    for manner in MANNERS:
        structures = held_out(min(args.count, N_SLOW) if manner == MANNERS[-1] else args.count)
        made = pictures(manner, structures, classifier.config.side_px)
        found = verdicts(classifier, made)
        document[manner] = accuracy(structures, found)
        if manner in {"lit", "distorted"}:
            part = slice(0, N_PROMPTS)
            document[manner]["prompts"] = prompts(structures[part], found[part])
    if args.json:
        print(json.dumps(document, indent=1))
        return
    for manner, figures in document.items():
        print(f"{manner}: {json.dumps(figures)}")


if __name__ == "__main__":
    main()
