"""Captions of procedural pictures: the words a specialist uses, and plain shapes."""

from __future__ import annotations

import numpy as np

from imagegen.motifs import FAMILIES
from orbweave.records import Light, Motif, Structure

__all__ = ["LIGHT_PHRASES", "describe", "random_caption"]

STYLES = ("micrograph", "close-up", "detailed macro view", "microscopy image", "")
JOINS = {
    "overlay": ("{a} lying over {b}", "{a} on top of {b}", "{a} above {b}"),
    "inclusion": ("{b} embedded as an island in {a}", "{a} around an oval patch of {b}"),
    "half": ("half {a} and half {b}", "{a} beside {b}, split in two"),
    "graded": ("{a} grading into {b}", "{a} merging gradually into {b}"),
}

DIRECTION_WORDS = ("horizontal", "rising diagonal", "vertical", "falling diagonal")
LIGHT_PHRASES: dict[Light, tuple[str, ...]] = {
    "soft": (
        "soft studio light",
        "soft light",
        "soft diffuse light",
        "soft even light",
        "even daylight",
    ),
    "raking": (
        "raking light",
        "in raking light",
        "low side light with long shadows",
        "low warm sun from one side",
        "raking light that reveals relief",
        "side light, cool shadows",
    ),
    "backlit": (
        "backlit",
        "backlit, translucent",
        "lit from behind",
        "translucent, glowing in light from behind",
        "transmitted light",
    ),
    "electron": (
        "scanning electron micrograph",
        "SEM image",
        "electron microscope image",
        "tinted scanning electron micrograph",
        "electron micrograph",
    ),
    "glossy": (
        "wet and glossy",
        "glossy, with bright highlights",
        "wet surface with sharp highlights",
        "glistening wet",
        "shiny wet surface",
    ),
}
"""Words for each light, the plainest first; `imagegen.choose` reads all of them back."""
LIGHT_SHARE = 0.6
"""Share of captions that name the light; the rest leave it to chance, as people do."""
SENTENCE_SHARE = 0.25
MAX_WORDS = 60
"""Longest caption in sentences; the agents' prompts hold 60 to 80 words."""
FRAMES = (
    "{}",
    "macro view of {}",
    "close view of {}",
    "extreme close-up of {}, looking straight down",
    "straight view onto {}",
    "high-magnification view of {}",
    "top view of {}",
    "magnified view of {}, seen from directly above",
    "detailed frontal view of {}",
)
COLOURINGS = (
    "{0} on a {1} background",
    "{0} material against a {1} ground",
    "everything solid is {0}, the ground {1}",
    "colours: {0} on {1}",
    "{0} structure, {1} background",
)
FINISHES = ("sharp focus", "crisp edges", "no text", "no people", "nothing else in the picture")
"""Endings the agents like, true of every picture."""


def direction_word(direction_deg: float) -> str:
    """Name a direction: horizontal, rising diagonal, vertical or falling diagonal."""
    return DIRECTION_WORDS[int(((direction_deg + 22.5) % 180) // 45)]


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
    light = "" if structure.light == "soft" else f", {LIGHT_PHRASES[structure.light][0]}"
    return f"{what}, {structure.look}{light}"


def random_caption(structure: Structure, rng: np.random.Generator) -> str:
    """Write one of many captions of a structure; colours stand with what they colour.

    Most are a line of a few words; `SENTENCE_SHARE` are sentences as the agents write them.
    """
    if rng.uniform() < SENTENCE_SHARE:
        return _sentences(structure, rng)
    materials, ground = _colours(structure)
    phrases = []
    for motif, colour in zip(structure.motifs, materials, strict=False):
        family = FAMILIES[motif.family]
        words = [w for w in _qualities(motif) if rng.uniform() < 0.5]
        kind = rng.uniform()
        if kind < 0.6:
            phrase = " ".join([colour, *words, str(rng.choice(family.names))])
        elif kind < 0.8:
            # "A round net" follows colours and qualities as "golden fine round net".
            plain = str(rng.choice(family.plain)).removeprefix("a ").removeprefix("an ")
            phrase = f"{colour} {' '.join(words)} {plain}"
        else:
            phrase = f"{colour} {rng.choice(family.names)}, {rng.choice(family.plain)}"
        phrases.append(" ".join(phrase.split()))
    what = _joined(structure, phrases, rng)
    ending = f", {ground} background" if rng.uniform() < 0.5 else f" on {ground}"
    style = str(rng.choice(STYLES)) if rng.uniform() < 0.5 else ""
    light = ""
    if rng.uniform() < LIGHT_SHARE:
        light = str(rng.choice(LIGHT_PHRASES[structure.light]))
        if structure.light == "electron":  # a light that is a kind of picture stands first
            style, light = (light, "") if rng.uniform() < 0.7 else ("", light)
    caption = f"{style} of {what}{ending}" if style else what + ending
    return f"{caption}, {light}" if light else caption


def _colours(structure: Structure) -> tuple[tuple[str, str], str]:
    materials, _, ground = structure.look.partition(" on ")
    first, _, second = materials.partition(" and ")
    return (first, second or first), ground


def _joined(structure: Structure, phrases: list[str], rng: np.random.Generator) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return str(rng.choice(JOINS[structure.combine])).format(a=phrases[0], b=phrases[1])


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _sentences(structure: Structure, rng: np.random.Generator) -> str:
    """Write a caption as a prompt engineer would: subject, structure, colours, light, framing."""
    materials, ground = _colours(structure)
    families = [FAMILIES[m.family] for m in structure.motifs]
    names = [str(rng.choice(f.names)) for f in families]
    coloured = rng.uniform() < 0.5
    if coloured:
        names = [f"{c} {n}" for c, n in zip(materials, names, strict=False)]
    what = _joined(structure, names, rng)
    lit = rng.uniform() < LIGHT_SHARE
    frame = str(rng.choice(FRAMES))
    sentences = [frame.format(what) if frame else what]
    order = rng.permutation(len(families))
    for i in order[: 1 if rng.uniform() < 0.7 else 2]:
        sentences.append(str(rng.choice(families[i].plain)))
    if len(families) == 1 and rng.uniform() < 0.5:
        sentences.append(_manner(structure.motifs[0]))
    if coloured:
        sentences.append(f"{ground} {rng.choice(('background', 'ground'))}")
    elif len(families) == 2:
        a, b = (str(rng.choice(f.names)) for f in families)
        both = f"{materials[0]} {a}, {materials[1]} {b}"
        sentences.append(f"{both}, {ground} background")
    else:
        sentences.append(str(rng.choice(COLOURINGS)).format(materials[0], ground))
    ending = [str(rng.choice(LIGHT_PHRASES[structure.light]))] if lit else []
    ending += [str(e) for e in rng.choice(FINISHES, int(rng.integers(0, 3)), replace=False)]
    if ending:
        sentences.append(", ".join(ending))
    sentences = [s for s in sentences if s]
    while sum(len(s.split()) for s in sentences) > MAX_WORDS:
        del sentences[1]  # what it looks like in plain words; subject, colours and light stay
    return " ".join(f"{_capital(s)}." for s in sentences)


def _manner(motif: Motif) -> str:
    """Say in a sentence which parameters stand out; empty if none does."""
    said = _qualities(motif)
    parts = [
        *(f"the pattern is {w}" for w in said if w in ("fine", "coarse")),
        *(f"its solid parts are {w}" for w in said if w in ("thin", "thick")),
        *(f"its order is {w}" for w in said if w in ("regular", "irregular")),
    ]
    direction = next((w for w in said if w in DIRECTION_WORDS), None)
    if direction:
        parts.append(f"its direction is {direction}")
    return ", ".join(parts)
