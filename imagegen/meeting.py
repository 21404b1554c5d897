"""How two motifs meet, by the words that stand between their names."""

from __future__ import annotations

import re

from orbweave.records import Combination

__all__ = ["APART", "joined", "meeting"]

MEETINGS: tuple[tuple[Combination, str], ...] = (
    ("inclusion", r"embedded|inclusion|island|patch|enclosed|surrounded"),
    ("half", r"\bhal(f|ves)\b|\bsplit in (two|half)"),
    (
        "graded",
        r"grad(e|es|ed|ing|ient|ually)\b|transition|merging|fad(es|ing)"
        r"|\b(?:turn|melt|pass|blend|shad)(?:s|es|ing)? into\b|\bgiv(?:es|ing) way to\b",
    ),
)
OVER = r"\bover\b|\babove\b|(?:on|across the) top of|\batop\b"
"""Lays the motif before it over the one behind it: "a web over leaf veins", not "a membrane over
water"."""
UNDER = r"\bunder\b|\bbeneath\b|overl(?:aid|ay)\w*(?: by| with)?|crossed by|wrapped in"
"""Lays the motif behind it over the one before it."""
WITHIN = (r"\b(?:embedded|enclosed|set|islands?|patch(?:es)?|inclusions?)\b(?: as an? \w+)?"
          r" (?:in|into|within|by)\b|surrounded by")  # fmt: skip
"""The motif before it is the island in the one behind it."""
ROUND = r"\b(?:islands?|patch(?:es)?|inclusions?|ovals?|spots?) of\b|\bwith (?:an? )?embedded\b"
"""The motif behind it is the island."""
BESIDE = r"\bbeside\b|next to (?!each|one another)|side by side with"
APART: tuple[Combination, ...] = ("half", "inclusion", "graded")
"""How two motifs meet where the words do not say. Two nets on top of each other hide both, so
that is left to those who ask for it."""


def joined(text: str) -> bool:
    """Whether a text has a word by which two motifs may meet."""
    joints = (OVER, UNDER, WITHIN, ROUND, BESIDE, *(words for _, words in MEETINGS))
    return any(re.search(words, text) for words in joints)


def meeting(text: str, places: dict[str, int], apart: Combination) -> tuple[list[str], Combination]:
    """Return two families in the order they are drawn in, and how they meet.

    Of an overlay the first lies on top, of an inclusion the second is the island.

    Args:
        text: What a prompt asks for, in small letters.
        places: Two families, and where in the text each of them begins.
        apart: How they meet where the words do not say, one of `APART`.
    """
    names = sorted(places, key=lambda name: places[name])
    for words, before in ((OVER, True), (UNDER, False)):
        top = _beside(words, text, places, before=before)
        if top is not None:
            return sorted(names, key=lambda name: name != top), "overlay"
    combine = next((c for c, words in MEETINGS if re.search(words, text)), apart)
    if combine == "inclusion":
        for words, before in ((ROUND, False), (WITHIN, True)):
            island = _beside(words, text, places, before=before)
            if island is not None:
                return sorted(names, key=lambda name: name == island), combine
    return names, combine


def _beside(words: str, text: str, places: dict[str, int], *, before: bool) -> str | None:
    """Return which of two families stands before, or behind, words between them.

    The one before may be anywhere in the sentence, the one behind stands in what follows at
    once. Words for an island may stand before both: "an island of nacre in a honeycomb".
    """
    one, other = sorted(places, key=lambda name: places[name])
    for match in re.finditer(words, text):
        start = max(text.rfind(end, 0, match.start()) for end in ".;")
        behind = re.split(r"[,.;:()]", text[match.end() :])[0]
        end = match.end() + len(behind)
        if start < places[one] < match.start() and match.end() <= places[other] < end:
            return one if before else other
        if words == ROUND and match.end() <= places[one] and places[other] < end:
            return one
    return None
