"""Captions of procedural pictures: the words a specialist uses, and plain shapes."""

from __future__ import annotations

import numpy as np

from imagegen.motifs import FAMILIES
from orbweave.records import Motif, Structure

__all__ = ["describe", "random_caption"]

STYLES = ("micrograph", "close-up", "detailed macro view", "microscopy image", "")
JOINS = {
    "overlay": ("{a} lying over {b}", "{a} on top of {b}", "{a} above {b}"),
    "inclusion": ("{b} embedded as an island in {a}", "{a} around an oval patch of {b}"),
    "half": ("half {a} and half {b}", "{a} beside {b}, split in two"),
    "graded": ("{a} grading into {b}", "{a} merging gradually into {b}"),
}


def direction_word(direction_deg: float) -> str:
    """Name a direction: horizontal, rising diagonal, vertical or falling diagonal."""
    words = ("horizontal", "rising diagonal", "vertical", "falling diagonal")
    return words[int(((direction_deg + 22.5) % 180) // 45)]


def _share(value: float, bounds: tuple[float, float]) -> float:
    return (value - bounds[0]) / (bounds[1] - bounds[0])


def _qualities(motif: Motif) -> list[str]:
    """Words for parameters that stand out within the family's natural range."""
    family = FAMILIES[motif.family]
    words = []
    spacing = _share(motif.spacing, family.spacing)
    if spacing < 0.33:
        words.append("fine")
    elif spacing > 0.67:
        words.append("coarse")
    thickness = _share(motif.thickness, family.thickness)
    if thickness < 0.33:
        words.append("thin")
    elif thickness > 0.67:
        words.append("thick")
    if family.directed:
        words.append(direction_word(motif.direction_deg))
    if motif.irregularity < 0.2:
        words.append("regular")
    elif motif.irregularity > 0.65:
        words.append("irregular")
    return words


def describe(structure: Structure) -> str:
    """Name a structure in one line, technical term first, for records and pictures."""
    names = [FAMILIES[m.family].names[0] for m in structure.motifs]
    what = names[0]
    if len(names) == 2:
        what = JOINS[structure.combine][0].format(a=names[0], b=names[1])
    return f"{what}, {structure.look}"


def random_caption(structure: Structure, rng: np.random.Generator) -> str:
    """Write one of many captions of a structure; colours stand with what they colour."""
    materials, _, ground = structure.look.partition(" on ")
    first, _, second = materials.partition(" and ")
    phrases = []
    for motif, colour in zip(structure.motifs, (first, second or first), strict=False):
        family = FAMILIES[motif.family]
        words = [w for w in _qualities(motif) if rng.uniform() < 0.5]
        kind = rng.uniform()
        if kind < 0.6:
            phrase = " ".join([colour, *words, str(rng.choice(family.names))])
        elif kind < 0.8:
            phrase = f"{colour} {' '.join(words)} {rng.choice(family.plain)}"
        else:
            phrase = f"{colour} {rng.choice(family.names)}, {rng.choice(family.plain)}"
        phrases.append(" ".join(phrase.split()))
    what = phrases[0]
    if len(phrases) == 2:
        what = str(rng.choice(JOINS[structure.combine])).format(a=phrases[0], b=phrases[1])
    style = str(rng.choice(STYLES))
    ending = f"{ground} background" if rng.uniform() < 0.5 else f"on {ground}"
    caption = f"{what}, {ending}" if ending.endswith("background") else f"{what} {ending}"
    return f"{style} of {caption}" if style and rng.uniform() < 0.5 else caption
