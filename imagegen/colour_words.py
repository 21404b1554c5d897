"""Which colours words give to the motifs of a picture, and which to what lies behind them.

Every colour a text mentions is found first, however it is called: "midnight blue" is one colour,
and so is "rose pink". The words around it then tell whether it is the ground's.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from imagegen.looks import GROUNDS, MATERIALS
from imagegen.names import CLAUSE_ENDS, named

__all__ = ["Colours", "read_colours"]

CALLED: tuple[tuple[str, str, str], ...] = (
    # material, ground, what they are called
    ("golden", "cream", "golden gold gilded gilt yellow mustard saffron brass brassy ochre"),
    ("amber", "brown", "amber orange tangerine honey-coloured"),
    ("copper", "brown", "copper coppery bronze rusty rust terracotta caramel tan"),
    ("copper", "brown", "brown chocolate sepia umber earthy dark-brown"),
    ("red", "red", "red crimson scarlet ruby burgundy maroon vermilion carmine"),
    ("pink", "red", "pink rose rosy magenta fuchsia blush"),
    ("purple", "navy", "purple violet lilac lavender mauve aubergine indigo"),
    ("blue", "navy", "blue azure cobalt sapphire ultramarine cerulean"),
    ("blue", "navy", "navy midnight dark-blue deep-blue midnight-blue navy-blue"),
    ("teal", "teal", "teal turquoise cyan aqua aquamarine petrol sea-green blue-green"),
    ("green", "green", "green emerald verdant grass-green leaf-green"),
    ("green", "dark green", "dark-green deep-green forest-green bottle-green moss-green"),
    ("green", "dark green", "pine-green fir-green racing-green hunter-green olive-green"),
    ("lime", "green", "lime chartreuse lime-green light-green pale-green yellow-green"),
    ("cream", "cream", "cream creamy ivory beige sandy sand-coloured ecru off-white"),
    ("white", "white", "white snowy milky chalky snow-white"),
    ("silver", "grey", "silver silvery metallic chrome platinum"),
    ("grey", "grey", "grey gray charcoal graphite ashen"),
    ("pearl", "white", "pearl pearly nacreous iridescent opal opalescent pearlescent"),
    ("grey", "black", "black jet-black pitch-black ebony inky blackness raven-black coal-black"),
)
"""The nearest material and the nearest ground for every way to call a colour, by eye. Words that
mostly mean a thing, such as honey, olive or salmon, are none."""
ONLY_GROUND = {"dark": "black", "bright": "white", "light": "white", "pale": "cream"}
"""Words that tell the colour of a background and of nothing else."""
NO_COLOUR = r"(?:angle|ratio|mean|section|rule|rectangle|window)s?\b"
NO_COLOUR_BEHIND = r"(?<!mother of )(?<!mother-of-)"
"""The golden angle is not golden, a rose window not rosy, and mother of pearl no colour."""
BACK = (r"(?:background|backdrop|backing|ground|void|base|depths?|darkness|surroundings?|paper|card"
        r"|canvas)")  # fmt: skip
GAPS = r"(?:gaps|holes|joints|openings|pores|voids|spaces)"
BEHIND = r"(?:behind|beneath|underneath|below|between)"
MORE = r"(?:(?!and\b|with\b|in\b|on\b|over\b)[a-z'-]+\s+)"
"""One more word of the same phrase."""
END = r"\s*(?:[,.;:!?)]|$)"
IS = r"(?:\s+(?:is|are|be|should|must|of|in|colou?red|filled with|a|an|the|all)|:)"
IT = r"(?:it|them|all|everything|which|the \w+)"
BEFORE: tuple[tuple[float, str], ...] = (
    (3, rf"\b(?:{BACK}|{GAPS}){IS}*\s+{MORE}?$"),
    (3, rf"\bbehind\s+{IT}?,?\s*(?:is|lies|only|there is)?\s*(?:an?\s+)?{MORE}?$"),
    (2, rf"\b(?:on|onto|upon|against|backed by)[\s-]+{MORE}{{0,3}}$"),
)
"""What stands before the ground's colour, and how much it tells."""
OVER = rf"\b(?:over|above|before|across|atop|in front of)\s+{MORE}{{0,3}}$"
"""Tells as much as "on" where nothing follows that could lie there: not "over green veins"."""
AFTER: tuple[tuple[float, str], ...] = (
    (4, rf"^\s+{MORE}{{0,2}}{BACK}\b"),
    (3, rf"^\s+(?:{MORE}{{0,2}}{BEHIND}(?:\s+{IT})?{END}|{BEHIND}\b)"),
    (4, r"^\s+(?:beyond|elsewhere|all around|everywhere(?: else)?)\b"),
    (3, r"^\s+(?:shows?|showing|shining|peeping|visible|seen|coming)\s+(?:through|between)\b"),
    (3, rf"^\s+(?:in (?:all )?the\s+)?{GAPS}\b"),
)
"""What stands after it."""
NOT_AFTER = r"^\s+(?:on|onto|upon|against)\b"
"""Whatever lies on something is not the ground itself: "pores blue on white"."""


class Colours(NamedTuple):
    """Colours of a text."""

    materials: tuple[tuple[str, int], ...]
    """Names in `imagegen.looks.MATERIALS`, each once, and where in the text each is said."""
    ground: str | None
    """A name in `imagegen.looks.GROUNDS`; None where nothing tells."""


class _Mention(NamedTuple):
    material: str | None
    ground: str
    start: int
    end: int


def read_colours(text: str, n_motifs: int = 1) -> Colours:
    """Read the colours of a text in small letters.

    Where no word tells which is the ground's and there are more than the motifs need, it is
    the last one, unless that is said in one breath with the one before: "gold and silver".
    """
    mentions = _mentions(text)
    scores = [_as_ground(text, mention) for mention in mentions]
    n_colours = len({(mention.material, mention.ground) for mention in mentions})
    if n_colours > n_motifs and not any(scores):
        between = text[mentions[-2].end : mentions[-1].start]
        scores[-1] = 0.0 if re.fullmatch(r"[\s/&-]*(?:and|or|to)?\s*", between) else 0.1
    best = max(scores, default=0.0)
    at = None if best <= 0 else max(i for i, score in enumerate(scores) if score == best)
    ground = None if at is None else mentions[at].ground
    materials: dict[str, int] = {}
    for i, mention in enumerate(mentions):
        if i != at and mention.material is not None:
            materials.setdefault(mention.material, mention.start)
    return Colours(tuple(materials.items()), ground)


def _mentions(text: str) -> list[_Mention]:
    """Every colour of a text, in order; of words that stand together the last one tells."""
    found: list[_Mention] = []
    for match in re.finditer(_pattern(), text):
        material, ground = _called()[re.sub(r"[\s-]+", "-", match[0])]
        if found and not text[found[-1].end : match.start()].strip(" -"):
            if material is not None:  # "golden light" is no white
                found[-1] = _Mention(material, ground, found[-1].start, match.end())
        else:
            found.append(_Mention(material, ground, match.start(), match.end()))
    told = [m for m in found if m.material is not None or _as_ground(text, m) >= 4]
    return told


@cache
def _called() -> dict[str, tuple[str | None, str]]:
    called: dict[str, tuple[str | None, str]] = {
        word: (None, ground) for word, ground in ONLY_GROUND.items()
    }
    for material, ground, words in CALLED:
        assert material in MATERIALS and ground in GROUNDS
        called |= dict.fromkeys(words.split(), (material, ground))
    return called


@cache
def _pattern() -> str:
    words = sorted(_called(), key=len, reverse=True)
    any_of = "|".join(word.replace("-", "[ -]") for word in words)
    return rf"\b{NO_COLOUR_BEHIND}(?:{any_of})\b(?![ -]{NO_COLOUR})"


def _as_ground(text: str, mention: _Mention) -> float:
    """How much the words around a colour say that it is the ground's; 0: nothing."""
    before, after = text[: mention.start], text[mention.end :]
    behind = re.split(CLAUSE_ENDS, after)[0]
    score = max([s for s, words in AFTER if re.search(words, after)], default=0.0)
    if named(behind):  # a colour of what lies there
        return score if score == 4 else 0.0
    if re.search(NOT_AFTER, after):
        return score
    score = max([score, *(s for s, words in BEFORE if re.search(words, before))])
    if re.search(OVER, before):
        score = max(score, 2.0 if not behind.strip() else 0.5)
    return score
