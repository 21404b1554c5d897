"""From the words of a prompt to a structure seed: motifs, how they meet, colours, numbers.

Motifs are found by name where the prompt names them and else by embedding; everything the
words do not decide is drawn from the family's natural range by the seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.looks import GROUNDS, MATERIALS
from imagegen.meeting import APART, joined, meeting
from imagegen.motifs import FAMILIES
from imagegen.names import CLAUSE_ENDS, Clause, clauses_of, named, places
from orbweave.records import Combination, Light, Motif, Structure

__all__ = ["Embed", "choose_structure", "dressed", "nearest_families"]

Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to unit vectors, shape (n, d)."""

WIDTH = 0.15
"""Cosine by which a clause must be less like a family than another one to count e times less
for it; chosen by us, see benchmarks/choose.py. The likest clause alone would leave unread
what the others say of the same motif, and 0.1 to 0.2 are as good."""
SECOND_MOTIF = 0.55
"""Cosine a second motif must reach that no name gives; chosen by us, see benchmarks/choose.py."""
AHEAD = 0.2
"""How much more than the first motif it must be like its clause: what describes the first one,
such as the spiral of a web, says nothing of a second."""
SYNONYMS = {
    "gold": "golden", "yellow": "golden", "orange": "amber", "honey": "amber",
    "bronze": "copper", "brown": "copper", "crimson": "red", "magenta": "pink", "rose": "pink",
    "violet": "purple", "cyan": "teal", "turquoise": "teal", "emerald": "green",
    "ivory": "cream", "beige": "cream", "gray": "grey", "metallic": "silver",
    "iridescent": "pearl", "pearly": "pearl", "nacreous": "pearl", "milky": "white",
}  # fmt: skip
GROUND_SYNONYMS = {
    "dark": "black", "gray": "grey", "ivory": "cream", "beige": "cream", "blue": "navy",
    "dark blue": "navy", "deep blue": "navy", "dark brown": "brown", "bright": "white",
    "pale": "cream", "light": "white", "turquoise": "teal", "deep green": "dark green",
}  # fmt: skip
GROUND_MANNERS = (
    r"\bGROUND\b[\w\s-]{0,12}background",
    r"\b(?:on|against)\s+(?:an?\s+|the\s+)?GROUND\b",
    r"\bGROUND\s+(?:behind|between|beneath|below|underneath)\b",
    # Not "over green veins": what it lies over must end there.
    r"\b(?:over|before|above|in front of)\s+(?:an?\s+|the\s+)?(?:\w+\s+)?GROUND"
    r"(?:\s+(?:void|ground|base|depths?))?\s*(?:[,.;]|$)",
)
"""How words tell which colour is the ground's, the plainest first."""
LOW, HIGH = 0.12, 0.88
"""Place within the natural range that a word such as "fine" or "coarse" asks for."""
SPACING = ((r"\bfine(ly|r)?\b|dense|densely|narrow|closely|tight|small", LOW),
           (r"coarse|wide(ly)?|large|open|sparse|broad", HIGH))  # fmt: skip
THICKNESS = ((r"\bthin|slender|hairline|delicate|slim", LOW), (r"thick|stout|heavy|sturdy", HIGH))
DISORDER = ((r"\bregular|even(ly)?\b|perfect|uniform|ordered", 0.08),
            (r"irregular|random|tangle|disorder|uneven|wild", 0.8))  # fmt: skip
DIRECTIONS = ((r"horizontal", 0.0), (r"vertical|upright", 90.0),
              (r"falling diagonal", 135.0), (r"diagonal|oblique|slanted", 45.0))  # fmt: skip
LIGHTS: tuple[tuple[Light, str], ...] = (
    ("electron", r"(?:tinted |false-coloured |scanning )*electron (?:micrograph|microscop\w+)"
                 r"(?: image| picture)?|\bsem (?:image|picture|micrograph)|\bsem\b"),
    ("raking", r"(?:soft |low |warm |cool )*\b(?:raking|grazing) (?:side )?light"
               r"(?: that reveals relief)?|(?:with )?\blong (?:\w+ )?shadows"
               r"|(?<!soft )(?<!even )\b(?:low |warm |cool |strong )*side[- ]light(?:ing)?\b"
               r"|\blow (?:\w+ )?(?:sun|light)\b(?!.{0,3}from behind)"
               r"(?: from (?:one|the) (?:side|left|right))?"),
    ("backlit", r"\bback-?(?:lit|light(?:ing)?)\b|\btransmitted light|\bagainst the light"
                r"|(?:\w*lit|light|sun|glow\w*)(?: in light)? from behind"),
    ("glossy", r"\b(?:wet|gloss[yi]?\w*|glisten\w*|polished|dewy?)\b"
               r"|\bshiny (?:surface|finish)|\b(?:bright|sharp) highlights"),
    ("soft", r"\b(?:soft|even|flat|diffuse|studio|overcast)(?: \w+){0,2} (?:day)?light\b"),
    ("backlit", r"\btranslucen\w+"),
)  # fmt: skip
"""Words for each light, the most telling first: a translucent film in soft light is softly lit."""
DENIED = rf"\b(?:no|not|without|never|instead of|rather than)\b(?:(?!{CLAUSE_ENDS}).)*"
"""What a picture shall not show, to the end of the clause."""


NEAR = 0.07
"""How much less like the words than the nearest one a family may be and still be meant; chosen
by us: about as many families are within as were when the likest clause alone counted."""
MOST_NEAR = 4


def choose_structure(prompt: str, seed: int, embed: Embed, first: str | None = None) -> Structure:
    """Return the structure seed a prompt asks for; the same words and seed, the same one.

    Args:
        prompt: The words.
        seed: Decides what they leave open.
        embed: Texts to unit vectors.
        first: A family to take instead of the nearest one; None leaves it to the words.
    """
    rng = np.random.default_rng([seed, *prompt.encode()[:256]])
    light, text = _read(prompt)
    at = _families(text, prompt, embed, first)
    names = list(at)
    combine: Combination = "single"
    if len(at) == 2:
        names, combine = meeting(text, at, APART[int(rng.integers(len(APART)))])
    return Structure(
        motifs=tuple(_motif(name, text, rng) for name in names),
        combine=combine,
        look=_look(text, names, at),
        light=light,
        seed=seed,
    )


def nearest_families(prompt: str, embed: Embed, *, directed: bool = False) -> dict[str, str]:
    """Return the families a prompt may mean, nearest first, and what one sees of each.

    Just one if the words name it: then there is nothing to choose.

    Args:
        prompt: The words.
        embed: Texts to unit vectors.
        directed: Only families whose direction can be seen, unless the words name another.
    """
    clauses = clauses_of(_read(prompt)[1]) or [Clause(prompt, 0)]
    whole = _likeness(clauses, embed).whole
    ranked = sorted(zip(whole.tolist(), FAMILIES, strict=True), key=lambda pair: -pair[0])
    if ranked[0][0] > 1:
        ranked = ranked[:1]
    elif directed:
        ranked = [pair for pair in ranked if FAMILIES[pair[1]].directed]
    near = [name for score, name in ranked if score >= ranked[0][0] - NEAR]
    return {name: FAMILIES[name].plain[0] for name in near[:MOST_NEAR]}


def dressed(structure: Structure, prompt: str) -> Structure:
    """Return a structure in the colours and the light of a prompt; its geometry stays.

    What the prompt says nothing of becomes what is usual, as in `choose_structure`.
    """
    light, text = _read(prompt)
    names = [motif.family for motif in structure.motifs]
    look = _look(text, names, places(clauses_of(text)))
    return structure.model_copy(update={"look": look, "light": light})


def _read(prompt: str) -> tuple[Light, str]:
    """The light a prompt asks for, else soft, and what it asks for besides, in small letters.

    "Soft even light" says nothing of an even pattern, nor "against the light" of the ground;
    and what shall not be there is no motif and no colour.
    """
    text = re.sub(DENIED, " ", prompt.lower(), flags=re.DOTALL)
    light: Light = next((name for name, words in LIGHTS if re.search(words, text)), "soft")
    for _, words in LIGHTS:
        text = re.sub(words, " ", text)
    return light, re.sub(r"mother[ -]of[ -]pearl", "nacre", text)


def _families(text: str, prompt: str, embed: Embed, first: str | None) -> dict[str, int]:
    """Return one or two families, and where in the text each of them begins."""
    clauses = clauses_of(text) or [Clause(prompt, 0)]
    likeness, families = _likeness(clauses, embed), list(FAMILIES)
    nearest = families[int(likeness.whole.argmax())]
    rows = zip(families, likeness.each, strict=True)
    found = {name: clauses[int(row.argmax())].at for name, row in rows}
    found |= places(clauses)
    chosen = first or nearest
    # A family chosen for the nearest one stands for it, and is itself no second one.
    second = _second(likeness.each, clauses, {chosen, nearest}, described=joined(text))
    return {chosen: found[nearest]} | ({} if second is None else {second: found[second]})


def _second(
    table: NDArray[Any], clauses: list[Clause], taken: set[str], *, described: bool
) -> str | None:
    """Return the family of a second motif: one that is named, else one a clause is most like.

    Args:
        table: Likeness of every family to every clause.
        clauses: The words.
        taken: Families that are no second one.
        described: Whether one without a name counts.
    """
    families = list(FAMILIES)
    rows = [families.index(name) for name in taken]
    found: list[tuple[float, str]] = []
    for clause, likeness in zip(clauses, table.T, strict=True):
        others = named(clause.text)
        found += [(float(likeness[families.index(f)]), f) for f in others.keys() - taken]
        best = int(likeness.argmax())
        ahead = likeness[best] - likeness[rows].max()
        if described and not others and likeness[best] >= SECOND_MOTIF and ahead >= AHEAD:
            found.append((float(likeness[best]), families[best]))
    return max(found)[1] if found else None


class _Likeness(NamedTuple):
    """How like words the families are, in their order; a name counts 1 more than any likeness."""

    whole: NDArray[Any]
    """All words together, shape (families,)."""
    each: NDArray[Any]
    """Every clause, shape (families, clauses)."""


def _likeness(clauses: list[Clause], embed: Embed) -> _Likeness:
    """Compare all families with the clauses of a text.

    A motif that has no name there is often told of in several clauses, so all of them count
    for the whole, the likest most: the logarithm of the mean of exponentials. Beside longer
    ones, a clause of one or two words alone tells of none but the motifs it names.
    """
    texts = _family_texts()
    cos = _embedded_families(embed) @ embed([c.text for c in clauses]).T
    owner = np.array([name for name, _ in texts])
    described = np.stack([cos[owner == name].max(0) for name in FAMILIES])
    found = [named(c.text) for c in clauses]
    names = np.array([[name in each for each in found] for name in FAMILIES])
    short = np.array([len(c.text.split()) < 3 for c in clauses])
    each = described * ~(short & ~short.all()) + names
    together = WIDTH * np.log(np.exp(described / WIDTH).mean(1))
    return _Likeness(np.where(names.any(1), each.max(1), together), each)


def _family_texts() -> list[tuple[str, str]]:
    return [(name, t) for name, f in FAMILIES.items() for t in (*f.names, *f.plain)]


@lru_cache(maxsize=1)
def _embedded_families(embed: Embed) -> NDArray[Any]:
    """Embed all names and descriptions, shape (texts, d); once, for it takes half a second."""
    return embed([text for _, text in _family_texts()])


def _place(rules: Sequence[tuple[str, float]], text: str) -> float | None:
    return next((value for words, value in rules if re.search(words, text)), None)


def _motif(name: str, text: str, rng: np.random.Generator) -> Motif:
    """Numbers from the words; what they leave open lies in the middle of the natural range."""
    family = FAMILIES[name]

    def within(bounds: tuple[float, float], place: float | None) -> float:
        place = float(rng.uniform(0.3, 0.7)) if place is None else place
        return round(bounds[0] + place * (bounds[1] - bounds[0]), 2)

    drawn = float(rng.choice([0.0, 90.0, 35.0, 145.0]))
    degrees = re.search(r"(\d{1,3})\s*(?:°|deg)", text)
    named = float(degrees[1]) % 180 if degrees else _place(DIRECTIONS, text)
    disorder = _place(DISORDER, text)
    return Motif(
        family=name,
        spacing=within(family.spacing, _place(SPACING, text)),
        thickness=within(family.thickness, _place(THICKNESS, text)),
        direction_deg=(drawn if named is None else named) if family.directed else 0.0,
        irregularity=round(float(rng.uniform(0.2, 0.45)), 2) if disorder is None else disorder,
    )


def _look(text: str, names: list[str], at: dict[str, int]) -> str:
    """Colours named in the text; a colour before "background" or after "on" is the ground.

    They stand in the order of the words, and motifs in the order they are drawn in.
    """
    usual = FAMILIES[names[0]].looks[0].partition(" on ")
    grounds = "|".join(sorted([*GROUNDS, *GROUND_SYNONYMS], key=len, reverse=True))
    manners = (manner.replace("GROUND", f"({grounds})") for manner in GROUND_MANNERS)
    found = next(filter(None, (re.search(manner, text) for manner in manners)), None)
    ground = GROUND_SYNONYMS.get(found[1], found[1]) if found else usual[2]
    rest = text if found is None else text[: found.start()] + text[found.end() :]
    words = re.findall(r"[a-z]+", rest)
    colours = [SYNONYMS.get(w, w) for w in words if SYNONYMS.get(w, w) in MATERIALS]
    distinct = list(dict.fromkeys(c for c in colours if not (c == ground)))
    if not distinct:
        distinct = [usual[0]]
    if len(names) == 2 and len(distinct) > 1:
        first, second = distinct[:2]
        if at.keys() >= set(names) and at[names[0]] > at[names[1]]:
            first, second = second, first
        return f"{first} and {second} on {ground}"
    return f"{distinct[0]} on {ground}"
