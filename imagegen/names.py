"""Which families of motifs words name, and where: by their own names and by words for them."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from imagegen.motifs import FAMILIES

__all__ = ["CLAUSE_ENDS", "Clause", "clauses_of", "named", "places"]

CLAUSE_ENDS = (r"[,.;:()]|\b(?:over|under|and|with|in|between|around|into|beside|atop"
               r"|(?:on|across the) top of)\b")  # fmt: skip
WORD = r"[a-z]+"
WORDS = {
    "cobweb": "cobweb", "dragline": "silk_bundle",
    "collagen": "collagen_fibrils", "tendon": "collagen_fibrils",
    "straight veins": "parallel_veins", "Bouligand": "twisted_plywood", "tracheids": "wood_cells",
    "trabecular": "trabecular_foam", "diatom": "diatom_pores",
    "gecko": "gecko_setae", "setae": "gecko_setae", "denticles": "shark_denticles",
    "urchin": "sea_urchin_stereom", "stereom": "sea_urchin_stereom", "Haversian": "osteons",
    "Euplectella": "glass_sponge_lattice", "glass sponge": "glass_sponge_lattice",
    "Turing": "turing_pattern", "pufferfish": "turing_pattern",
    "reaction diffusion": "turing_pattern", "foam": "voronoi_foam",
    "coral": "branching_coral", "sunflower": "phyllotaxis", "pine cone": "pine_cone_scales",
    "hornbeam": "corrugated_leaf", "Miura": "corrugated_leaf",
}  # fmt: skip
"""Words that stand for a family's whole name; a feather-light sheet of plywood names neither
feathers nor twisted plywood."""
MADE_OF = {"silk_bundle": {"orb_web", "cobweb"}, "leaf_veins": {"parallel_veins"}}
"""What a motif is made of is no motif beside it in one clause: a web is of silk, and a leaf with
straight veins has veins."""


class Clause(NamedTuple):
    """A piece of a text that tells of one thing."""

    text: str
    at: int
    """Place of its first letter in the text."""


def clauses_of(text: str) -> list[Clause]:
    """Cut a text where one thing ends and the next begins."""
    ends = [0, *(place for m in re.finditer(CLAUSE_ENDS, text) for place in m.span()), len(text)]
    pieces = [(text[a:b], a) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    return [
        Clause(piece.strip(), at + len(piece) - len(piece.lstrip()))
        for piece, at in pieces
        if piece.strip()
    ]


def named(text: str) -> dict[str, int]:
    """Return the families named in a clause, with the place of each one's first letter.

    A name within a longer one is none: "parallel leaf veins" are no "leaf veins".
    """
    first: dict[str, int] = {}
    for match in re.finditer(WORD, text.lower()):
        first.setdefault(_stem(match[0]), match.start())
    held = [(family, name) for family, name in _names() if name <= first.keys()]
    found: dict[str, int] = {}
    for family, name in held:
        if not any(name < other for _, other in held):
            place = min(first[stem] for stem in name)
            found[family] = min(place, found.get(family, place))
    return {f: place for f, place in found.items() if not MADE_OF.get(f, set()) & found.keys()}


def places(clauses: list[Clause]) -> dict[str, int]:
    """Return where in a text each family is first named."""
    found: dict[str, int] = {}
    for clause in clauses:
        for family, place in named(clause.text).items():
            found.setdefault(family, clause.at + place)
    return found


@cache
def _names() -> tuple[tuple[str, frozenset[str]], ...]:
    """Every family with the stems of each of its names."""
    pairs = [(family, name) for family, f in FAMILIES.items() for name in f.names]
    pairs += [(family, word) for word, family in WORDS.items()]
    return tuple(
        (family, frozenset(_stem(word) for word in re.findall(WORD, name.lower())))
        for family, name in pairs
    )


def _stem(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word
