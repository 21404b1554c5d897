"""Clean text spoilt as careless extraction spoils it, for measuring what clean text is worth.

    columns      two columns read straight across
    headers      running heads in the middle of the text
    hyphens      words broken at the end of a line
    spaces       blanks lost, or turned into line ends
    characters   look-alikes of optical recognition; ligatures of a font without a character map

The level is the share of places where a fault may happen that it does happen at; faults that
ruin several words at once are rarer by a factor that is chosen by us.
"""

from __future__ import annotations

import re

import numpy as np

from orbweave.errors import UsageError

__all__ = ["spoil"]

_LOOK_ALIKES = {
    "rn": "m", "m": "rn", "cl": "d", "vv": "w", "li": "h", "ri": "n", "e": "c", "l": "1",
    "I": "l", "O": "0", "S": "5", "0": "O", "1": "l", "5": "S", "8": "B", "µ": "u", "°": "o",
    "ffi": "\ufffd", "fi": "\ufffd", "fl": "\ufffd", "ff": "\ufffd",
}  # fmt: skip
_CONFUSABLE = re.compile("|".join(sorted(map(re.escape, _LOOK_ALIKES), key=len, reverse=True)))
_LONG_WORD = re.compile(r"\b[^\W\d_]{8,}\b")
_BLANK = re.compile(r"(?<=\S) (?=\S)")
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=\S)")
_HEADS = (
    "J. Mech. Behav. Biomed. Mater. 12 (2012) 345-367 Contents lists available online",
    "Downloaded from the publisher by guest on 12 March 2016. For personal use only.",
    "Author et al. / Structure and mechanics of biological materials, preprint submitted",
)
_COLUMN_WORDS = 6
"""Words of one line of a column."""
_LOST_BLANKS, _BROKEN_LINES = 1 / 4, 1 / 6


def spoil(text: str, level: float, rng: np.random.Generator) -> str:
    """Return the text with faults; the same generator state gives the same faults.

    Args:
        text: Paragraphs with blank lines between them.
        level: How badly, in [0, 1]; at 0 the text comes back as it is. A badly recognised page
            has 0.05 to 0.2.
        rng: Decides where.

    Raises:
        UsageError: the level lies outside [0, 1].
    """
    if not 0 <= level <= 1:
        raise UsageError(f"wanted a noise level in [0, 1], got {level}")

    def happens(share: float = 1.0) -> bool:
        return bool(rng.random() < level * share)

    def cut(word: re.Match[str]) -> str:
        middle = len(word[0]) // 2
        return f"{word[0][:middle]}-\n{word[0][middle:]}" if happens() else word[0]

    def blank(_: re.Match[str]) -> str:
        if happens(_LOST_BLANKS):
            return ""
        return "\n" if happens(_BROKEN_LINES) else " "

    head = str(rng.choice(_HEADS))
    paragraphs = [_across(p) if happens() else p for p in text.split("\n\n")]
    text = "\n\n".join(paragraphs)
    text = _SENTENCE_END.sub(lambda _: f"\n\n{head}\n\n" if happens() else " ", text)
    text = _LONG_WORD.sub(cut, text)
    text = _BLANK.sub(blank, text)
    return _CONFUSABLE.sub(lambda m: _LOOK_ALIKES[m[0]] if happens() else m[0], text)


def _across(paragraph: str) -> str:
    """Return a paragraph as if it stood in two columns and had been read line by line."""
    words = paragraph.split()
    lines = [" ".join(words[i : i + _COLUMN_WORDS]) for i in range(0, len(words), _COLUMN_WORDS)]
    n = -(-len(lines) // 2)
    left, right = lines[:n], [*lines[n:], ""]
    return "\n".join(f"{a} {b}".rstrip() for a, b in zip(left, right, strict=False))
