"""From the words of a prompt to a structure seed: motifs, how they meet, colours, numbers.

Motifs are found by name where the prompt names them and else by embedding; everything the
words do not decide is drawn from the family's natural range by the seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagegen.looks import GROUNDS, MATERIALS
from imagegen.motifs import FAMILIES
from orbweave.records import Combination, Light, Motif, Structure

__all__ = ["APART", "Embed", "choose_structure", "dressed", "nearest_families"]

Embed = Callable[[Sequence[str]], NDArray[Any]]
"""Texts to unit vectors, shape (n, d)."""

SECOND_MOTIF = 0.5
"""Cosine a second motif must reach; chosen by us on the prompts in the tests."""
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
MEETINGS: tuple[tuple[Combination, str], ...] = (
    ("inclusion", r"embedded|inclusion|island|patch|enclosed|surrounded"),
    ("half", r"\bhal(f|ves)\b|\bsplit in (two|half)"),
    ("graded", r"grad(e|es|ed|ing|ient|ually)\b|transition|merging|fad(es|ing)"),
)
OVERLAY = r"\bover\b|on top of|overl(?:aid|ay)\w*(?: by| with)?|crossed by|wrapped in"
"""Lays one motif over the other where it stands between their names: "a web over leaf veins",
not "a membrane over water"."""
CLAUSE_ENDS = r"[,.;:()]|\b(?:over|under|and|with|in|between|around|into)\b"
APART: tuple[Combination, ...] = ("half", "inclusion", "graded")
"""How two motifs meet where the words do not say."""
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
DENIED = r"\b(?:no|not|without|never)\s+[\w-]+"


NEAR = 0.1
"""Cosine by which a family may be less like the words than the nearest one and still be meant;
chosen by us: of 40 training prompts 16 name a motif, the others have 2 to 4 families within."""
MOST_NEAR = 4


def choose_structure(prompt: str, seed: int, embed: Embed, first: str | None = None) -> Structure:
    """Return the structure seed a prompt asks for; the same words and seed, the same one.

    Args:
        prompt: The words.
        seed: Decides what they leave open.
        embed: Texts to unit vectors.
        first: Family of the first motif; None leaves it to the words.
    """
    rng = np.random.default_rng([seed, *prompt.encode()[:256]])
    light, unlit = _light(prompt)
    ranked = _rank(_clauses(unlit) or [prompt], embed)
    names = [first or ranked[0][1]]
    # A family chosen for the first clause stands for the one nearest to it.
    others = ranked if names[0] in {name for _, name in ranked} else ranked[1:]
    second = next(((score, name) for score, name in others if name not in names), (0.0, ""))
    if second[0] >= SECOND_MOTIF:
        names.append(second[1])
    text = _lowered(unlit)
    combine: Combination = "single"
    if len(names) == 2:
        # Two nets on top of each other hide both, so that is left to those who ask for it.
        apart = APART[int(rng.integers(len(APART)))]
        said = next((c for c, words in MEETINGS if re.search(words, text)), apart)
        combine = "overlay" if _lies_over(text, names) else said
    return Structure(
        motifs=tuple(_motif(name, text, rng) for name in names),
        combine=combine,
        look=_look(text, names),
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
    clauses = _clauses(_light(prompt)[1]) or [prompt]
    best = _likeness(clauses, embed).max(1)
    ranked = sorted(zip(best.tolist(), FAMILIES, strict=True), key=lambda pair: -pair[0])
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
    light, unlit = _light(prompt)
    look = _look(_lowered(unlit), [motif.family for motif in structure.motifs])
    return structure.model_copy(update={"look": look, "light": light})


def _clauses(text: str) -> list[str]:
    return [c.strip() for c in re.split(CLAUSE_ENDS, text) if c.strip()]


def _lowered(text: str) -> str:
    return text.lower().replace("mother of pearl", "nacre").replace("mother-of-pearl", "nacre")


def _light(prompt: str) -> tuple[Light, str]:
    """The light a prompt asks for, else soft, and the prompt without words for light.

    "Soft even light" says nothing of an even pattern, nor "against the light" of the ground.
    """
    said = re.sub(DENIED, " ", prompt.lower())
    light: Light = next((name for name, words in LIGHTS if re.search(words, said)), "soft")
    unlit = prompt
    for _, words in LIGHTS:
        unlit = re.sub(words, " ", unlit, flags=re.IGNORECASE)
    return light, unlit


def _lies_over(text: str, names: list[str]) -> bool:
    """Whether the words lay one of two motifs over the other."""
    for match in re.finditer(OVERLAY, text):
        before = _named(re.split(r"[,.;:()]", text[: match.start()])[-1])
        after = _named(re.split(r"[,.;:()]", text[match.end() :])[0])
        pairs = ((names[0], names[1]), (names[1], names[0]))
        if any(one in before and other in after for one, other in pairs):
            return True
    return False


def _rank(clauses: list[str], embed: Embed) -> list[tuple[float, str]]:
    """Score every family by its best clause, best first; each clause counts for one family."""
    named = [_named(c) for c in clauses]
    table = _likeness(clauses, embed)
    ranked: list[tuple[float, str]] = []
    free = list(range(len(clauses)))
    while free and len(ranked) < 2:
        i, j = np.unravel_index(int(table[:, free].argmax()), (len(FAMILIES), len(free)))
        clause = free[int(j)]
        ranked.append((float(table[i, clause]), list(FAMILIES)[int(i)]))
        table[i] = -1
        # A clause that names two motifs may give both; one that names none gives one.
        if not named[clause] - {name for _, name in ranked}:
            free.remove(clause)
    return ranked


def _likeness(clauses: list[str], embed: Embed) -> NDArray[Any]:
    """Return the likeness of every family to every clause, shape (families, clauses).

    A name in the words counts 1 more than any likeness. Beside longer ones, clauses
    of one or two words count only for the motifs they name: a colour alone is like nothing.
    """
    texts = _family_texts()
    cos = _embedded_families(embed) @ embed(clauses).T
    owner = np.array([name for name, _ in texts])
    named = [_named(c) for c in clauses]
    short = np.array([len(c.split()) < 3 for c in clauses])
    short &= not short.all()
    table: NDArray[Any] = np.stack([cos[owner == name].max(0) * ~short for name in FAMILIES])
    table += [[name in found for found in named] for name in FAMILIES]
    return table


def _family_texts() -> list[tuple[str, str]]:
    return [(name, t) for name, f in FAMILIES.items() for t in (*f.names, *f.plain)]


@lru_cache(maxsize=1)
def _embedded_families(embed: Embed) -> NDArray[Any]:
    """Embed all names and descriptions, shape (texts, d); once, for it takes half a second."""
    return embed([text for _, text in _family_texts()])


def _named(clause: str) -> set[str]:
    """Families one of whose names stands in the clause, and not within a longer name there."""
    words = _stems(clause)
    found = {
        (name, frozenset(_stems(n)))
        for name, family in FAMILIES.items()
        for n in family.names
        if _stems(n) <= words
    }
    return {name for name, held in found if not any(held < other for _, other in found)}


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in re.findall(r"[a-z]+", text.lower())}


def _stem(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


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


def _look(text: str, names: list[str]) -> str:
    """Colours named in the text; a colour before "background" or after "on" is the ground."""
    usual = FAMILIES[names[0]].looks[0].partition(" on ")
    grounds = "|".join(sorted([*GROUNDS, *GROUND_SYNONYMS], key=len, reverse=True))
    found = re.search(rf"\b({grounds})\b[\w\s-]{{0,12}}background", text) or re.search(
        rf"\b(?:on|against)\s+(?:an?\s+|the\s+)?({grounds})\b", text
    )
    ground = GROUND_SYNONYMS.get(found[1], found[1]) if found else usual[2]
    rest = text if found is None else text[: found.start()] + text[found.end() :]
    words = re.findall(r"[a-z]+", rest)
    colours = [SYNONYMS.get(w, w) for w in words if SYNONYMS.get(w, w) in MATERIALS]
    distinct = list(dict.fromkeys(c for c in colours if not (c == ground)))
    if not distinct:
        distinct = [usual[0]]
    if len(names) == 2 and len(distinct) > 1:
        return f"{distinct[0]} and {distinct[1]} on {ground}"
    return f"{distinct[0]} on {ground}"
