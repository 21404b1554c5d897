"""From the words of a prompt to a structure seed: motifs, how they meet, colours, numbers.

Motifs are found by name where the prompt names them and else by what the reader was taught
(`imagegen.reader`); everything the words do not decide is drawn from the family's natural range
by the seed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagegen.colour_words import Colours, read_colours
from imagegen.meeting import APART, joined, meeting
from imagegen.motifs import FAMILIES
from imagegen.names import CLAUSE_ENDS, Clause, clauses_of, named, places
from orbweave.records import Combination, Light, Motif, Structure

__all__ = ["asked_colours", "choose_structure", "dressed", "nearest_families"]

SECOND_MOTIF = 0.5
"""Probability a second motif must reach in a clause that does not name it; chosen by us, see
benchmarks/choose.py. It is then likelier there than all else together."""
SHORT, HEARD = 4, 0.1
"""In a text of more clauses than these, probability it must keep in all words together: some clause
of a long text, taken alone, sounds like something else. Without, a second motif was read in 11 of
19 long prompts that have one."""
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


NEAR = 0.15
"""Share of the nearest family's likeness that another one must have to be meant too; chosen by
us: then about two come near to the words of a concept."""
MOST_NEAR = 4
PALE = {"white", "cream", "pearl"}
"""Colours that do not show on each other."""
_ONE_READER = Lock()


def choose_structure(prompt: str, seed: int, first: str | None = None) -> Structure:
    """Return the structure seed a prompt asks for; the same words and seed, the same one.

    Args:
        prompt: The words.
        seed: Decides what they leave open.
        first: A family to take instead of the nearest one; None leaves it to the words.
    """
    rng = np.random.default_rng([seed, *prompt.encode()[:256]])
    light, text = _read(prompt)
    at = _families(text, prompt, first)
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


def nearest_families(prompt: str, *, directed: bool = False) -> dict[str, str]:
    """Return the families a prompt may mean, nearest first, and what one sees of each.

    Just one if the words name it: then there is nothing to choose.

    Args:
        prompt: The words.
        directed: Only families whose direction can be seen, unless the words name another.
    """
    whole = _likeness(_read(prompt)[1], prompt).whole
    ranked = sorted(zip(whole.tolist(), FAMILIES, strict=True), key=lambda pair: -pair[0])
    if ranked[0][0] > 1:
        ranked = ranked[:1]
    elif directed:
        ranked = [pair for pair in ranked if FAMILIES[pair[1]].directed]
    near = [name for score, name in ranked if score >= NEAR * ranked[0][0]]
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


def _families(text: str, prompt: str, first: str | None) -> dict[str, int]:
    """Return one or two families, and where in the text each of them begins."""
    likeness, families = _likeness(text, prompt), list(FAMILIES)
    nearest = families[int(likeness.whole.argmax())]
    rows = zip(families, likeness.each, strict=True)
    found = {name: likeness.clauses[int(row.argmax())].at for name, row in rows}
    found |= places(likeness.clauses)
    chosen = first or nearest
    # A family chosen for the nearest one stands for it, and is itself no second one.
    second = _second(likeness, {chosen, nearest}, described=joined(text))
    return {chosen: found[nearest]} | ({} if second is None else {second: found[second]})


class _Likeness(NamedTuple):
    """How like words the families are, in their order: probabilities, 1 more where one is named."""

    clauses: list[Clause]
    together: NDArray[Any]
    """All words as one text, names not counted, shape (families,)."""
    whole: NDArray[Any]
    """The same and the likest clause, half each."""
    each: NDArray[Any]
    """Every clause, shape (families, clauses)."""


def _likeness(text: str, prompt: str) -> _Likeness:
    """Read a text as a whole and clause by clause; the prompt, where nothing of it is left."""
    clauses = clauses_of(text)
    if not clauses:
        text, clauses = prompt, [Clause(prompt, 0)]
    shares = _reader()([text, *(clause.text for clause in clauses)])
    found = [named(clause.text) for clause in clauses]
    names = np.array([[name in each for each in found] for name in FAMILIES])
    whole = (shares[0] + shares[1:].max(0)) / 2 + names.any(1)
    return _Likeness(clauses, shares[0], whole, shares[1:].T + names)


def _reader() -> Callable[[Sequence[str]], NDArray[Any]]:
    with _ONE_READER:
        return _shipped_reader()


@cache
def _shipped_reader() -> Callable[[Sequence[str]], NDArray[Any]]:
    from imagegen.reader import Reader  # needs torch

    return Reader()


def _second(likeness: _Likeness, taken: set[str], *, described: bool) -> str | None:
    """Return the family of a second motif: one that is named, else one a clause is most like.

    Args:
        likeness: Of every family to every clause.
        taken: Families that are no second one.
        described: Whether one without a name counts.
    """
    families = list(FAMILIES)
    found: list[tuple[float, str]] = []
    for clause, shares in zip(likeness.clauses, likeness.each.T, strict=True):
        others = named(clause.text)
        found += [(float(shares[families.index(f)]), f) for f in others.keys() - taken]
        best = int(shares.argmax())
        is_heard = likeness.together[best] >= HEARD or len(likeness.clauses) <= SHORT
        is_meant = shares[best] >= SECOND_MOTIF and is_heard
        if described and not others and families[best] not in taken and is_meant:
            found.append((float(shares[best]), families[best]))
    return max(found)[1] if found else None


def asked_colours(prompt: str, n_motifs: int) -> Colours:
    """Return the colours a prompt names, for at most so many motifs."""
    colours = _colours(_read(prompt)[1], n_motifs)
    return colours._replace(materials=colours.materials[:n_motifs])


def _colours(text: str, n_motifs: int) -> Colours:
    """Read colours; a motif is not drawn in the colour of its ground."""
    colours = read_colours(text, n_motifs)
    seen = tuple(each for each in colours.materials if each[0] != colours.ground)
    return colours._replace(materials=seen)


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
    """Colours named in the text, else the usual ones.

    They stand in the order of the words, and motifs in the order they are drawn in.
    """
    usual, _, behind = FAMILIES[names[0]].looks[0].partition(" on ")
    colours = _colours(text, len(names))
    distinct = [name for name, _ in colours.materials]
    ground = colours.ground or ("black" if behind in distinct else behind)
    if not distinct:
        is_lost = usual == ground or {usual, ground} <= PALE
        distinct = [("grey" if ground in PALE else "white") if is_lost else usual]
    if len(names) == 2 and len(distinct) > 1:
        first, second = distinct[:2]
        if at.keys() >= set(names) and at[names[0]] > at[names[1]]:
            first, second = second, first
        return f"{first} and {second} on {ground}"
    return f"{distinct[0]} on {ground}"
